"""Files written so that a reader never sees half of one, and read without trusting them."""

import contextlib
import csv
import errno
import io
import json
import os
import pathlib
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


#: Seconds between tries to write what a run must not end without.
INSIST_SECONDS = 5.0


class RunDirectoryError(Exception):
    """A run directory that cannot be used; the message is one line and names the file."""


class DamagedError(RunDirectoryError):
    """A file that can be read and does not hold what it should."""


class WriteError(RunDirectoryError):
    """A file cannot be written, such as on a full disk; what was there before is still there."""

    def __init__(self, path: pathlib.Path, reason: str):
        super().__init__(f"{path}: cannot be written ({reason})")


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
        with open(temporary, mode, encoding=None if "b" in mode else "utf-8") as file:
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
        content = json.loads(path.read_text(encoding="utf-8"))
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
        DamagedError: if the file is damaged or of another kind.
        RunDirectoryError: if it cannot be read now: it is not there, its disk does not answer, or
            it does not fit into memory.
    """
    import numpy as np

    try:
        # Not np.load(path): that takes other formats too, and leaks the file if it is damaged.
        with open(path, "rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except Exception as error:  # NumPy, zipfile and zlib raise many things that none documents
        # zipfile goes to places in the file that it finds there, nonsense as they may be: EINVAL.
        now = (
            isinstance(error, OSError | MemoryError) and getattr(error, "errno", 0) != errno.EINVAL
        )
        kind = RunDirectoryError if now else DamagedError
        raise kind(_unreadable(path, error)) from error


def write_arrays(path: pathlib.Path, arrays: Mapping[str, Any]) -> None:
    """Write an `.npz` file, atomically.

    Raises:
        WriteError: see `atomic_write`.
    """
    import numpy as np

    with atomic_write(path, "wb") as file:
        np.savez(file, **arrays)


def write_table(path: pathlib.Path, columns: Sequence[str], rows: list[dict[str, Any]]) -> None:
    """Write a CSV file anew, atomically; absent values stay empty."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with atomic_write(path) as file:
        file.write(text.getvalue())


def read_table(
    path: pathlib.Path,
    columns: Mapping[str, Callable[[str], Any]],
    added: Collection[str] = (),
) -> list[dict[str, Any]]:
    """Read some columns of a CSV file; no rows where there is no file.

    Args:
        path: of the file.
        columns: by name what makes a value of a cell, or raises a ValueError.
        added: those that files of earlier versions lack; their cells are empty there.

    Raises:
        DamagedError: if a column is missing, or a cell is none of its column's.
        RunDirectoryError: if the file cannot be read.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = [dict.fromkeys(added, "") | row for row in csv.DictReader(file)]
        return [{name: read(row[name] or "") for name, read in columns.items()} for row in rows]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunDirectoryError(_unreadable(path, error)) from error
    except (LookupError, ValueError, csv.Error) as error:
        raise DamagedError(f"{path}: is damaged ({error})") from error


def _unreadable(path: pathlib.Path, error: Exception) -> str:
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
    return f"{path}: cannot be read ({reason or type(error).__name__})"


def _finite(value: Any) -> Any:
    """The value with None in place of every infinity and NaN."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):
        return None
    return value
