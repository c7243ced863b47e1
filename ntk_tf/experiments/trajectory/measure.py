"""What is measured at chosen updates: the distance of the two models, the kernel's movement."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ntk_tf import ntk
from ntk_tf.experiments.trajectory.pair import Pair, relative_distance
from ntk_tf.ntk.compare import kernel_movement, velocity
from ntk_tf.training.loop import Plan


def steps_every(every: int | None, total: int) -> frozenset[int]:
    """The numbers of updates after which something is measured: the start, the end, and between.

    Args:
        every: updates between measurements; None for no measurement at all.
        total: updates of the whole run.
    """
    return frozenset({total, *range(0, total, every)}) if every else frozenset()


def distance_steps(every: int, total: int) -> frozenset[int]:
    """The same for the distance, which runs of less than two intervals take at their tenths too."""
    tenths = range(1, 11) if total < 2 * every else ()
    return steps_every(every, total).union(-(-total * i // 10) for i in tenths)


class Distance:
    """The distance between the network and its linearization; see `pair.relative_distance`."""

    def __init__(
        self, pair: Pair, pictures: tf.Tensor, steps: frozenset[int], rows: list[dict[str, Any]]
    ):
        self.pair, self.pictures, self.steps, self.rows = pair, pictures, steps, rows

    def measure(self, step: int) -> dict[str, float] | None:
        """The distance after so many updates; none before the first, when there is no movement."""
        return relative_distance(self.pair, self.pictures) if step else None


class KernelMovement:
    """How far the network's kernel has moved; see `ntk.compare.kernel_movement`.

    And how fast: its velocity since the last measurement, per update.

    Args:
        pair: both models; the base of the linearization is at w0 also when a run goes on.
        pictures: n inputs.
        targets: theirs, `[n, L]`.
        steps: after which it is measured.
        rows: what has been measured.
        last: the kernel measured last, `[n, L, n, L]`; zeros before the first.
    """

    def __init__(
        self,
        pair: Pair,
        pictures: np.ndarray,
        targets: np.ndarray,
        steps: frozenset[int],
        rows: list[dict[str, Any]],
        last: keras.Variable,
    ):
        self.pair, self.pictures, self.targets = pair, pictures, targets
        self.steps, self.rows, self.last = steps, rows, last
        self.kernel = ntk.GramFunction(pair.standard)
        self.at_start = np.asarray(ntk.gram(pair.linearized.base, pictures))

    def measure(self, step: int) -> dict[str, float]:
        """The kernel after so many updates, compared with the first and with the last one."""
        now = np.asarray(self.kernel(self.pictures))
        last = self.last.numpy()
        with np.errstate(invalid="ignore", over="ignore"):  # of a run that diverges
            values = kernel_movement(now, self.at_start, self.targets)
            if last.any():
                values["velocity"] = velocity(last, now, step - self.rows[-1]["step"])
        self.last.assign(now)
        return values


class Measure(keras.callbacks.Callback):
    """Records the last outputs and measures at the plan's pauses.

    Args:
        pair: both models.
        measurements: what is measured, each after its own updates.
        plan: tells the start.
    """

    def __init__(self, pair: Pair, measurements: Sequence[Distance | KernelMovement], plan: Plan):
        super().__init__()
        self.pair, self.measurements, self.plan = pair, measurements, plan

    def on_train_begin(self, logs=None):
        """Record the start."""
        self.pair.record()
        if self.plan.start_step == 0:
            self._measure(0)

    def on_train_batch_end(self, batch, logs=None):
        """Measure, if it is time; `batch` is the number of updates done."""
        self.pair.record()
        if not self.model.stop_training:
            self._measure(batch)

    def _measure(self, step: int) -> None:
        for measurement in self.measurements:
            if step in measurement.steps:
                values = measurement.measure(step)
                if values is not None:
                    measurement.rows.append({"step": step} | values)
