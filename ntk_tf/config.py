"""The settings of a run: frozen, validated, with the paper's values as defaults.

"The paper" is Samarin, Roth and Belius (2020), *On the Empirical Neural Tangent Kernel of Standard
Finite-Width Convolutional Neural Network Architectures*. Nothing here imports TensorFlow, so bad
settings are refused at once.
"""

import dataclasses
import math
import pathlib
from collections.abc import Callable
from typing import Any

EXPERIMENTS = ("train",)
ARCHS = ("lenet", "alexnet")
DATASETS = ("digits", "mnist")
LOSSES = ("l2", "cross_entropy")

#: Figures 2 to 4 use LeNet on MNIST and CIFAR-10, Figures 1 and 6 AlexNet on ImageNet snakes. Until
#: the snakes can be read, AlexNet's default is the embedded data.
PAPER_DATASET = {"lenet": "mnist", "alexnet": "digits"}

#: Side of the square input of each architecture; absent: the pictures' own.
#: Krizhevsky (2014) crops 224 pixels; digits are 8x8 and LeNet takes no less than 16.
IMAGE_SIZE = {("alexnet", None): 224, ("lenet", "digits"): 28}
NATIVE_SIZE = {"digits": 8, "mnist": 28}
NATIVE_CHANNELS = {"digits": 1, "mnist": 1}
NUM_CLASSES = {"digits": 10, "mnist": 10}

#: Section 3.1: LeNet by SGD with batches of 32, momentum 0.9, weight decay 5e-5, for 100 epochs; of
#: the learning rates 0.1, 0.01 and 0.001 it presents 0.1; constant on MNIST.
_LENET = {
    "epochs": 100,
    "batch_size": 32,
    "learning_rate": 0.1,
    "momentum": 0.9,
    "weight_decay": 5e-5,
    "lr_drop_every": 0,
    "lr_drop_factor": 10.0,
}
#: Section 3.3 (Figure 6): the network at learning rate 0.1 and weight decay 5e-6, divided by 10
#: every 30 epochs.
_ALEXNET = _LENET | {"weight_decay": 5e-6, "lr_drop_every": 30}
#: Section 3.3 and Table 1: the linearization at learning rate 1 and weight decay 5e-7.
_LINEARIZED_ALEXNET = _ALEXNET | {"learning_rate": 1.0, "weight_decay": 5e-7}


_MODEL = {"experiment", "arch", "width", "dataset", "image_size", "padding", "seed"}
_DATA = {"train_examples", "test_examples"}
_TRAINING = {"loss", *_LENET, "max_steps"}

#: The settings that each experiment reads; a flag of another one is refused.
READS = {"train": _MODEL | _DATA | _TRAINING | {"linearized"}}


class SettingError(ValueError):
    """A setting that cannot be used; the message is one line for the user."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Every setting that a run's numbers depend on; None for those its experiment does not read.

    Attributes:
        experiment: what is run, one of `EXPERIMENTS`.
        arch: architecture, one of `ARCHS`.
        width: width factor k, which multiplies the channels of every convolution and the units of
            every hidden dense layer.
        dataset: one of `DATASETS`.
        image_size: pictures are resized to this many pixels square, before padding.
        padding: pixels of black border added on each side.
        seed: fixes initialization and data order.
        linearized: train T_f(u, x) = f(w0, x) + u . grad_w f(w0, x) in place of f(w, x).
        loss: `l2` (mean over batch and outputs) or `cross_entropy`.
        epochs: passes over the training set.
        batch_size: pictures an update; the last batch of an epoch may be smaller.
        learning_rate: SGD's step size at the start.
        momentum: SGD's momentum.
        weight_decay: coupled decay, added to the gradient (PyTorch's).
        lr_drop_every: epochs between drops of the learning rate; 0 keeps it constant.
        lr_drop_factor: what a drop divides the learning rate by.
        max_steps: stop after so many updates; None runs all epochs.
        train_examples: use only the first so many training pictures; None uses all.
        test_examples: use only the first so many test pictures; None uses all.
    """

    experiment: str
    arch: str
    width: int
    dataset: str
    image_size: int
    padding: int
    seed: int
    linearized: bool | None = None
    loss: str | None = None
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    momentum: float | None = None
    weight_decay: float | None = None
    lr_drop_every: int | None = None
    lr_drop_factor: float | None = None
    max_steps: int | None = None
    train_examples: int | None = None
    test_examples: int | None = None

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape (height, width, channels) of what the network sees."""
        side = self.image_size + 2 * self.padding
        return side, side, channels(self.arch, self.dataset)

    @property
    def num_classes(self) -> int:
        """Number L of outputs."""
        return NUM_CLASSES[self.dataset]

    def learning_rate_in(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0."""
        drops = epoch // self.lr_drop_every if self.lr_drop_every else 0
        return self.learning_rate / self.lr_drop_factor**drops

    def to_dict(self) -> dict[str, Any]:
        """The settings that the experiment reads, by name, ready for JSON."""
        return {
            name: value
            for name, value in dataclasses.asdict(self).items()
            if name in READS[self.experiment]
        }


def channels(arch: str, dataset: str) -> int:
    """Channels of the network's input: AlexNet always sees three, LeNet the pictures' own."""
    return 3 if arch == "alexnet" else NATIVE_CHANNELS[dataset]


@dataclasses.dataclass(frozen=True)
class _Rule:
    """What a setting may be: a predicate and its description for the error message."""

    allowed: str
    accepts: Callable[[Any], bool]


def _one_of(names: tuple[str, ...]) -> _Rule:
    return _Rule("one of " + ", ".join(names), lambda value: value in names)


def _integer(minimum: int, maximum: int | None = None) -> _Rule:
    upper = "" if maximum is None else f" and at most {maximum}"
    return _Rule(
        f"an integer of at least {minimum}{upper}",
        lambda value: (
            isinstance(value, int)
            and not isinstance(value, bool)
            and value >= minimum
            and (maximum is None or value <= maximum)
        ),
    )


def _optional(rule: _Rule) -> _Rule:
    return _Rule(rule.allowed, lambda value: value is None or rule.accepts(value))


def _real(allowed: str, accepts: Callable[[float], bool]) -> _Rule:
    return _Rule(
        f"a finite number {allowed}",
        lambda value: isinstance(value, int | float) and math.isfinite(value) and accepts(value),
    )


RULES: dict[str, _Rule] = {
    "experiment": _one_of(EXPERIMENTS),
    "arch": _one_of(ARCHS),
    "width": _integer(1),
    "linearized": _Rule("true or false", lambda value: isinstance(value, bool)),
    "dataset": _one_of(DATASETS),
    "image_size": _integer(1),
    "padding": _integer(0),
    "loss": _one_of(LOSSES),
    "epochs": _integer(1),
    "batch_size": _integer(1),
    "learning_rate": _real("above 0", lambda value: value > 0),
    "momentum": _real("of at least 0 and below 1", lambda value: 0 <= value < 1),
    "weight_decay": _real("of at least 0", lambda value: value >= 0),
    "lr_drop_every": _integer(0),
    "lr_drop_factor": _real("above 0", lambda value: value > 0),
    "max_steps": _optional(_integer(1)),
    "seed": _integer(0, 2**32 - 1),
    "train_examples": _optional(_integer(1)),
    "test_examples": _optional(_integer(1)),
}

#: Smallest input side that leaves at least one position before each layer.
MINIMUM_SIDE = {"lenet": 16, "alexnet": 63}


def check(name: str, value: Any) -> None:
    """Refuse a value that setting `name` cannot take.

    Raises:
        SettingError: naming the flag, its value and what is allowed.
    """
    rule = RULES[name]
    if not rule.accepts(value):
        raise SettingError(f"--{name}={value}: must be {rule.allowed}")


def defaults(experiment: str, arch: str, dataset: str, linearized: bool) -> dict[str, Any]:
    """What an experiment's settings are by default: the paper's; see the constants' sections."""
    alexnet = _LINEARIZED_ALEXNET if linearized else _ALEXNET
    training = alexnet if arch == "alexnet" else _LENET
    size = IMAGE_SIZE.get((arch, dataset), IMAGE_SIZE.get((arch, None), NATIVE_SIZE[dataset]))
    usual = training | {
        "experiment": experiment,
        "arch": arch,
        "dataset": dataset,
        "linearized": linearized,
        "width": 1,
        "image_size": size,
        "padding": 0,
        "loss": "l2",
        "max_steps": None,
        "seed": 0,
        "train_examples": None,
        "test_examples": None,
    }
    return {name: value for name, value in usual.items() if name in READS[experiment]}


def resolve(**settings: Any) -> Config:
    """Complete the given settings with the paper's and validate all of them.

    Args:
        **settings: attributes of `Config`; those absent or None take their default, which for
            `experiment` is `train`, for `arch` LeNet, for `dataset` the paper's for that arch.

    Returns:
        The complete configuration.

    Raises:
        SettingError: if a setting has a value that it cannot take, or the experiment does not
            read it.
        TypeError: if a setting is unknown.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    for name, value in given.items():
        if name not in RULES:
            raise TypeError(f"unknown setting {name!r}")
        check(name, value)
    experiment = given.get("experiment", "train")
    foreign = sorted(given.keys() - READS[experiment])
    if foreign:
        readers = [name for name, read in READS.items() if foreign[0] in read]
        raise SettingError(
            f"--{foreign[0]}={given[foreign[0]]}: --experiment={experiment} does not read it;"
            f" read by {', '.join(readers)}"
        )
    arch = given.get("arch", "lenet")
    dataset = given.get("dataset", PAPER_DATASET[arch])
    linearized = given.get("linearized", False)
    config = Config(**(defaults(experiment, arch, dataset, linearized) | given))
    side = config.input_shape[0]
    if side < MINIMUM_SIDE[arch]:
        raise SettingError(
            f"--image_size={config.image_size}: with --padding={config.padding} the input of"
            f" {arch} is {side} pixels wide; it must be at least {MINIMUM_SIDE[arch]}"
        )
    return config


def run_name(config: Config) -> str:
    """A readable, unique name: the model and data, then whatever differs from the defaults.

    Returns:
        For example `linlenet_x60_mnist_seed0` or `lenet_x1_digits_seed3_epochs5`.
    """
    prefix = "lin" if config.linearized else ""
    name = f"{prefix}{config.arch}_x{config.width}_{config.dataset}_seed{config.seed}"
    if config.experiment != "train":
        name = f"{config.experiment}_{name}"
    usual = defaults(config.experiment, config.arch, config.dataset, bool(config.linearized))
    changed = {
        key: getattr(config, key)
        for key, value in usual.items()
        if key not in ("width", "seed") and getattr(config, key) != value
    }
    return name + "".join(f"_{key}{value}" for key, value in changed.items())


@dataclasses.dataclass(frozen=True)
class Options:
    """How and where a run is carried out; its numbers do not depend on this.

    Attributes:
        workdir: the run directory.
        data_dir: where TFDS keeps prepared datasets; None for its own default.
        manual_dir: folder of original data files, only read; None if there is none.
        resume: continue an unfinished run and keep a finished one.
        checkpoint_minutes: save within an epoch when the last save is so long ago.
    """

    workdir: pathlib.Path
    data_dir: str | None = None
    manual_dir: str | None = None
    resume: bool = True
    checkpoint_minutes: float = 10.0
