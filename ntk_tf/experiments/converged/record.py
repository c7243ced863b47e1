"""What a solution records after every pass: metrics.csv, TensorBoard, a line on the screen."""

import math
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from rich.console import Console

from ntk_tf import runs
from ntk_tf.process import terminal
from ntk_tf.training.records import EventFiles

COLUMNS = (
    "pass",
    "objective",
    "residual",
    "output_change",
    "train_accuracy",
    "test_accuracy",
    "seconds",
)
#: Least time between two lines where output is no terminal.
_LINE_SECONDS = 10.0


class Record:
    """Shows and writes a row a pass; use as a context manager around the passes.

    What cannot be written, as on a full disk, is written after the next pass.

    Args:
        workdir: the run directory.
        rows: what is recorded already; rows are added to it.
        title: names the run.
        tolerance: the residual at which the progress bar is full, on a log scale.
        console: where to write.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        rows: list[dict[str, Any]],
        title: str,
        tolerance: float,
        console: Console,
    ):
        self.path, self.folder = workdir / "metrics.csv", workdir / "tensorboard"
        self.rows, self.title, self.tolerance, self.console = rows, title, tolerance, console

    def __enter__(self) -> "Record":
        self.written = runs.attempt(self._write)
        self.events = EventFiles(self.folder, ("",), self._show_all)
        self.progress = terminal.progress(self.console)
        self.task = self.progress.add_task(self.title, total=math.log(1 / self.tolerance))
        self.printed = time.monotonic()
        self.progress.start()
        return self

    def __exit__(self, *_) -> None:
        self.progress.stop()
        self.events.close()

    def add(self, row: dict[str, Any]) -> None:
        """Add a pass's row."""
        self.rows.append(row)
        self.written = runs.attempt(self._write)
        self.events.write(lambda writers: self._show(writers[""], row))
        self._say(row)

    def complete(self) -> None:
        """Write metrics.csv, if that did not work the last time.

        Raises:
            WriteError: if it does not work now either.
        """
        if not self.written:
            self._write()

    def _write(self) -> None:
        runs.write_table(self.path, COLUMNS, self.rows)

    def _show_all(self, writers: Mapping[str, tf.summary.SummaryWriter]) -> None:
        for row in self.rows:
            self._show(writers[""], row)

    def _show(self, writer: tf.summary.SummaryWriter, row: dict[str, Any]) -> None:
        with writer.as_default(step=row["pass"]):
            for name, value in row.items():
                if name != "pass" and value is not None:
                    tf.summary.scalar(name, value)

    def _say(self, row: dict[str, Any]) -> None:
        parts = [
            (3, self.title),
            (5, f"pass {row['pass']}"),
            (4, f"residual {row['residual']:.1e}"),
            (1, f"train {row['train_accuracy']:.1%}"),
            (2, f"test {row['test_accuracy']:.1%}"),
        ]
        done = -math.log(min(1.0, max(row["residual"], self.tolerance)))
        text = terminal.fit(parts, self.console.width - terminal.BESIDE)
        self.progress.update(self.task, completed=done, description=text)
        now = time.monotonic()
        if not self.console.is_terminal and now - self.printed >= _LINE_SECONDS:
            terminal.say(self.console, "  ".join(text for _, text in parts))
            self.printed = now
