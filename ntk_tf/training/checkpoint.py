"""Checkpoints that are complete or absent, and verified when they are read.

A checkpoint is one `.npz` file: the arrays and a JSON text. It is written under a temporary name,
flushed to disk and renamed; zip's CRC-32 of every member is checked on reading. The one before the
newest is kept, in case the newest is damaged. Nothing is unpickled.
"""

import dataclasses
import json
import pathlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ntk_tf.runs import RunDirectoryError, WriteError, atomic_write, read_arrays

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
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, "wb") as file:
            np.savez(file, **{_META: np.array(json.dumps(checkpoint.meta))}, **checkpoint.arrays)
        paths = sorted(directory.glob("step-*.npz"))
        kept = paths[: paths.index(path) + 1][-KEEP:]
        for other in set(paths) - set(kept):  # later ones are damaged: `restore` passed them over
            other.unlink(missing_ok=True)
    except OSError as error:
        raise WriteError(path, error.strerror or str(error)) from error


def restore(directory: pathlib.Path) -> Checkpoint | None:
    """Read the newest checkpoint that is whole.

    A damaged one is passed over with a warning that names the file.

    Returns:
        The checkpoint, or None where there is none.
    """
    for path in sorted(directory.glob("step-*.npz"), reverse=True):
        try:
            arrays = read_arrays(path)
            meta = json.loads(str(arrays.pop(_META)))
            return Checkpoint(int(path.stem.split("-")[1]), arrays, dict(meta))
        except (RunDirectoryError, LookupError, TypeError, ValueError, RecursionError) as error:
            reason = str(error).removeprefix(f"{path}: ")
            warnings.warn(f"{path} is damaged and is passed over ({reason})", stacklevel=2)
    return None


def values(variables: Sequence[keras.Variable]) -> dict[str, np.ndarray]:
    """The variables' values by position and path: views, to be read before the next update."""
    return {
        _key(i, variable): np.asarray(tf.convert_to_tensor(variable.value))
        for i, variable in enumerate(variables)
    }


def assign(
    variables: Sequence[keras.Variable], arrays: Mapping[str, np.ndarray], place: pathlib.Path
) -> None:
    """Set variables to values that `values` returned for variables like these.

    Args:
        variables: what to set.
        arrays: values by position and path.
        place: where they come from, for the error message.

    Raises:
        RunDirectoryError: if the values are of other variables.
    """
    expected = {_key(i, variable): variable for i, variable in enumerate(variables)}
    if expected.keys() != arrays.keys() or any(
        tuple(variable.shape) != arrays[key].shape for key, variable in expected.items()
    ):
        raise RunDirectoryError(
            f"{place}: the checkpoint is of another model; remove the folder to start anew"
        )
    for key, variable in expected.items():
        variable.assign(arrays[key])


def _key(position: int, variable: keras.Variable) -> str:
    return f"{position:04d}/{variable.path}"
