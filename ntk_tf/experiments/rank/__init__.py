"""`--experiment=rank`: singular values of a network's output gradients, their effective rank."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from ntk_tf.experiments import architecture, costs
from ntk_tf.experiments.experiment import Experiment, Time, accuracies
from ntk_tf.process.speed import Speed
from ntk_tf.runs import number
from ntk_tf.settings import groups
from ntk_tf.settings.setting import (
    TRUE_OR_FALSE,
    Condition,
    integer,
    one_of,
    optional,
    real,
    setting,
)

_REGRESSION = Condition("--kernel_regression", lambda config: config.kernel_regression)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rank(groups.Network, groups.Targets, groups.Data):
    """The settings of a spectrum."""

    examples: int = setting(
        600, integer(1), "first so many training pictures; Figure 5 takes 600 (default: 600)"
    )
    precision: str = setting(
        "float32",
        one_of("float32", "float64"),
        "of the Gram's products, and for float64 of the network too (default: float32)",
    )
    kernel_regression: bool = setting(
        False, TRUE_OR_FALSE, "also solve the regression with the kernel (default: off)"
    )
    ridge: float = setting(
        0.0,
        real("of at least 0", lambda value: value >= 0),
        "weight decay of the kernel regression (default: 0)",
        when=_REGRESSION,
    )
    test_examples: int | None = setting(
        None,
        optional(integer(1)),
        "use only the first so many test pictures (default: all)",
        when=_REGRESSION,
    )


def summary(result: Mapping[str, Any], path: pathlib.Path) -> str:
    """The effective rank in words, and the accuracies of the regression."""
    rank, rows = (number(result, name, path) for name in ("effective_rank", "rows"))
    known = rank is not None and rows is not None
    text = f"effective rank {rank:.1f} of {rows:,}  " if known else ""
    return (text + accuracies(result, path)).rstrip()


def memory(config: Rank) -> tuple[int, float]:
    """Parameters, and bytes of these and of the Gram and a copy; the rest adapts to the memory."""
    parameters = architecture.counts(config).parameters
    rows = config.examples * config.num_classes
    return parameters, costs.FLOAT * parameters + 2 * 8 * rows**2


def time(config: Rank, speed: Speed) -> Time:
    """The Gram's and its eigenvalues'."""
    sizes = architecture.counts(config)
    gram = costs.gram_seconds(sizes, config.examples, config.num_classes, speed)
    return Time(costs.START + 2 * costs.TRACING + gram)


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
