"""A sweep on the screen: a live table, or a line for every change where there is no terminal."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ntk_tf.process.terminal import Name, duration, say
from ntk_tf.sweeps.state import (
    DIVERGED,
    DONE,
    ELSEWHERE,
    ENDED,
    FAILED,
    INTERRUPTED,
    RUNNING,
    WAITING,
    Entry,
    last_row,
    seconds_left,
)

STYLES = {DONE: "green", DIVERGED: "yellow", FAILED: "red", RUNNING: "bold", ELSEWHERE: "cyan"}
STYLES |= {INTERRUPTED: "yellow"}
#: Ended runs that the live table keeps in sight, and as many failed ones.
LATEST = 6
#: Lines of the terminal besides the runs': the table's title, the counts, what is left out.
_BESIDE = 4
#: Seconds between renewals of the live table.
REFRESH = 1.0


class Display:
    """Shows the state of all runs; use as a context manager around the sweep.

    Args:
        entries: the runs.
        environments: of the processes at once; their GPUs are shown.
        console: where to write.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        environments: Sequence[Mapping[str, str]],
        console: Console,
    ):
        self.entries, self.console = entries, console
        self.jobs = len(environments)
        self.gpus = [env.get("CUDA_VISIBLE_DEVICES", "") for env in environments]
        self.ended: list[Entry] = []
        self.live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self.drawn = float("-inf")
        self.stopped = False
        self.said = ""

    def __enter__(self) -> "Display":
        if self.live:
            self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_) -> None:
        self.stopped = kind is not None
        if self.live:
            self.live.update(self._table(), refresh=True)
            self.live.stop()

    def tell(self, entry: Entry) -> None:
        """Show that an entry's status has changed."""
        if entry.status in ENDED:
            self.ended.append(entry)
        if self.live:
            self.drawn = float("-inf")
        elif not entry.skipped:
            name = "running" if entry.status == RUNNING else entry.status
            again = entry.status == WAITING and entry.attempts
            text = f"failed ({entry.problem}), once more" if again else name
            say(self.console, f"{text:8}  {entry.run.name}  {self._note(entry)}".rstrip())
            if entry.status in ENDED:
                self.say_counts()

    def say_counts(self) -> None:
        """Write the counts where there is no live table, unless they are the last ones written."""
        if not self.live and self.said != (counts := self.counts()):
            say(self.console, counts)
            self.said = counts

    def tick(self) -> None:
        """Renew the live table now and then."""
        if self.live and time.monotonic() - self.drawn > REFRESH:
            self.live.update(self._table(), refresh=True)
            self.drawn = time.monotonic()

    def counts(self) -> str:
        """How many runs are where, and how long the rest may take."""
        number = Counter(entry.status for entry in self.entries)
        order = (DONE, DIVERGED, FAILED, RUNNING, ELSEWHERE, INTERRUPTED, WAITING)
        parts = [f"{number[status]} {status}" for status in order if number[status]]
        skipped = sum(entry.skipped for entry in self.entries)
        if skipped:
            parts.append(f"{skipped} of them before")
        goes_on = not self.stopped and any(e.status not in ENDED for e in self.entries)
        left = seconds_left(self.entries, self.jobs) if goes_on else None
        text = f"{len(self.entries)} runs: {', '.join(parts)}"
        return text if left is None else f"{text}; about {duration(left)} left"

    def _table(self) -> Group:
        current = (RUNNING, ELSEWHERE, INTERRUPTED)
        running = [entry for entry in self.entries if entry.status in current]
        shown = [entry for entry in self.ended if not entry.skipped]
        failed = [entry for entry in shown if entry.status == FAILED][-LATEST:]
        latest = [entry for entry in shown if entry.status != FAILED][-LATEST:]
        wanted = failed + latest + running
        room = max(1, self.console.height - _BESIDE)
        fit = wanted[-room:]  # what runs before what has ended; names may take several lines
        while (lines := self._lines(table := self._rows(fit))) > room and len(fit) > 1:
            fit = fit[-(-(lines - room) * len(fit) // lines) :]
        hidden = len(shown) + len(running) - len(fit)
        left_out = [Text(f"and {hidden} more")] if hidden else []
        return Group(Text(self.counts()), table, *left_out)

    def _rows(self, entries: Sequence[Entry]) -> Table:
        table = Table("run", "state", "time", "", box=None, pad_edge=False)
        for column in table.columns[1:]:
            column.no_wrap = True
        for entry in entries:
            took = duration(entry.elapsed())
            state = Text(entry.status, STYLES.get(entry.status, ""))
            table.add_row(Name(entry.run.name), state, took, Text(self._note(entry)))
        return table

    def _lines(self, table: Table) -> int:
        """How many lines of the terminal a table takes, without its title."""
        return len(self.console.render_lines(table, pad=False)) - 1

    def _note(self, entry: Entry) -> str:
        """What there is to say about a run besides its state."""
        if entry.status == FAILED:
            return entry.problem
        if entry.status in ENDED:
            return f"{entry.outcome()} in {duration(entry.seconds)}".strip()
        if entry.status not in (RUNNING, INTERRUPTED):
            return ""
        row = last_row(entry.workdir / "metrics.csv")
        gpu = self.gpus[entry.slot] if entry.status == RUNNING else ""
        parts = [f"GPU {gpu}"] if gpu else []
        if row:
            epochs = getattr(entry.run.config, "epochs", None)
            parts.append(f"epoch {row['epoch']}" + (f"/{epochs}" if epochs else ""))
        if row and row["test_accuracy"] is not None:
            parts.append(f"test {row['test_accuracy']:.1%}")
        return "  ".join(parts)
