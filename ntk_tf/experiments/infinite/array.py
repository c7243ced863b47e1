"""All missing tiles computed by an array of SLURM jobs, which do not end with this process."""

import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console

from ntk_tf.experiments.infinite import Infinite, tiles, worker
from ntk_tf.process import slurm, terminal
from ntk_tf.settings import Options

#: Arrays in a row that leave no tile before that is an error.
ATTEMPTS = 2
#: Seconds between looks at the tiles, and at the queue.
TICK = 3.0
#: The folder of submitit's files in a run directory.
FOLDER = "slurm"
#: How the name of its file of a job ends, behind the job's id.
_SUBMITTED = "_submitted.pkl"


def spread(
    work: tiles.Work,
    config: Infinite,
    options: Options,
    console: Console,
    after: Callable[[], None],
) -> None:
    """Wait for the jobs of an earlier process, and submit what they leave.

    Args:
        work: the tiles.
        config: the run's settings.
        options: the run directory, and what jobs ask for.
        console: where to write.
        after: called every now and then; may raise `Interrupted`, and the jobs go on.

    Raises:
        SlurmError: if SLURM cannot be used, or its jobs leave no tiles.
    """
    folder = (options.workdir / FOLDER).resolve()
    submit = slurm.executor(folder, options.jobs, options.asked(cpus=1))
    before: list[int] = []
    fruitless = 0
    _wait(work, folder, after)
    while missing := work.missing():
        fruitless = fruitless + 1 if missing == before else 0
        if fruitless == ATTEMPTS:
            raise slurm.SlurmError(
                f"--executor=slurm: the jobs left {len(missing)} of {len(work.tiles)} tiles; their"
                f" logs are in {folder}"
            )
        work_of = [worker.Job(config, options, own) for own in _shares(missing)]
        # Once SLURM took jobs, it will again.
        jobs = _submit(submit, work_of, after if before else None)
        before = missing
        array = jobs[0].job_id.split("_")[0]
        terminal.say(console, f"{len(jobs)} SLURM jobs; to end them: scancel {array}")
        _wait(work, folder, after)


def _shares(numbers: Sequence[int]) -> list[tuple[int, ...]]:
    """A tile each job, or several if an array may not have so many jobs."""
    jobs = min(len(numbers), slurm.largest_array())
    return [tuple(numbers[i::jobs]) for i in range(jobs)]


def _submit(submit: Any, jobs: Sequence[worker.Job], after: Callable[[], None] | None) -> list[Any]:
    """Submit an array; where SLURM does not take it, again and again with `after` in between.

    Raises:
        SlurmError: if SLURM does not take it and there is no `after`, or for long.
    """
    refusals = slurm.Queue()
    while True:
        try:
            with slurm.batch(submit):
                return [submit.submit(job) for job in jobs]
        except slurm.SlurmError as error:
            if after is None:
                raise
            refusals.bear(error)
        end = time.monotonic() + slurm.PAUSE
        while time.monotonic() < end:
            after()
            time.sleep(TICK)


def _wait(work: tiles.Work, folder: pathlib.Path, after: Callable[[], None]) -> None:
    """Wait until all tiles are there, or no job is in the queue any more."""
    looks, queue = 0, slurm.Queue()
    while work.missing() and looks < slurm.LOOKS:
        submitted = {path.name.removesuffix(_SUBMITTED) for path in folder.glob(f"*{_SUBMITTED}")}
        if not submitted:
            return
        states = queue.look()
        if states is not None:
            looks = 0 if submitted & states.keys() else looks + 1
        after()
        time.sleep(TICK)
