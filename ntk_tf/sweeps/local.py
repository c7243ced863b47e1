"""The runs of a sweep as processes on this machine, some at a time."""

import time
from collections.abc import Callable, Mapping, Sequence

from ntk_tf import runs
from ntk_tf.experiments import EXPERIMENTS
from ntk_tf.process import signals, warm
from ntk_tf.sweeps import process
from ntk_tf.sweeps.state import ELSEWHERE, ENDED, INTERRUPTED, RUNNING, WAITING, Entry

#: Seconds between looks at the processes, and at the runs that others are at work on.
TICK, TICK_ELSEWHERE = 0.2, 2.0


class Runner:
    """Starts runs as places get free and looks after them.

    Args:
        entries: the runs.
        environments: one for each of the processes at once.
        tell: called with an entry whose status has changed.
        tick: called between looks at the processes.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        environments: Sequence[Mapping[str, str]],
        tell: Callable[[Entry], None],
        tick: Callable[[], None],
    ):
        self.entries, self.environments = entries, environments
        self.tell, self.tick = tell, tick
        self.server: warm.Server | None = None
        self.looked = float("-inf")  # at the runs of other processes

    def run(self) -> None:
        """Carry out all runs; whatever ends this early ends the processes too."""
        try:
            while any(entry.status not in ENDED for entry in self.entries):
                self._collect()
                self._start()
                self.tick()
                time.sleep(TICK)
        finally:
            self._end()

    def _end(self) -> None:
        """End what still runs, which gets its time to save, and the server."""
        try:
            running = [entry for entry in self.entries if entry.status == RUNNING]
            process.end([entry.process for entry in running if entry.process])
            for entry in running:
                if not entry.read_result():
                    entry.leave(INTERRUPTED)
                self.tell(entry)
        finally:
            if self.server:
                self.server.close()

    def _collect(self) -> None:
        """See which processes have ended."""
        for entry in self.entries:
            if entry.status != RUNNING or not entry.process or entry.process.poll() is None:
                continue
            code = entry.process.returncode
            if entry.read_result():
                pass
            elif runs.is_owned(entry.workdir):  # another process was faster
                entry.leave(ELSEWHERE)
                entry.attempts -= 1
            elif code == signals.REQUEUE:  # it was asked to end, and has saved
                entry.leave(WAITING)
                entry.attempts -= 1
            else:
                entry.fail(code, process.explain(code) if code else "it left no result")
            self.tell(entry)

    def _start(self) -> None:
        """Start waiting runs in free places; to look at a run takes time on a network's disk."""
        busy = {entry.slot for entry in self.entries if entry.status == RUNNING}
        free = [slot for slot in range(len(self.environments)) if slot not in busy]
        if due := time.monotonic() - self.looked > TICK_ELSEWHERE:
            self.looked = time.monotonic()
        for entry in self.entries:
            looked_at = {WAITING: bool(free), ELSEWHERE: due}
            if not looked_at.get(entry.status):
                continue
            if entry.read_result():
                entry.skipped = not entry.attempts
                self.tell(entry)
            elif runs.is_owned(entry.workdir):
                if entry.status != ELSEWHERE:
                    entry.status = ELSEWHERE
                    self.tell(entry)
            elif free:
                self._launch(entry, free.pop(0))

    def _warm(self, environment: Mapping[str, str]) -> warm.Server | None:
        """A server, if there are more runs than places: then it saves time."""
        left = [entry for entry in self.entries if entry.status not in ENDED]
        if not warm.is_possible() or len(left) <= len(self.environments):
            return None
        experiment = EXPERIMENTS[left[0].run.config.experiment]
        return warm.Server(environment, ["ntk_tf.cli", *experiment.modules])

    def _launch(self, entry: Entry, slot: int) -> None:
        entry.before = entry.fraction()
        environment = self.environments[slot]
        self.server = self.server or self._warm(environment)
        entry.process = process.start(entry.run.command, entry.log, environment, self.server)
        entry.slot, entry.started, entry.status = slot, time.monotonic(), RUNNING
        entry.attempts += 1
        self.tell(entry)
