"""What happens between updates: records, checkpoints, progress, and the stop at divergence."""

import pathlib
import resource
import shutil
import sys
import time
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ntk_tf import runs
from ntk_tf.training.loop import Plan
from ntk_tf.training.state import History


class StopAtDivergence(keras.callbacks.Callback):
    """Ends training when outputs or the running loss are not finite.

    Attributes:
        step: number of the update before which the outputs were not finite, or None.
    """

    def __init__(self, plan: Plan):
        super().__init__()
        self.plan = plan
        self.step = None

    def on_train_batch_end(self, batch, logs=None):
        """Look at what the last updates left; `batch` is the number of updates done."""
        first = int(logs["first_non_finite"])
        if first:
            epoch_start = (batch - 1) // self.plan.steps_per_epoch * self.plan.steps_per_epoch
            self.step = epoch_start + first
        elif not tf.math.is_finite(logs["loss"]):
            self.step = batch
        if self.step is not None:
            self.model.stop_training = True


class Record(keras.callbacks.Callback):
    """Writes a row of metrics.csv and the same scalars for TensorBoard after every epoch.

    Args:
        workdir: the run directory.
        history: what is recorded already; rows are added to it.
        plan: tells where training starts.
        learning_rate_in: maps an epoch, counted from 0, to its learning rate.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        history: History,
        plan: Plan,
        learning_rate_in: Callable[[int], float],
    ):
        super().__init__()
        self.metrics_path = workdir / "metrics.csv"
        self.tensorboard = workdir / "tensorboard"
        self.history = history
        self.rows = history.table("metrics")
        self.learning_rate_in = learning_rate_in
        self.step = plan.start_step

    def on_train_begin(self, logs=None):
        """Bring both records to the state that training starts from."""
        runs.write_table(self.metrics_path, runs.METRICS_COLUMNS, self.rows)
        shutil.rmtree(self.tensorboard, ignore_errors=True)
        self.writer = tf.summary.create_file_writer(str(self.tensorboard))
        for row in self.rows:
            self._write_scalars(row)

    def on_train_batch_end(self, batch, logs=None):
        """Remember the number of updates done."""
        self.step = batch

    def on_epoch_end(self, epoch, logs=None):
        """Add the epoch's row."""
        row = {
            "epoch": epoch + 1,
            "step": self.step,
            "learning_rate": self.learning_rate_in(epoch),
            "running_train_loss": logs["loss"],
            "running_train_accuracy": logs["accuracy"],
            "test_loss": logs.get("test_loss"),
            "test_accuracy": logs.get("test_accuracy"),
            "seconds": round(self.history.elapsed(), 3),
        }
        self.rows.append(row)
        runs.write_table(self.metrics_path, runs.METRICS_COLUMNS, self.rows)
        self._write_scalars(row)

    def on_train_end(self, logs=None):
        """Close the event file."""
        self.writer.close()

    def _write_scalars(self, row: dict[str, Any]) -> None:
        with self.writer.as_default(step=row["step"]):
            for name, value in row.items():
                if name not in ("epoch", "step") and value is not None:
                    tf.summary.scalar(name, value)
        self.writer.flush()


class Save(keras.callbacks.Callback):
    """Saves the run's state after epochs, and within long ones.

    Args:
        write: writes a checkpoint of the state after so many updates.
        plan: tells the last update.
        minutes: save within an epoch when the last save is so long ago.
        epoch_seconds: save after an epoch when the last save is so long ago.
    """

    def __init__(
        self,
        write: Callable[[int], None],
        plan: Plan,
        minutes: float,
        epoch_seconds: float = 10.0,
    ):
        super().__init__()
        self.write = write
        self.plan = plan
        self.minutes = minutes
        self.epoch_seconds = epoch_seconds
        self.step = plan.start_step
        self.saved = time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        """Save in the middle of an epoch, if it is time and all is well."""
        self.step = batch
        within = batch % self.plan.steps_per_epoch and batch < self.plan.total_steps
        if within and self._seconds() > 60 * self.minutes and not self.model.stop_training:
            self._save()

    def on_epoch_end(self, epoch, logs=None):
        """Save if it is time; always after the last update."""
        last = self.step == self.plan.total_steps
        if not self.model.stop_training and (last or self._seconds() > self.epoch_seconds):
            self._save()

    def _seconds(self) -> float:
        return time.monotonic() - self.saved

    def _save(self) -> None:
        self.write(self.step)
        self.saved = time.monotonic()


class Speed(keras.callbacks.Callback):
    """Measures how fast updates are, without start-up, evaluation, records and saves.

    Args:
        batch_size: pictures an update.
        flops: floating-point operations of an update for one picture.
    """

    def __init__(self, batch_size: int, flops: int):
        super().__init__()
        self.batch_size, self.flops = batch_size, flops
        self.steps, self.seconds = 0, 0.0
        self.traced = False

    def on_train_batch_begin(self, batch, logs=None):
        """Start the clock."""
        self.begin, self.started = batch, time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        """Count the updates and their time, but for the first ones, which are traced."""
        if self.traced:
            self.steps += batch - self.begin
            self.seconds += time.perf_counter() - self.started
        self.traced = True

    def result(self) -> dict[str, float | None]:
        """What result.json tells of this process's updates; null where there were too few."""
        rate = self.steps / self.seconds if self.steps else None
        return {
            "steps_per_second": rate and round(rate, 3),
            "examples_per_second": rate and round(rate * self.batch_size, 3),
            "gflops_per_second": rate and round(rate * self.batch_size * self.flops / 1e9, 3),
            "peak_memory_gib": round(peak_memory() / 2**30, 3),
        }


def peak_memory() -> int:
    """The most bytes that this process has held, on the GPUs where there are any."""
    gpus = tf.config.list_logical_devices("GPU")
    if gpus:
        return max(tf.config.experimental.get_memory_info(gpu.name)["peak"] for gpu in gpus)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


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

    def on_train_batch_begin(self, batch, logs=None):
        """Begin, if it is time."""
        if batch == self.start:
            tf.profiler.experimental.start(str(self.folder))

    def on_train_batch_end(self, batch, logs=None):
        """Stop, if it is time."""
        if batch == self.end or (batch > self.start and self.model.stop_training):
            tf.profiler.experimental.stop()


class ShowProgress(keras.callbacks.Callback):
    """A progress bar with the time left; a line now and then where output is no terminal.

    Args:
        title: names the run.
        plan: tells how far it goes.
        console: where to write.
        line_seconds: least time between two lines.
    """

    def __init__(self, title: str, plan: Plan, console: Console, line_seconds: float = 10.0):
        super().__init__()
        self.title = title
        self.plan = plan
        self.console = console
        self.line_seconds = line_seconds

    def on_train_begin(self, logs=None):
        """Start the bar."""
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=self.console,
            disable=not self.console.is_terminal,
            transient=True,
        )
        self.task = self.progress.add_task(
            self.title, total=self.plan.total_steps, completed=self.plan.start_step
        )
        self.test = ""
        self.started = self.printed = time.monotonic()
        self.progress.start()

    def on_train_batch_end(self, batch, logs=None):
        """Move the bar."""
        epoch = -(-batch // self.plan.steps_per_epoch)
        self.text = (
            f"{self.title}  epoch {epoch}/{self.plan.epochs}"
            f"  loss {logs['loss']:.4f}  train {logs['accuracy']:.1%}"
        )
        self.progress.update(self.task, completed=batch, description=self.text + self.test)
        self.step = batch

    def on_epoch_end(self, epoch, logs=None):
        """Show the test accuracy."""
        if "test_accuracy" in logs:
            self.test = f"  test {logs['test_accuracy']:.1%}"
        self.progress.update(self.task, description=self.text + self.test)
        now = time.monotonic()
        if not self.console.is_terminal and now - self.printed >= self.line_seconds:
            rate = (self.step - self.plan.start_step) / (now - self.started)
            left = (self.plan.total_steps - self.step) / rate
            self.console.print(
                f"{self.text}{self.test}  {left:.0f} s left", highlight=False, soft_wrap=True
            )
            self.printed = now

    def on_train_end(self, logs=None):
        """Remove the bar."""
        self.progress.stop()
