"""`--experiment=rank`: singular values of a network's output gradients, their effective rank."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from ntk_tf.experiments import architecture, costs
from ntk_tf.experiments.experiment import Experiment, Time, accuracies
from ntk_tf.process.speed import Speed
from ntk_tf.runs import number
from ntk_tf.settings import SettingError, groups
from ntk_tf.settings.setting import (
    AT_LEAST_0,
    TRUE_OR_FALSE,
    Condition,
    Rule,
    integer,
    one_of,
    optional,
    setting,
)

_REGRESSION = Condition("--kernel_regression", lambda config: config.kernel_regression)


def _outputs() -> Rule:
    """A kind of kernel that has one spectrum, or an output's number."""
    words, numbers = one_of("full", "trace", "sum"), integer(0)
    return Rule(
        "full, trace, sum, or the number of an output, from 0",
        lambda value: words.accepts(value) or numbers.accepts(value),
        lambda given: given if given.isalpha() else int(given),
        f"{words.placeholder}|N",
    )


#: Time of its decompositions, with vectors, over that of the eigenvalues alone: measured.
_REGRESSION_COST = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rank(groups.Network, groups.Targets, groups.Data):
    """The settings of a spectrum."""

    examples: int = setting(
        600, integer(1), "first so many training pictures; Figure 5 takes 600 (default: 600)"
    )
    outputs: str | int = setting(
        "full",
        _outputs(),
        "what is kept of the kernel: full, of all outputs with each other; trace, the mean over"
        " outputs; sum, of their sum / sqrt(L); N, of output N alone, from 0 (default: full)",
        since="0.2",
    )
    precision: str = setting(
        "float32",
        one_of("float32", "float64"),
        "of the Gram's products, and for float64 of the network too (default: float32)",
    )
    kernel_regression: bool = setting(
        False,
        TRUE_OR_FALSE,
        "also solve the regression with the kernel, with a ridge chosen by leave-one-out and"
        " without, and with that at the initialization too for trained weights (default: off)",
    )
    ridge: float = setting(
        0.0,
        AT_LEAST_0,
        "weight decay of the regression from the network's outputs that train_accuracy and"
        " test_accuracy are of, the linearization's with --outputs=full (default: 0)",
        when=_REGRESSION,
    )
    test_examples: int | None = setting(
        None,
        optional(integer(1)),
        "use only the first so many test pictures (default: all)",
        when=_REGRESSION,
    )

    @property
    def rows(self) -> int:
        """Rows of the kernel."""
        return self.examples * (self.num_classes if self.outputs == "full" else 1)

    def check(self, given: dict[str, Any]) -> None:
        """Refuse an output or pictures that there are not.

        Raises:
            SettingError: naming the flag, its value and what is allowed.
        """
        super().check(given)
        pictures, _ = costs.examples(self)
        if 0 < pictures < self.examples:
            raise SettingError(
                f"--examples={self.examples}: {self.dataset} has {pictures:,} training pictures"
            )
        if isinstance(self.outputs, int) and self.outputs >= self.num_classes:
            raise SettingError(
                f"--outputs={self.outputs}: the outputs for {self.dataset} are 0 to"
                f" {self.num_classes - 1}"
            )


def summary(result: Mapping[str, Any], path: pathlib.Path) -> str:
    """The effective rank in words, and the accuracies of the regression.

    From the network's outputs with the kernel of all of them it is the linearization's.
    """
    names = ("effective_rank", "rows", "examples", "outputs")
    rank, rows, examples, outputs = (number(result, name, path) for name in names)
    known = rank is not None and rows is not None
    text = f"effective rank {rank:.1f} of {rows:,}" if known else ""
    found = accuracies(result, path)
    part = bool(rows and examples and outputs and rows != examples * outputs)
    of = "regression from the network's outputs" if part else "linearization"
    return f"{text}  {of}: {found}" if found else text


def memory(config: Rank) -> tuple[int, float]:
    """Parameters, and bytes of these and of what the Gram and its factorizations take at least.

    A regression holds the Gram, a copy, eigenvectors, and products with these. The rest adapts to
    the memory.
    """
    parameters = architecture.counts(config).parameters
    grams = 5 if config.kernel_regression else 1.25
    return parameters, costs.FLOAT * parameters + grams * 8 * config.rows**2


def time(config: Rank, speed: Speed) -> Time:
    """The Gram's and its eigenvalues'; a regression's too, and that of the kernel at the start."""
    sizes, kind = architecture.counts(config), config.outputs
    outputs = config.num_classes if kind in ("full", "trace") else 1
    gram = costs.gram_seconds(sizes, config.examples, outputs, speed, kind == "full")
    eigenvalues = costs.eigenvalue_seconds(config.rows, speed)
    total = gram + eigenvalues
    if config.kernel_regression:
        _, test = costs.examples(config)
        each = _REGRESSION_COST * eigenvalues
        if kind != "full":  # whose products with a vector need no kernel of the test pictures
            each += 2 * test / config.examples * gram
        started = config.from_run or config.pretrain_steps
        total += each + (gram + each if started else 0)
    return Time(costs.START + 2 * costs.TRACING + total)


EXPERIMENT = Experiment(
    "rank",
    Rank,
    "ntk_tf.experiments.rank.run",
    summary,
    memory,
    time,
    files=("rank.json", "spectrum.npz", "spectra.*", "effective_rank.*"),
    figure="ntk_tf.experiments.rank.figure",
)
