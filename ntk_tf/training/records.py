"""What a run records after every epoch: metrics.csv, and the same for TensorBoard."""

import contextlib
import pathlib
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from ntk_tf import runs
from ntk_tf.runs import History
from ntk_tf.training.loop import Plan


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
        self.workdir = workdir
        self.history = history
        self.rows = history.table("metrics")
        self.learning_rate_in = learning_rate_in
        self.step = plan.start_step

    def on_train_begin(self, logs=None):
        """Bring both records to the state that training starts from."""
        self.record = Rows(self.workdir, runs.METRICS_COLUMNS, "step", self.rows)

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
        self.record.add(row)

    def on_train_end(self, logs=None):
        """Close the event file."""
        self.record.close()

    def complete(self) -> None:
        """Write metrics.csv, if that did not work the last time.

        Raises:
            WriteError: if it does not work now either.
        """
        self.record.complete()


#: From so many rows on, metrics.csv is not written after every epoch.
_EVERY = 1000


class Rows:
    """Rows of metrics.csv, and the same as TensorBoard's scalars.

    What cannot be written, as on a full disk, is written with the next row.

    Args:
        workdir: the run directory.
        columns: of the file.
        step: the column that TensorBoard counts by; those before it are no scalars either.
        rows: what is recorded already; rows are added to it.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        columns: Sequence[str],
        step: str,
        rows: list[dict[str, Any]],
    ):
        self.path, self.columns, self.step, self.rows = workdir / "metrics.csv", columns, step, rows
        self.scalars = columns[columns.index(step) + 1 :]
        self.count = -1  # of the rows in the file; there is none yet
        runs.attempt(self._write)
        self.events = EventFiles(workdir / "tensorboard", ("",), self._show_all)

    def add(self, row: dict[str, Any]) -> None:
        """Add a row to both."""
        self.rows.append(row)
        # A file is written whole: of many rows, not after each.
        if len(self.rows) - self.count > len(self.rows) // _EVERY:
            runs.attempt(self._write)
        self.events.write(lambda writers: self._show(writers[""], row))

    def complete(self) -> None:
        """Write metrics.csv, if that did not work the last time.

        Raises:
            WriteError: if it does not work now either.
        """
        if self.count < len(self.rows):
            self._write()

    def close(self) -> None:
        """Close the event file."""
        self.events.close()

    def _write(self) -> None:
        runs.write_table(self.path, self.columns, self.rows)
        self.count = len(self.rows)

    def _show_all(self, writers: Mapping[str, tf.summary.SummaryWriter]) -> None:
        for row in self.rows:
            self._show(writers[""], row)

    def _show(self, writer: tf.summary.SummaryWriter, row: Mapping[str, Any]) -> None:
        with writer.as_default(step=row[self.step]):
            for name in self.scalars:
                if row[name] is not None:
                    tf.summary.scalar(name, row[name])


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
