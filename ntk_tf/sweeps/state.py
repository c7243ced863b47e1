"""Where each run of a sweep is: waiting, running, done, ..., read from its run directory."""

import csv
import dataclasses
import os
import pathlib
import time
from collections.abc import Iterable

from ntk_tf import runs
from ntk_tf.experiments import EXPERIMENTS
from ntk_tf.sweeps.grid import Run
from ntk_tf.sweeps.process import REFUSED, Started

WAITING, RUNNING, ELSEWHERE = "waiting", "running", "elsewhere"
#: It was running when the sweep was stopped, and has saved what it can.
INTERRUPTED = "interrupted"
DONE, DIVERGED, FAILED = "done", "diverged", "failed"
ENDED = (DONE, DIVERGED, FAILED)
#: A run that fails is started once more: machines have hiccups. But not one that was refused.
ATTEMPTS = 2


@dataclasses.dataclass
class Entry:
    """A run and how far it is.

    Attributes:
        run: what is run.
        log: file of its output.
        status: one of this module's names; `elsewhere` is at work in another process.
        attempts: how often it was started and did not end by being stopped.
        process: while it runs.
        slot: which of the jobs at once it is, while it runs.
        started: when, by `time.monotonic`.
        seconds: how long it ran in this sweep.
        before: fraction that was done before this sweep.
        skipped: it was finished before this sweep.
        problem: why it failed, in words.
    """

    run: Run
    log: pathlib.Path
    status: str = WAITING
    attempts: int = 0
    process: Started | None = None
    slot: int = -1
    started: float = 0.0
    seconds: float = 0.0
    before: float = 0.0
    skipped: bool = False
    problem: str = ""

    @property
    def workdir(self) -> pathlib.Path:
        """The run directory."""
        return self.run.options.workdir

    def read_result(self) -> bool:
        """Take over the status of result.json, if the run is finished.

        Returns:
            Whether it is.
        """
        if not runs.is_finished(self.workdir):
            return False
        result = runs.read_result(self.workdir)
        self.leave(DIVERGED if result["status"] == "diverged" else DONE)
        return True

    def leave(self, status: str) -> None:
        """Give it another status, and count how long it ran, if it did."""
        self.seconds, self.slot, self.status = self.elapsed(), -1, status

    def fail(self, code: int | None, problem: str) -> None:
        """Let it be started once more, or give up.

        Args:
            code: with which it ended, if that is known.
            problem: why, in words.
        """
        self.problem = problem
        again = code != REFUSED and self.attempts < ATTEMPTS
        self.leave(WAITING if again else FAILED)

    def outcome(self) -> str:
        """The result in a few words."""
        result = runs.read_result(self.workdir)
        if self.status == DIVERGED:
            return f"at update {result['diverged_at_step']}"
        accuracy = result["test_accuracy"]
        if accuracy is not None:
            return f"test {accuracy:.1%}"
        experiment = EXPERIMENTS[self.run.config.experiment]
        return experiment.summary(result, self.workdir / "result.json").strip()

    def elapsed(self) -> float:
        """Seconds that it has run in this sweep."""
        now = time.monotonic() - self.started if self.status == RUNNING else 0.0
        return self.seconds + now

    def cost(self) -> float:
        """Roughly how long it takes, in a unit of its own; for comparing runs of one sweep.

        A step of the linearization costs 5/3 of the network's; work grows with the width squared
        in all layers but the first, which dominates narrow networks.
        """
        config = self.run.config
        linearized = getattr(config, "linearized", False)
        return (5 if linearized else 3) * getattr(config, "width", 1) ** 1.5

    def fraction(self) -> float:
        """How much of it is done, from 0 to 1, by the epochs in metrics.csv."""
        if self.status in ENDED:
            return 1.0
        config, row = self.run.config, last_row(self.workdir / "metrics.csv")
        epochs = getattr(config, "epochs", None)
        if not epochs or getattr(config, "max_steps", None) or not row:
            return 0.0
        return min(1.0, row["epoch"] / epochs)


#: Bytes at the end of a metrics.csv that hold its last row.
_TAIL = 4096


def last_row(path: pathlib.Path) -> dict[str, float | None] | None:
    """Epoch and test accuracy in the last row of a metrics.csv; None where there is none to read.

    It is only for show: a damaged file is the run's to write anew.
    """
    try:
        with open(path, "rb") as file:
            header = file.readline()
            file.seek(max(len(header), os.fstat(file.fileno()).st_size - _TAIL))
            lines = (header + file.read()).decode().splitlines()
        row = dict(zip(*csv.reader((lines[0], lines[-1])), strict=True))
        accuracy = row["test_accuracy"]
        return {
            "epoch": int(row["epoch"]),
            "test_accuracy": float(accuracy) if accuracy else None,
        }
    except (OSError, ValueError, LookupError, TypeError, csv.Error):
        return None


def seconds_left(entries: Iterable[Entry], jobs: int) -> float | None:
    """Estimate how long the rest of a sweep takes, from the speed so far.

    Args:
        entries: all runs.
        jobs: how many run at once.

    Returns:
        Seconds, or None as long as nothing is known.
    """
    done = left = busy = 0.0
    unfinished = 0
    for entry in entries:
        if entry.skipped or entry.status in (FAILED, DIVERGED):  # early, and tells nothing
            continue
        fraction = entry.fraction()
        busy += entry.elapsed()
        done += entry.cost() * max(0.0, fraction - entry.before)
        left += entry.cost() * (1 - fraction)
        unfinished += fraction < 1
    return left * busy / done / max(1, min(jobs, unfinished)) if done else None
