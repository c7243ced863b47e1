"""What a solution records after every pass: metrics.csv, TensorBoard, a line on the screen."""

import math
import pathlib
import time
from typing import Any

from rich.console import Console

from ntk_tf.process import terminal
from ntk_tf.training.records import Rows

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
        self.workdir = workdir
        self.rows, self.title, self.tolerance, self.console = rows, title, tolerance, console

    def __enter__(self) -> "Record":
        self.record = Rows(self.workdir, COLUMNS, "pass", self.rows)
        self.progress = terminal.progress(self.console, seconds=math.inf)  # it prints its own
        self.task = self.progress.add_task(self.title, total=math.log(1 / self.tolerance))
        self.printed = time.monotonic()
        self.progress.start()
        return self

    def __exit__(self, *_) -> None:
        self.progress.stop()
        self.record.close()

    def add(self, row: dict[str, Any]) -> None:
        """Add a pass's row."""
        self.record.add(row)
        self._say(row)

    def complete(self) -> None:
        """Write metrics.csv, if that did not work the last time.

        Raises:
            WriteError: if it does not work now either.
        """
        self.record.complete()

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
