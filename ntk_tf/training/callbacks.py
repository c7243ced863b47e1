"""What happens between updates: stop at divergence, checkpoints, speed, a profile."""

import pathlib
import time
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from ntk_tf.process.memory import peak_memory
from ntk_tf.runs import History
from ntk_tf.runs.saving import SaveWhenDue
from ntk_tf.training.loop import Plan


class StopAtDivergence(keras.callbacks.Callback):
    """Ends training when outputs, the running loss or the state are not finite.

    oneDNN's ReLU, fused with what comes before it, makes 0 of NaN, so that outputs may be finite
    behind weights that are not. The state is looked at where the plan stops anyway.

    Args:
        plan: of the training.
        is_finite: whether the state is.

    Attributes:
        step: number of the update before which the outputs were not finite, or after which the
            state was found not to be; None without a divergence.
    """

    def __init__(self, plan: Plan, is_finite: Callable[[], bool]):
        super().__init__()
        self.plan, self.is_finite = plan, is_finite
        self.step = None

    def on_train_batch_end(self, batch, logs=None):
        """Look at what the last updates left; `batch` is the number of updates done."""
        first = int(logs["first_non_finite"])
        if first:
            epoch_start = (batch - 1) // self.plan.steps_per_epoch * self.plan.steps_per_epoch
            self.step = epoch_start + first
        elif not (tf.math.is_finite(logs["loss"]) and self._has_finite_state(batch)):
            self.step = batch
        if self.step is not None:
            self.model.stop_training = True

    def _has_finite_state(self, step: int) -> bool:
        return step != self.plan.next_stop(step - 1) or self.is_finite()


def divergence(step: int, plan: Plan, learning_rate_in: Callable[[int], float]) -> dict[str, Any]:
    """What result.json says of a divergence.

    Args:
        step: that of `StopAtDivergence`.
        plan: tells the epoch of that.
        learning_rate_in: maps an epoch, counted from 0, to its learning rate.
    """
    rate = learning_rate_in((step - 1) // plan.steps_per_epoch)
    return {"status": "diverged", "diverged_at_step": step, "diverged_at_learning_rate": rate}


class Save(keras.callbacks.Callback):
    """Saves the run's state after epochs, within long ones, and when a signal asks for it.

    A save that fails, as on a full disk, is done again when it is time for the next one.

    Args:
        write: writes a checkpoint of the state after so many updates.
        plan: tells the last update.
        minutes: save within an epoch when the last save is so long ago; after one when it is ten
            seconds ago, or those minutes.
    """

    def __init__(
        self,
        write: Callable[[int], None],
        plan: Plan,
        minutes: float,
    ):
        super().__init__()
        self.save = SaveWhenDue(write)
        self.plan = plan
        self.minutes = minutes
        self.epoch_seconds = min(10.0, 60 * minutes)
        self.step = plan.start_step

    def on_train_batch_end(self, batch, logs=None):
        """Save in the middle of an epoch, if it is time and all is well."""
        self.step = batch
        if batch % self.plan.steps_per_epoch and batch < self.plan.total_steps:
            self._save_after(60 * self.minutes)

    def on_epoch_end(self, epoch, logs=None):
        """Save if it is time; always after the last update."""
        self._save_after(-1 if self.step == self.plan.total_steps else self.epoch_seconds)

    def complete(self) -> None:
        """Save, if that did not work the last time.

        Raises:
            WriteError: if it does not work now either.
        """
        self.save.complete(self.step)

    def _save_after(self, seconds: float) -> None:
        """Save if the last save is so long ago; at once if a signal has come, and obey it."""
        if not self.model.stop_training:
            self.save.after(self.step, seconds)


class Clock(keras.callbacks.Callback):
    """Counts the time of updates, and of what comes before and with the first ones, as parts.

    To be the first of the callbacks, so that what the others do is none of it.

    Args:
        history: whose parts `start` and `training` they are.
    """

    def __init__(self, history: History):
        super().__init__()
        self.history = history
        self.part, self.began, self.step = "start", history.started, 0
        self.steps, self.seconds = 0, 0.0  # of this process, but for the first ones

    def on_train_batch_begin(self, batch, logs=None):
        """Start the clock; for the first updates, which are traced, it started with the run."""
        if self.part == "training":
            self.began, self.step = time.monotonic(), batch

    def on_train_batch_end(self, batch, logs=None):
        """Count the updates."""
        seconds = time.monotonic() - self.began
        self.history.add(self.part, seconds)
        if self.part == "training":
            self.steps += batch - self.step
            self.seconds += seconds
        self.part = "training"

    def performance(self, batch_size: float, flops: float) -> dict[str, float | None]:
        """What result.json tells of this process's updates; null where there were too few.

        Args:
            batch_size: pictures an update, in the mean.
            flops: floating-point operations of an update for one picture.
        """
        rate = self.steps / self.seconds if self.steps else None
        return {
            "steps_per_second": rate and round(rate, 3),
            "examples_per_second": rate and round(rate * batch_size, 3),
            "gflops_per_second": rate and round(rate * batch_size * flops / 1e9, 3),
            "peak_memory_gib": round(peak_memory() / 2**30, 3),
        }


class Profile(keras.callbacks.Callback):
    """Writes TensorFlow's profile of some updates, for TensorBoard.

    Args:
        folder: where TensorBoard looks for this run.
        start: update after which to begin; one of the plan's pauses.
        end: update after which to stop, likewise.
    """

    def __init__(self, folder: pathlib.Path, start: int, end: int):
        super().__init__()
        self.folder, self.start, self.end = folder, start, end
        self.runs = False

    def on_train_batch_begin(self, batch, logs=None):
        """Begin, if it is time."""
        if batch == self.start:
            tf.profiler.experimental.start(str(self.folder))
            self.runs = True

    def on_train_batch_end(self, batch, logs=None):
        """Stop, if it is time."""
        if self.runs and (batch >= self.end or self.model.stop_training):
            tf.profiler.experimental.stop()
            self.runs = False
