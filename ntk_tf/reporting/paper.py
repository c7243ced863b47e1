"""The paper's own numbers, in percent, and which runs they are to be compared with."""

import dataclasses
import functools
import importlib.resources
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from ntk_tf.catalogue import architectures, datasets

SPLITS = ("test", "train")


def arch_name(arch: str) -> str:
    """An architecture's name for readers."""
    return architectures.ARCHITECTURES[arch].title if arch in architectures.ARCHITECTURES else arch


def dataset_name(dataset: str) -> str:
    """A dataset's name for readers."""
    return datasets.DATASETS[dataset].title if dataset in datasets.DATASETS else dataset


@functools.cache
def numbers() -> Mapping[str, Any]:
    """The content of paper_numbers.json."""
    text = (importlib.resources.files("ntk_tf.reporting") / "paper_numbers.json").read_text()
    return json.loads(text)


@dataclasses.dataclass(frozen=True, order=True)
class Model:
    """What is trained of an architecture.

    Attributes:
        linearized: whether it is the linearization.
        centered: whether its outputs start at 0.
        alpha: that these are multiplied by in the loss.
    """

    linearized: bool = False
    centered: bool = False
    alpha: float = 1.0

    @property
    def lazy(self) -> bool:
        """Whether it is a network that a large alpha makes lazy."""
        return self.centered and not self.linearized

    def title(self, name: str) -> str:
        """It for readers, by the architecture's name."""
        if self.linearized:
            return f"linearized {name}" + ", centered" * self.centered
        return f"{name}, alpha {alpha_text(self.alpha)}" if self.centered else name


NETWORK, LINEARIZATION = Model(), Model(linearized=True)
#: The limit of centered networks for a large alpha.
LIMIT = Model(linearized=True, centered=True)


def alpha_text(alpha: float) -> str:
    """An alpha as people write it: 0.1, 100, 1e3, 2.5e7, ∞."""
    if not 1e3 <= alpha < math.inf:
        return f"{alpha:g}".replace("inf", "∞")
    power = math.floor(math.log10(alpha))
    return f"{alpha / 10**power:g}e{power}"


@dataclasses.dataclass(frozen=True)
class Curve:
    """Accuracies of one model against the width.

    Attributes:
        key: names it in tables.
        title: names it for readers.
        model: whose they are.
        learning_rate: the only one that it shows; None if the best of all is chosen.
        paper: the paper's accuracies in percent, by split and width; empty where it has none.
    """

    key: str
    title: str
    model: Model
    learning_rate: float | None = None
    paper: Mapping[str, Mapping[int, float]] = dataclasses.field(default_factory=dict)

    def widths(self) -> set[int]:
        """The widths that the paper shows."""
        return {width for values in self.paper.values() for width in values}


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure of the paper: accuracies against the width.

    Attributes:
        key: of `numbers`, and the name of the files.
        title: its number.
        arch: architecture.
        dataset: its pictures.
        curves: what it shows.
    """

    key: str
    title: str
    arch: str
    dataset: str
    curves: tuple[Curve, ...]


def _curve(figure: str, key: str, title: str, learning_rate: float | None = None) -> Curve:
    content = numbers()[figure]
    paper = {
        split: dict(zip(content["widths"], content[key][split], strict=True)) for split in SPLITS
    }
    model = NETWORK if key == "standard" else LINEARIZATION
    return Curve(key, title, model, learning_rate, paper)


@functools.cache
def figures() -> tuple[Figure, ...]:
    """The figures that show accuracies against the width."""
    snakes = "figure6_alexnet_snakes"
    found = [
        Figure(
            snakes,
            "Figure 6",
            "alexnet",
            "imagenet_snakes",
            (
                _curve(snakes, "standard", "AlexNet"),
                _curve(snakes, "linearized_lr_1", "linearized, learning rate 1", 1.0),
                _curve(snakes, "linearized_lr_0.1", "linearized, learning rate 0.1", 0.1),
            ),
        )
    ]
    for number, dataset in ((4, "cifar10"), (3, "mnist")):
        key = f"figure{number}_lenet_{dataset}"
        curves = (_curve(key, "standard", "LeNet"), _curve(key, "linearized", "linearized LeNet"))
        found.insert(0, Figure(key, f"Figure {number}", "lenet", dataset, curves))
    return tuple(found)


def plain_curves(name: str, models: Iterable[Model]) -> tuple[Curve, ...]:
    """Models of an architecture for readers, without the paper's values."""
    return tuple(Curve(str(model), model.title(name), model) for model in models)


#: Figures that show something else than accuracies: the experiment, and what it was done with.
MEASURED = {
    "Figure 2": ("trajectory", (("lenet", "mnist"),)),
    "Figure 5": ("rank", (("lenet", "mnist"), ("alexnet", "imagenet_snakes"))),
}


def measured_figure(experiment: str, arch: str, dataset: str) -> str | None:
    """The number of the paper's figure that an experiment reproduces; None if there is none."""
    for title, (name, places) in MEASURED.items():
        if name == experiment and (arch, dataset) in places:
            return title
    return None
