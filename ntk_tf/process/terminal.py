"""What a process writes to the terminal: lines as they are, names that break where they may."""

import re
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

#: Columns of a terminal that `progress` needs besides its text: a short bar, percent, time left.
BESIDE = 31


def say(console: Console, line: str) -> None:
    """Print a line as it is: no markup, no colours of its own, and no breaks put into it."""
    console.print(line, highlight=False, soft_wrap=True, markup=False)


def duration(seconds: float) -> str:
    """Seconds as `42 s`, `12 min`, `3.4 h` or `12 days`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 100 * 3600 else f"{seconds / 86400:,.0f} days"


class _Lines(Progress):
    """A bar, or where the console is no terminal a line now and then; for one task."""

    def __init__(self, *columns: ProgressColumn, seconds: float, **more: Any):
        super().__init__(*columns, **more)
        self._seconds, self._said = seconds, time.monotonic()
        self._first: tuple[float, float] | None = None  # time and what was done at it
        self._done = -1.0  # by the last line

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """Renew the bar, or print a line if there is news and the last one was long ago."""
        super().update(task_id, **changes)
        if not self.disable:
            return
        now, (task,) = time.monotonic(), self.tasks
        began, before = self._first = self._first or (now, task.completed)
        if now - self._said >= self._seconds and task.completed > self._done:
            parts = [task.description, f"{task.percentage:.0f}%"]
            if task.completed > before:
                left = (now - began) * (task.remaining or 0) / (task.completed - before)
                parts.append(f"{duration(left)} left")
            say(self.console, "  ".join(parts))
            self._said, self._done = now, task.completed


def progress(console: Console, *more: ProgressColumn, seconds: float = 60.0) -> Progress:
    """A bar across the terminal with a text before it and the time left behind it.

    Args:
        console: where to draw; where it is no terminal, a line is printed now and then.
        *more: columns at the end.
        seconds: between such lines.
    """
    return _Lines(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        TextColumn("{task.percentage:3.0f}%"),
        TimeRemainingColumn(),
        TextColumn("left"),
        *more,
        seconds=seconds,
        console=console,
        disable=not console.is_terminal,
        transient=True,
        expand=True,
    )


def fit(parts: Sequence[tuple[int, str]], width: int) -> str:
    """What there is room for, in its order.

    Args:
        parts: importance and text of each; an empty one is left out.
        width: columns that there are.

    Returns:
        The parts, two spaces between them, without the least important ones where all do not fit;
        the most important one is always there.
    """
    kept = [part for part in parts if part[1]]
    while len(kept) > 1 and len("  ".join(text for _, text in kept)) > width:
        kept.remove(min(kept))
    return "  ".join(text for _, text in kept)


class Name:
    """A name for a table's cell, broken only after `_` and `/`, and elsewhere if it must be.

    Args:
        name: such as a run's, which may be longer than the terminal is wide.
    """

    def __init__(self, name: str):
        self.name = name

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """The longest piece and the whole."""
        return Measurement(max(map(len, _pieces(self.name)), default=0), len(self.name))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The name in lines."""
        lines = break_name(self.name, options.max_width)
        yield Text("\n".join(lines), overflow="fold")


def break_name(name: str, width: int) -> list[str]:
    """A name in lines of at most so many characters, broken after `_` and `/` where that works."""
    lines = [""]
    for piece in _pieces(name):
        if len(lines[-1] + piece) > width and lines[-1]:
            lines.append("")
        lines[-1] += piece
    return lines


def _pieces(name: str) -> list[str]:
    return re.findall(r"[^_/]*[_/]+|[^_/]+", name)
