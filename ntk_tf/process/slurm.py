"""What there is of SLURM: an executor of submitit's, the queue, how large an array may be."""

import contextlib
import io
import pathlib
import re
import shutil
import subprocess
import time
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

#: SLURM's own default; positions in an array are below it.
MAX_ARRAY_SIZE = 1001
#: Jobs at once, where nothing else is asked for.
AT_ONCE = 256
#: A job that is in no queue for so many looks has ended: squeue may lag behind a submission.
LOOKS = 3
#: Seconds that SLURM may not answer at a time, as while it starts anew, and for one answer.
PATIENCE, _ANSWER = 1800.0, 120.0
#: And between tries to submit what it did not take.
PAUSE = 60.0
#: States of jobs that do nothing any more.
_ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "DEADLINE", "REVOKED"}
_ENDED |= {"NODE_FAIL", "BOOT_FAIL", "OUT_OF_MEMORY"}


class SlurmError(Exception):
    """SLURM or submitit cannot be used; the message is one line."""


def executor(folder: pathlib.Path, jobs: int | None, asked: Mapping[str, Any]) -> Any:
    """A submitit executor.

    Args:
        folder: for its files; all nodes must see it.
        jobs: how many at once; None for `AT_ONCE`.
        asked: what a job asks for, by submitit's parameter names; None values are left out.

    Returns:
        A `submitit.SlurmExecutor`.

    Raises:
        SlurmError: if SLURM's commands or submitit are not installed.
    """
    try:
        import submitit
    except ImportError as error:
        raise SlurmError(
            "--executor=slurm: submitit is not installed; pip install 'ntk_tf[slurm]'"
        ) from error
    for name in ("sbatch", "squeue", "srun"):
        if shutil.which(name) is None:
            raise SlurmError(f"--executor=slurm: there is no {name} here; allowed where SLURM is")
    # What a job does goes on where it was, so its time limit may cut it short again and again.
    found = submitit.SlurmExecutor(folder=folder, max_num_timeout=1000)
    given = {name: value for name, value in asked.items() if value is not None}
    found.update_parameters(job_name="ntk_tf", array_parallelism=jobs or AT_ONCE, **given)
    return found


@contextlib.contextmanager
def batch(executor: Any) -> Iterator[None]:
    """Jobs submitted inside become one array at the end.

    Raises:
        SlurmError: if SLURM does not take it, such as for an unknown partition.
    """
    said = io.StringIO()  # submitit repeats it in its error
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), executor.batch():
            yield
    except RuntimeError as error:  # submitit's, with what sbatch wrote
        reason = " ".join(str(error).split())[-300:]
        raise SlurmError(f"--executor=slurm: sbatch failed: {reason}") from error


def largest_array() -> int:
    """How many jobs an array may have: MaxArraySize, SLURM's default where it does not tell."""
    try:
        shown = subprocess.run(
            ["scontrol", "show", "config"], capture_output=True, text=True, timeout=_ANSWER
        )
    except (OSError, subprocess.TimeoutExpired):
        return MAX_ARRAY_SIZE
    found = re.search(r"^MaxArraySize\s*= (\d+)", shown.stdout, re.MULTILINE)
    return max(1, int(found[1])) if found else MAX_ARRAY_SIZE


def queue() -> dict[str, str]:
    """The states of this user's jobs by id, such as `12_3`.

    Raises:
        SlurmError: if SLURM does not answer.
    """
    command = ["squeue", "--me", "--array", "--noheader", "--states=all", "--format=%i %T"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER)
    except subprocess.TimeoutExpired as error:
        raise SlurmError(f"squeue does not answer within {_ANSWER:.0f} seconds") from error
    except OSError as error:
        raise SlurmError(f"squeue cannot be started: {error.strerror}") from error
    if listed.returncode:
        raise SlurmError(f"squeue failed: {' '.join(listed.stderr.split())}")
    rows = (line.split(maxsplit=1) for line in listed.stdout.splitlines())
    states = dict(row for row in rows if len(row) == 2)
    return {job: state for job, state in states.items() if state not in _ENDED}


class Queue:
    """The queue as something looks at it again and again; SLURM may fail to answer for a while."""

    def __init__(self) -> None:
        self._silent: float | None = None  # since when

    def look(self) -> dict[str, str] | None:
        """What `queue` returns, or None as long as SLURM has not answered for less than `PATIENCE`.

        Raises:
            SlurmError: if it has not answered for longer.
        """
        try:
            states = queue()
        except SlurmError as error:
            self.bear(error)
            return None
        self._silent = None
        return states

    def bear(self, error: SlurmError) -> None:
        """Raise an error that has come for longer than `PATIENCE`; say it when it first comes."""
        if self._silent is None:
            self._silent = time.monotonic()
            warnings.warn(f"{error}; trying again for {PATIENCE / 60:.0f} minutes", stacklevel=2)
        if time.monotonic() - self._silent > PATIENCE:
            raise error
