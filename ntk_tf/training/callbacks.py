"""What happens between updates: records, checkpoints, progress, and the stop at divergence."""

import contextlib
import pathlib
import resource
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ntk_tf import runs, signals
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

    What cannot be written, as on a full disk, is written after the next epoch.

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
        self.written = runs.attempt(self._write)
        self.events = EventFiles(self.tensorboard, ("",), self._show_all)

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
        self.written = runs.attempt(self._write)
        self.events.write(lambda writers: self._show(writers[""], row))

    def on_train_end(self, logs=None):
        """Close the event file."""
        self.events.close()

    def complete(self) -> None:
        """Write metrics.csv, if that did not work the last time.

        Raises:
            WriteError: if it does not work now either.
        """
        if not self.written:
            self._write()

    def _write(self) -> None:
        runs.write_table(self.metrics_path, runs.METRICS_COLUMNS, self.rows)

    def _show_all(self, writers: Mapping[str, tf.summary.SummaryWriter]) -> None:
        for row in self.rows:
            self._show(writers[""], row)

    def _show(self, writer: tf.summary.SummaryWriter, row: dict[str, Any]) -> None:
        with writer.as_default(step=row["step"]):
            for name, value in row.items():
                if name not in ("epoch", "step") and value is not None:
                    tf.summary.scalar(name, value)


class EventFiles:
    """TensorBoard's files, which a run can do without: after a failure they are made anew.

    Args:
        folder: of the files; what is there goes.
        names: of the folders in it, one a TensorBoard run; `""` for the folder itself.
        show_all: writes all that is known so far; gets the writers by name.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        names: Sequence[str],
        show_all: Callable[[Mapping[str, tf.summary.SummaryWriter]], None],
    ):
        self.folder, self.names, self.show_all = folder, names, show_all
        self.writers: dict[str, tf.summary.SummaryWriter] = {}
        self.write(lambda writers: None)

    def write(self, show: Callable[[Mapping[str, tf.summary.SummaryWriter]], None]) -> None:
        """Write what is new; if that or an earlier time fails, all of it at the next call."""
        try:
            if not self.writers:
                shutil.rmtree(self.folder, ignore_errors=True)
                for name in self.names:
                    path = str(self.folder / name)
                    self.writers[name] = tf.summary.create_file_writer(path)
                show = self.show_all
            show(self.writers)
            for writer in self.writers.values():
                writer.flush()
        except tf.errors.OpError as error:
            self.close()
            self.writers = {}
            reason = error.message.split("; ")[-1].splitlines()[0]
            warnings.warn(
                f"{self.folder}: cannot be written ({reason}); the run goes on and will try again",
                stacklevel=2,
            )

    def close(self) -> None:
        """Close the files."""
        for writer in self.writers.values():
            with contextlib.suppress(tf.errors.OpError):
                writer.close()


class Save(keras.callbacks.Callback):
    """Saves the run's state after epochs, within long ones, and when a signal asks for it.

    A save that fails, as on a full disk, is done again when it is time for the next one.

    Args:
        write: writes a checkpoint of the state after so many updates.
        plan: tells the last update.
        minutes: save within an epoch when the last save is so long ago.
        epoch_seconds: save after an epoch when the last save is so long ago, or those minutes.
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
        self.epoch_seconds = min(epoch_seconds, 60 * minutes)
        self.step = plan.start_step
        self.saved = time.monotonic()
        self.failed = False

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
        if self.failed:
            self.write(self.step)

    def _save_after(self, seconds: float) -> None:
        """Save if the last save is so long ago; at once if a signal has come, and obey it."""
        if self.model.stop_training:
            return
        if signals.pending() or time.monotonic() - self.saved > seconds:
            self.failed = not runs.attempt(lambda: self.write(self.step))
            self.saved = time.monotonic()
        signals.obey()


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

    Use as a context manager around training, so that the bar goes however that ends.

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

    def __enter__(self) -> "ShowProgress":
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
        return self

    def __exit__(self, *_) -> None:
        self.progress.stop()

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
