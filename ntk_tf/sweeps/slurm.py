"""The runs of a sweep as an array of SLURM jobs, submitted through submitit."""

import contextlib
import math
import os
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

from ntk_tf import runs
from ntk_tf.process import devices, slurm
from ntk_tf.sweeps import environments, process
from ntk_tf.sweeps.state import ELSEWHERE, ENDED, RUNNING, WAITING, Entry

#: Seconds between looks at the queue.
TICK = 3.0


class Job:
    """What a SLURM job does: one run. Pickled by submitit.

    Args:
        command: of the run.
        log: file for its output.
    """

    def __init__(self, command: Sequence[str], log: pathlib.Path):
        self.command, self.log = list(command), log
        self.child: int | None = None

    def __call__(self) -> int:
        """Carry the run out; its exit code.

        Without a GPU it takes as many threads as the job has CPUs, in place of the whole node's.
        """
        self.exit_code.unlink(missing_ok=True)
        environment = dict(os.environ)
        if not devices.gpus(environment):
            threads = environment.get("SLURM_CPUS_PER_TASK", "1")
            environment = dict.fromkeys(environments.THREADS, threads) | environment
        child = process.start(self.command, self.log, environment)
        self.child = child.pid
        # Not wait(), which `checkpoint` would interrupt and lock out.
        while (code := child.poll()) is None:
            time.sleep(0.1)
        self.child = None
        with contextlib.suppress(OSError):
            self.exit_code.write_text(str(code))
        return code

    @property
    def exit_code(self) -> pathlib.Path:
        """Where the sweep finds how the run ended."""
        return self.log.with_suffix(".exit")

    def checkpoint(self) -> Any:
        """Called by submitit when the job is pre-empted or out of time: once more, it resumes.

        The run is asked to save first, and gets some time for that.
        """
        import submitit

        if self.child is not None:
            process.ask_to_end(self.child)
            self.child = None
        return submitit.helpers.DelayedSubmission(self)


class SlurmRunner:
    """Submits runs and watches them; ending this process leaves the jobs alone.

    Args:
        entries: the runs.
        submit: an executor's; see `process.slurm.executor`.
        tell: called with an entry whose status has changed.
        tick: called between looks at the queue.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        submit: Any,
        tell: Callable[[Entry], None],
        tick: Callable[[], None],
    ):
        self.entries, self.submit, self.tell, self.tick = entries, submit, tell, tick
        self.jobs: dict[str, str] = {}  # ids by the names of runs
        self.absent: dict[str, int] = {}
        self.queue, self.refusals = slurm.Queue(), slurm.Queue()
        self.noted: dict[str, str] = {}  # ids of an earlier sweep's jobs until SLURM knows them
        self.refused = -math.inf  # when SLURM last took no jobs

    def run(self) -> None:
        """Carry out all runs."""
        self._adopt()
        while True:
            for entry in self.entries:
                if entry.status not in ENDED and entry.read_result():
                    self._end(entry)
            self._submit(self._unsubmitted())
            if all(entry.status in ENDED for entry in self.entries):
                return
            self._look()
            self.tick()
            time.sleep(TICK)

    def _adopt(self) -> None:
        """Watch the jobs of an earlier sweep that are still in the queue as one's own."""
        known = {e.run.name: _note(e).read_text() for e in self.entries if _note(e).is_file()}
        self.noted = known
        waiting: dict[str, str] | None = None if known else {}
        while waiting is None:
            waiting = self.queue.look()
            if waiting is None:
                self.tick()
                time.sleep(TICK)
        for entry in self.entries:
            if known.get(entry.run.name) in waiting:
                self._watch(entry, known[entry.run.name])
        self.noted = {}

    def _watch(self, entry: Entry, job: str) -> None:
        self.jobs[entry.run.name] = job
        self.absent[entry.run.name] = 0
        entry.attempts += 1

    def _unsubmitted(self) -> list[Entry]:
        """Runs without a job that no job of an earlier sweep is at work on."""
        for entry in self.entries:
            if entry.status in (WAITING, ELSEWHERE) and not self._job(entry):
                before = entry.status
                entry.status = ELSEWHERE if runs.is_owned(entry.workdir) else WAITING
                if entry.status != before:
                    self.tell(entry)
        return [e for e in self.entries if e.status == WAITING and not self._job(e)]

    def job_ids(self) -> list[str]:
        """The arrays that have jobs waiting or running."""
        going = [self._job(entry) for entry in self.entries if entry.status not in ENDED]
        return sorted({job.split("_")[0] for job in going if job})

    def _job(self, entry: Entry) -> str | None:
        return self.jobs.get(entry.run.name) or self.noted.get(entry.run.name)

    def _submit(self, entries: Sequence[Entry]) -> None:
        """Submit runs as one array, or as some of equal size that share the jobs at once.

        There are no more arrays than jobs at once: the other runs wait until one has ended.

        Raises:
            SlurmError: if SLURM does not take the first ones, or no more for long.
        """
        if not entries or time.monotonic() < self.refused + slurm.PAUSE:
            return
        largest, at_once = slurm.largest_array(), self.submit.parameters["array_parallelism"]
        arrays = min(-(-len(entries) // largest), at_once - len(self.job_ids()))
        if arrays < 1:
            return
        entries = entries[: arrays * largest]
        self.submit.update_parameters(array_parallelism=at_once // arrays)
        try:
            for i in range(arrays):
                self._submit_array(entries[i::arrays])
            self.refusals = slurm.Queue()
        except slurm.SlurmError as error:  # once it took jobs, it will again
            if not self.jobs:
                raise
            self.refusals.bear(error)
            self.refused = time.monotonic()
        self.submit.update_parameters(array_parallelism=at_once)

    def _submit_array(self, entries: Sequence[Entry]) -> None:
        work = [Job(entry.run.command, entry.log.resolve()) for entry in entries]
        for job in work:  # of an earlier one
            job.exit_code.unlink(missing_ok=True)
        with slurm.batch(self.submit):
            jobs = [self.submit.submit(job) for job in work]
        for entry, job in zip(entries, jobs, strict=True):  # which have their ids now
            self._watch(entry, job.job_id)
            _note(entry).parent.mkdir(parents=True, exist_ok=True)
            _note(entry).write_text(job.job_id)

    def _look(self) -> None:
        """Compare the jobs with the queue."""
        states = self.queue.look()
        if states is None:
            return
        for entry in self.entries:
            if entry.status in ENDED or not self._job(entry):
                continue
            name = entry.run.name
            state = states.get(self.jobs[name])
            if state is None:
                self.absent[name] += 1
                if self.absent[name] >= slurm.LOOKS and not _has_result(entry):
                    self._fail(entry)
                continue
            self.absent[name] = 0
            running = state in ("RUNNING", "COMPLETING") or runs.is_owned(entry.workdir)
            if running and entry.status == WAITING:
                entry.status, entry.started = RUNNING, time.monotonic()
                entry.before, entry.slot = entry.fraction(), 0
                self.tell(entry)
            elif not running and entry.status == RUNNING:  # pre-empted or requeued
                entry.leave(WAITING)
                self.tell(entry)

    def _end(self, entry: Entry) -> None:
        entry.skipped = not entry.attempts
        self.tell(entry)

    def _fail(self, entry: Entry) -> None:
        """Its job is in the queue no more and left no result: once more, or give up."""
        job = self.jobs.pop(entry.run.name)
        if runs.is_owned(entry.workdir):  # a job of an earlier sweep was faster
            entry.leave(WAITING)
            entry.attempts -= 1
            return
        code = _exit_code(entry)
        reason = f": {process.explain(code)}" if code else " left no result"
        entry.fail(code, f"SLURM job {job}{reason}")
        self.tell(entry)


def _has_result(entry: Entry) -> bool:
    """Whether a run is finished, on a disk of the network too.

    NFS remembers for up to a minute that a file was not there, unless its folder is listed.
    """
    with contextlib.suppress(OSError):
        os.listdir(entry.workdir)
    return entry.read_result()


def _exit_code(entry: Entry) -> int | None:
    """How a run's job ended, where the job could still tell."""
    try:
        return int(Job(entry.run.command, entry.log).exit_code.read_text())
    except (OSError, ValueError):
        return None


def _note(entry: Entry) -> pathlib.Path:
    """Where the id of a run's job is kept for the next sweep."""
    return entry.log.with_suffix(".job")
