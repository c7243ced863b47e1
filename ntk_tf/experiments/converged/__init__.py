"""`--experiment=converged`: where training the linearization by mean squared error ends."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from ntk_tf.catalogue import paper
from ntk_tf.data import counts
from ntk_tf.experiments import architecture, costs
from ntk_tf.experiments.experiment import Experiment, Time, accuracies
from ntk_tf.process.speed import Speed
from ntk_tf.runs import number
from ntk_tf.settings import groups
from ntk_tf.settings.setting import AT_LEAST_0, Condition, integer, optional, real, setting, several


def _weight_decay(config: Any) -> float:
    return paper.training(config.arch, config.dataset, True)["weight_decay"]


#: Rows of the Gram that speeds up a solution, where not told: 600 pictures of ten classes.
_ROWS = 6000


def _preconditioner_examples(config: Any) -> int:
    return 0 if config.weight_decays else min(600, max(1, _ROWS // config.card.classes))


_ALONE = Condition("one weight decay, without --weight_decays", lambda c: not c.weight_decays)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Converged(
    groups.Network,
    groups.Centered,
    groups.Targets,
    groups.DecayToward,
    groups.TestSubset,
    groups.TrainSubset,
    groups.Data,
):
    """The settings of a solution."""

    weight_decay: float = setting(
        _weight_decay,
        AT_LEAST_0,
        "of the training whose end is wanted (default: the paper's for the linearization)",
        plural="weight_decays",
        when=_ALONE,
    )
    weight_decays: tuple[float, ...] | None = setting(
        None,
        optional(several(AT_LEAST_0)),
        "of several, whose ends are found together, without preconditioner, in the passes of the"
        " smallest, where a sweep has a run for each (default: that of --weight_decay)",
        since="0.2",
    )
    preconditioner_examples: int = setting(
        _preconditioner_examples,
        integer(0),
        "first so many training pictures, or all, whose Gram speeds up the solution; 0 for none"
        " (default: 600, fewer with more than 10 classes, none for several weight decays)",
        when=_ALONE,
        since="0.2",
    )
    tolerance: float = setting(
        1e-4,
        real("above 0 and below 1", lambda value: 0 < value < 1),
        "stop where the gradient's norm, relative to the start's, and the root mean square of the"
        " test outputs' last change are at most this (default: .0001)",
        since="0.2",
    )
    max_passes: int = setting(
        1000,
        integer(1),
        "stop after so many passes over the data, or one more that computes the residual anew"
        " (default: 1000)",
        since="0.2",
    )

    @property
    def decays(self) -> tuple[float, ...]:
        """The weight decays, in the order given."""
        return self.weight_decays or (self.weight_decay,)

    def few(self, available: int) -> int:
        """Pictures of the preconditioner, of so many."""
        return min(self.preconditioner_examples, available)


def summary(result: Mapping[str, Any], path: pathlib.Path) -> str:
    """The accuracies in words, of each weight decay, and how exact the solutions are."""
    solutions, passes = result.get("solutions") or [result], number(result, "passes", path)
    residuals = [r for s in solutions if (r := number(s, "residual", path)) is not None]
    words = [accuracies(found, path) for found in solutions]
    if "solutions" in result:
        decays = [number(found, "weight_decay", path) for found in solutions]
        words = [f"weight decay {d:g}: {text}" for d, text in zip(decays, words, strict=True)]
    known = passes is not None and len(residuals) == len(solutions)
    text = f"residual {max(residuals):.1e} after {passes} passes" if known else ""
    if result.get("stopped_by") == "max_passes":
        text += ", stopped by --max_passes before it converged"
    return f"{'; '.join(words)}  {text}".strip()


def memory(config: Converged) -> tuple[int, float]:
    """Parameters, and bytes of vectors, a batch's activations, the Gram and its Cholesky factor.

    In float32 numbers a weight: w0, the residual, a product and its successor, a gradient and its
    flat copy, two factors of an inner product in float64, and for each weight decay a solution, a
    direction and their successors, and the best solution so far. Outputs of all pictures are held
    for each, with their tangents, in two states and some temporaries, in float64.
    """
    sizes = architecture.counts(config)
    batch = counts.evaluation_batch_size(config.input_shape)
    rows = config.few(costs.examples(config)[0]) * config.num_classes
    numbers = (10 + 5 * len(config.decays)) * sizes.parameters + 3 * sizes.activations * batch
    outputs = 7 * len(config.decays) * sum(costs.examples(config)) * config.num_classes
    return sizes.parameters, costs.FLOAT * numbers + 8 * (outputs + 2 * rows**2)


def time(config: Converged, speed: Speed) -> Time:
    """That of a pass, J u and J^T r over all pictures; how many it takes nobody knows before."""
    pictures = sum(costs.examples(config))
    both = costs.evaluation_seconds(config, True, 2 * pictures, speed)
    return Time(both, f"a pass, of at most {config.max_passes:,}")


EXPERIMENT = Experiment(
    "converged",
    Converged,
    "ntk_tf.experiments.converged.run",
    summary,
    memory,
    time,
    files=("weight_decays.*",),
)
