"""`--experiment=trajectory`: a network and its linearization side by side, update by update."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from ntk_tf.experiments import costs
from ntk_tf.experiments.experiment import Experiment, Time
from ntk_tf.process.speed import Speed
from ntk_tf.runs import number
from ntk_tf.settings import SettingError, groups
from ntk_tf.settings.setting import integer, optional, positions, setting, shown


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trajectory(
    groups.Network,
    groups.Training,
    groups.TestSubset,
    groups.TrainSubset,
    groups.Data,
):
    """The settings of a trajectory."""

    examples: int | tuple[int, ...] = setting(
        lambda c: min(3, c.card.classes),
        positions(),
        "test pictures whose outputs are recorded: how many, one of each class, or their positions"
        " (default: 3, of two classes 2)",
    )
    record_every: int = setting(
        1, integer(1), "updates between records of the outputs (default: 1)"
    )
    distance_every: int = setting(
        50,
        integer(1),
        "updates between measurements of the distance; in runs of fewer than twice as many also"
        " each tenth (default: 50)",
    )
    distance_examples: int = setting(
        200, integer(1), "first so many test pictures for the distance (default: 200, or all)"
    )
    kernel_every: int | None = setting(
        None, optional(integer(1)), "updates between measurements of the kernel (default: never)"
    )
    kernel_examples: int = setting(
        50, integer(2), "first so many test pictures for the kernel (default: 50, or all)"
    )

    def check(self, given: dict[str, Any]) -> None:
        """Refuse pictures that nothing is measured with, or that there are not.

        Raises:
            SettingError: naming the flag, its value and what is allowed.
        """
        super().check(given)
        if "kernel_examples" in given and self.kernel_every is None:
            raise SettingError(
                f"--kernel_examples={self.kernel_examples}: read only with --kernel_every"
            )
        _, pictures = costs.examples(self)
        if isinstance(self.examples, int):
            if self.examples > self.num_classes:
                raise SettingError(
                    f"--examples={self.examples}: there are {self.num_classes} classes, and one"
                    " picture of each is taken; name pictures by their positions, comma-separated,"
                    " to take others"
                )
        elif 0 < pictures <= max(self.examples):
            raise SettingError(
                f"--examples={shown(self.examples)}: there are {pictures:,} test pictures, counted"
                " from 0"
            )
        for name in ("distance_examples", "kernel_examples"):
            if name in given and 0 < pictures < given[name]:
                raise SettingError(
                    f"--{name}={given[name]}: there are {pictures:,} test pictures; at most so many"
                )


def summary(result: Mapping[str, Any], path: pathlib.Path) -> str:
    """The last distance in words."""
    distance = number(result, "relative_distance", path)
    return "" if distance is None else f"relative distance {distance:.3f}"


def memory(config: Trajectory) -> tuple[int, float]:
    """Parameters, and bytes of both models, of the records and of the kernels.

    For the models see `costs.training_memory`. The records are a variable and a copy for the files,
    and a measurement of the kernel has the first, the last and the present one.
    """
    parameters, size = costs.training_memory(config, 8, 5)
    pictures = config.examples if isinstance(config.examples, int) else len(config.examples)
    count = (config.max_steps or costs.updates(config)) // config.record_every + 1
    records = 2 * count * pictures * config.num_classes
    rows = config.kernel_examples * config.num_classes if config.kernel_every else 0
    return parameters, size + 2 * costs.FLOAT * records + 3 * 8 * rows**2


def time(config: Trajectory, speed: Speed) -> Time:
    """The updates', of both models, and those of measuring their distance."""
    total = config.max_steps or costs.updates(config)
    both = sum(costs.update_seconds(config, linearized, speed) for linearized in (False, True))
    measured = config.distance_examples * max(10, total // config.distance_every)
    return Time(
        costs.START
        + 4 * costs.TRACING
        + total * both
        + 2 * costs.evaluation_seconds(config, True, measured, speed)
    )


EXPERIMENT = Experiment(
    "trajectory",
    Trajectory,
    "ntk_tf.experiments.trajectory.run",
    summary,
    memory,
    time,
    files=("trajectories.*", "trajectory.json", "kernel.csv", "distances.*"),
    figure="ntk_tf.experiments.trajectory.figure",
    keeps_inputs=True,
)
