"""Checkpoints that are complete or absent, and verified when they are read.

A checkpoint is one `.npz` file: the arrays and a JSON text. It is written under a temporary name,
flushed to disk and renamed; zip's CRC-32 of every member is checked on reading. The one before the
newest is kept, in case the newest is damaged. Nothing is unpickled.
"""

import dataclasses
import json
import pathlib
import warnings
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from ntk_tf.runs.files import DamagedError, RunDirectoryError, WriteError, read_arrays, write_arrays

KEEP = 2
_META = "meta"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A state of a run.

    Attributes:
        step: updates done.
        arrays: values by name.
        meta: what else the run needs, as JSON.
    """

    step: int
    arrays: Mapping[str, np.ndarray]
    meta: dict[str, Any]


def save(directory: pathlib.Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint and remove all but it and the one before it.

    Args:
        directory: created where it does not exist.
        checkpoint: what to write.

    Raises:
        WriteError: if it cannot be written; those before are still there.
    """
    path = directory / f"step-{checkpoint.step:09d}.npz"
    meta = np.frombuffer(json.dumps(checkpoint.meta).encode(), np.uint8)
    content: dict[str, Any] = {_META: meta, **checkpoint.arrays}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_arrays(path, content)
        paths = sorted(directory.glob("step-*.npz"))
        kept = paths[: paths.index(path) + 1][-KEEP:]
        for other in set(paths) - set(kept):  # later ones are damaged: `restore` passed them over
            other.unlink(missing_ok=True)
    except OSError as error:
        raise WriteError(path, error.strerror or str(error)) from error


def restore(
    directory: pathlib.Path, needed: Collection[str] = (), fingerprint: int | None = None
) -> Checkpoint | None:
    """Read the newest checkpoint that is whole.

    A damaged one is passed over with a warning that names the file.

    Args:
        directory: of the checkpoints.
        needed: names that its `meta` must have.
        fingerprint: what its `meta` must have under that name; None for anything.

    Returns:
        The checkpoint, or None where there is none.

    Raises:
        RunDirectoryError: if it lacks one of those names or has another fingerprint, or if a file
            cannot be read though it may be whole: its disk does not answer.
    """
    found = _newest(directory)
    if found is not None and not set(needed) <= found.meta.keys():
        raise RunDirectoryError(
            f"{directory}: made by another version of ntk_tf; finish the run with that one or"
            " remove the folder to start anew"
        )
    if found is not None and fingerprint not in (None, found.meta.get("fingerprint")):
        raise RunDirectoryError(
            f"{directory}: made from other weights, or by another version of TensorFlow or Keras,"
            " or on another kind of device; finish the run with those or remove the folder to start"
            " anew"
        )
    return found


def remove(directory: pathlib.Path) -> None:
    """Remove all checkpoints of a folder."""
    for path in directory.glob("step-*.npz"):
        path.unlink(missing_ok=True)


def _newest(directory: pathlib.Path) -> Checkpoint | None:
    for path in sorted(directory.glob("step-*.npz"), reverse=True):
        try:
            arrays = read_arrays(path)
            text = arrays.pop(_META)  # a string before version 0.2
            meta = json.loads(text.tobytes() if text.dtype == np.uint8 else str(text))
            return Checkpoint(int(path.stem.split("-")[1]), arrays, dict(meta))
        except (DamagedError, LookupError, TypeError, ValueError, RecursionError) as error:
            reason = str(error).removeprefix(f"{path}: ")
            warnings.warn(f"{path} is damaged and is passed over ({reason})", stacklevel=2)
    return None
