"""The files of a run directory: written so that a reader never sees half of one.

- `config.json`: every resolved setting, and the classes where the data decided on them
- `metrics.csv`: a row per epoch, `METRICS_COLUMNS`
- `result.json`: written last; its presence means that the run is finished
- `tensorboard/`: event files, the rows of metrics.csv as scalars
- `checkpoint/`: the newest complete states
- `.lock`: held by the process at work there
"""

import contextlib
import csv
import io
import json
import os
import pathlib
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any

import filelock

from ntk_tf.choices import ADDED

if TYPE_CHECKING:
    import numpy as np

METRICS_COLUMNS = (
    "epoch",
    "step",
    "learning_rate",
    "running_train_loss",
    "running_train_accuracy",
    "test_loss",
    "test_accuracy",
    "seconds",
)


#: The numbers in a result.json that other parts of the program read.
RESULT_NUMBERS = (
    "train_accuracy",
    "test_accuracy",
    "test_accuracy_among_snakes",
    "effective_rank",
    "rows",
    "relative_distance",
    "diverged_at_step",
    "diverged_at_learning_rate",
    "epochs",
    "steps",
    "seconds",
)
#: Seconds between tries to write what a run must not end without.
INSIST_SECONDS = 5.0
#: The file in a run directory that its owner holds locked.
LOCK = ".lock"
#: Locks of the run directories that this process owns; they end with it, however it ends.
_owned: dict[pathlib.Path, filelock.FileLock] = {}


class RunDirectoryError(Exception):
    """A run directory that cannot be used; the message is one line and names the file."""


class WriteError(RunDirectoryError):
    """A file cannot be written, such as on a full disk; what was there before is still there."""

    def __init__(self, path: pathlib.Path, reason: str):
        super().__init__(f"{path}: cannot be written ({reason})")


def own(workdir: pathlib.Path) -> None:
    """Make this process the owner of a run directory until it ends.

    Args:
        workdir: an existing folder.

    Raises:
        RunDirectoryError: if another process owns it.
    """
    path = workdir.resolve() / LOCK
    if path in _owned:
        return
    lock = filelock.FileLock(path, timeout=1)  # `is_owned` of another may hold it a moment
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise RunDirectoryError(
            f"--workdir={workdir}: another process is at work there; wait for it or end it"
        ) from error
    except NotImplementedError:  # a file system without locks: nothing can be known
        return
    _owned[path] = lock


def is_owned(workdir: pathlib.Path) -> bool:
    """Whether another process is at work in a run directory."""
    path = workdir.resolve() / LOCK
    if path in _owned or not path.exists():
        return False
    try:
        with filelock.FileLock(path, timeout=0):
            return False
    except filelock.Timeout:
        return True
    except (OSError, NotImplementedError):
        return False


@contextlib.contextmanager
def atomic_write(path: pathlib.Path, mode: str = "w") -> Iterator[IO]:
    """Open a temporary file that replaces `path` once it is complete and on disk.

    Args:
        path: the file to write; its folder must exist.
        mode: `w` or `wb`.

    Yields:
        The open temporary file.

    Raises:
        WriteError: if the disk is full, the folder read-only or the like; `path` is as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise WriteError(path, error.strerror or str(error)) from error
        raise


def attempt(write: Callable[[], None]) -> bool:
    """Write what can also be written later; a failure is a warning, and the run goes on.

    Args:
        write: may raise `WriteError`.

    Returns:
        Whether it was written.
    """
    try:
        write()
    except WriteError as error:
        warnings.warn(f"{error}; the run goes on and will try again", stacklevel=2)
        return False
    return True


def insist(write: Callable[[], Any], minutes: float) -> Any:
    """Write what a run must not end without, again and again until it works.

    Args:
        write: may raise `WriteError`.
        minutes: so long after the first failure, that error is final.

    Returns:
        What `write` returns.

    Raises:
        WriteError: if the time is up.
    """
    deadline = None
    while True:
        try:
            return write()
        except WriteError as error:
            deadline = deadline or time.monotonic() + 60 * minutes
            left = deadline - time.monotonic()
            if left <= 0:
                raise
            warnings.warn(f"{error}; trying again for {minutes:g} minutes", stacklevel=2)
        time.sleep(min(INSIST_SECONDS, left))


def write_json(path: pathlib.Path, content: dict[str, Any]) -> None:
    """Write a dictionary as JSON, atomically; non-finite numbers become null."""
    text = json.dumps(_finite(content), indent=2, allow_nan=False)
    with atomic_write(path) as file:
        file.write(text + "\n")


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        RunDirectoryError: if the file cannot be read or is no JSON object.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise RunDirectoryError(_unreadable(path, error)) from error
    if not isinstance(content, dict):
        raise RunDirectoryError(f"{path}: holds no JSON object")
    return content


def read_arrays(path: pathlib.Path) -> dict[str, "np.ndarray"]:
    """Read an `.npz` file, unpickling nothing and verifying the checksum of every array.

    Returns:
        The arrays by name.

    Raises:
        RunDirectoryError: if the file cannot be read, is damaged or no such file.
    """
    import numpy as np

    try:
        # Not np.load(path): that takes other formats too, and leaks the file if it is damaged.
        with open(path, "rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except Exception as error:  # NumPy, zipfile and zlib raise many things that none documents
        raise RunDirectoryError(_unreadable(path, error)) from error


def read_result(workdir: pathlib.Path) -> dict[str, Any]:
    """Read a finished run's result.json and see that it is one.

    Returns:
        Its content; those of `RESULT_NUMBERS` that it lacks are None.

    Raises:
        RunDirectoryError: if the file cannot be read or is no run's result.
    """
    path = workdir / "result.json"
    result = dict.fromkeys(RESULT_NUMBERS) | read_json(path)
    if result.get("status") not in ("completed", "diverged"):
        raise RunDirectoryError(f"{path}: its status must be completed or diverged")
    for name in RESULT_NUMBERS:
        value = result[name]
        if value is not None and not (isinstance(value, int | float) and abs(value) < 1e18):
            raise RunDirectoryError(f"{path}: its {name} must be a number")
    return result


def _unreadable(path: pathlib.Path, error: Exception) -> str:
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
    return f"{path}: cannot be read ({reason or type(error).__name__})"


def write_table(path: pathlib.Path, columns: Sequence[str], rows: list[dict[str, Any]]) -> None:
    """Write a CSV file anew, atomically; absent values stay empty."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with atomic_write(path) as file:
        file.write(text.getvalue())


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results may depend on."""
    import importlib.metadata
    import platform

    import ntk_tf

    packages = ("tensorflow", "keras", "numpy", "tensorflow-datasets")
    return {"python": platform.python_version(), "ntk_tf": ntk_tf.__version__} | {
        name: importlib.metadata.version(name) for name in packages
    }


def _finite(value: Any) -> Any:
    """The value with None in place of every infinity and NaN."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):
        return None
    return value


def check_workdir(workdir: pathlib.Path, settings: dict[str, Any]) -> None:
    """Refuse a folder that a run with these settings cannot use, writing nothing.

    Args:
        workdir: the run directory; need not exist.
        settings: of the run.

    Raises:
        RunDirectoryError: if the folder cannot be written, holds something else, or holds a run
            with other settings.
    """
    place = workdir
    try:
        while not place.exists():
            place = place.parent
        with tempfile.TemporaryFile(dir=place):
            pass
    except (OSError, ValueError) as error:  # ValueError: the path contains a null byte
        reason = getattr(error, "strerror", None) or error
        raise RunDirectoryError(
            f"--workdir={workdir}: cannot be written ({place}: {reason})"
        ) from error
    config_path = workdir / "config.json"
    if not config_path.exists():
        # Hidden files are the lock and what a process left that was killed while it wrote.
        if workdir.exists() and any(not p.name.startswith(".") for p in workdir.iterdir()):
            raise RunDirectoryError(
                f"--workdir={workdir}: is not empty and holds no run; choose a new or empty folder"
            )
        return
    earlier = {name: value for name, value in ADDED.items() if name in settings}
    found = earlier | read_json(config_path)
    found.pop("classes", None)  # known only when the data is read: see `open_workdir`
    other = [
        f"{name} is {found.get(name)} there and {settings.get(name)} here"
        for name in sorted(found.keys() | settings.keys())
        if found.get(name) != settings.get(name)
    ]
    if other:
        raise RunDirectoryError(
            f"--workdir={workdir}: holds a run with other settings ({'; '.join(other)});"
            " choose another folder"
        )


def open_workdir(
    workdir: pathlib.Path,
    settings: dict[str, Any],
    resume: bool,
    classes: tuple[str, ...] | None = None,
) -> None:
    """Take the folder and write config.json; without `resume`, remove an earlier run's files.

    Args:
        workdir: the run directory, which `check_workdir` has accepted.
        settings: of the run.
        resume: keep what an earlier process left.
        classes: what the labels stand for, where the data decided that; goes into config.json.

    Raises:
        RunDirectoryError: if the folder cannot be written, is another process's, or holds a run
            on other classes.
    """
    config_path = workdir / "config.json"
    complete = settings if classes is None else settings | {"classes": list(classes)}
    if resume and config_path.exists():
        found = read_json(config_path).get("classes")
        if found != complete.get("classes"):
            raise RunDirectoryError(
                f"--workdir={workdir}: holds a run on other classes ({found}, and the data has"
                f" {complete.get('classes')}); choose another folder"
            )
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        own(workdir)
        check_workdir(workdir, settings)  # again: its owner so far may have just written
        for left_over in workdir.rglob(".*.tmp"):  # of a process killed while it wrote
            left_over.unlink()
        if not resume:
            for name in ("result.json", "metrics.csv", "rank.json", "spectrum.npz"):
                (workdir / name).unlink(missing_ok=True)
            for name in ("checkpoint", "tensorboard"):
                shutil.rmtree(workdir / name, ignore_errors=True)
        write_json(config_path, complete)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RunDirectoryError(f"--workdir={workdir}: {reason}") from error


def is_finished(workdir: pathlib.Path) -> bool:
    """Whether the run directory holds a result."""
    return (workdir / "result.json").exists()


def describe(workdir: pathlib.Path, show: Callable[..., None]) -> None:
    """Show a finished run's result and where it is.

    Args:
        workdir: the run directory.
        show: prints a line, as `rich.console.Console.print`.
    """
    result = read_result(workdir)
    if result["status"] == "diverged":
        summary = (
            f"diverged at update {result['diverged_at_step']}"
            f" (learning rate {result['diverged_at_learning_rate']})"
        )
    else:
        summary = "  ".join(
            f"{name.replace('_', ' ')} {result[name]:.2%}"
            for name in RESULT_NUMBERS
            if "_accuracy" in name and result[name] is not None
        )
    if None not in (result["effective_rank"], result["rows"]):
        rank = f"effective rank {result['effective_rank']:.1f} of {result['rows']:,}"
        summary = f"{rank}  {summary}".rstrip()
    if result["relative_distance"] is not None:
        summary = f"relative distance {result['relative_distance']:.3f}"
    updates = "" if result["steps"] is None else f"{result['steps']:,} updates, "
    timing = f"{updates}{result['seconds'] or 0:.0f} s"
    show(f"{summary}  ({timing})", highlight=False)
    show(f"run directory {workdir}", highlight=False, soft_wrap=True)
