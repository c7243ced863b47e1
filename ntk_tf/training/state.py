"""The state of a run: what a checkpoint holds, saved and restored as one."""

import pathlib
import zlib
from collections.abc import Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from ntk_tf.runs import History, RunDirectoryError, checkpoint


class State:
    """Everything that changes during a run, and the checkpoints of it.

    Args:
        directory: of the checkpoints.
        variables: what changes.
        records: also changes, but what the run does next does not depend on it.
        fixed: what does not, but gives the variables their meaning, such as w0 to u; a checkpoint
            holds its checksum.

    Attributes:
        history: what has been recorded.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        variables: Sequence[keras.Variable],
        fixed: Sequence[keras.Variable] = (),
        records: Sequence[keras.Variable] = (),
    ):
        self.directory = directory
        self.variables = [*variables, *records]
        self._live = len(variables)
        self.history = History()
        self._fingerprint = fingerprint(fixed)

    def save(self, step: int) -> None:
        """Write a checkpoint of the state after so many updates, if it is finite.

        The last finite state so survives a divergence, which shows only in the outputs that the
        next update computes.

        Raises:
            WriteError: if it cannot be written.
        """
        if not self.is_finite():
            return
        arrays = values(self.variables)
        meta = self.history.saved() | {"fingerprint": self._fingerprint}
        checkpoint.save(self.directory, checkpoint.Checkpoint(step, arrays, meta))

    def is_finite(self) -> bool:
        """Whether all numbers are, those that are only recorded left out."""
        return all(np.isfinite(a).all() for a in values(self.variables[: self._live]).values())

    def restore(self) -> int:
        """Go back to the newest checkpoint, if there is one.

        Returns:
            The number of updates done, 0 without a checkpoint.

        Raises:
            RunDirectoryError: if the checkpoint is of another model or initialization.
        """
        needed = ("fingerprint", "tables", "seconds")
        found = checkpoint.restore(self.directory, needed, self._fingerprint)
        if found is None:
            return 0
        # An earlier version may have had fewer records; the last ones then stay as they are.
        count = max(len(found.arrays), self._live)
        assign(self.variables[:count], found.arrays, self.directory)
        self.history = History.restored(found.meta)
        return found.step


def fingerprint(variables: Sequence[keras.Variable]) -> int:
    """A checksum of the variables' values."""
    found = 0
    for variable in variables:
        found = zlib.crc32(variable.numpy().tobytes(), found)
    return found


def changing_variables(model: keras.Model, fixed: Sequence[keras.Variable]) -> list[keras.Variable]:
    """All that training a compiled model changes: weights, optimizer, running metrics.

    Args:
        model: with built optimizer and metrics.
        fixed: variables of the model that training does not change.

    Returns:
        Each variable once, the trainable weights first.
    """
    candidates = [*model.trainable_variables, *model.variables, *model.optimizer.variables]
    for metric in model.metrics:
        candidates.extend(metric.variables)
    left_out = {id(variable) for variable in fixed}
    unique = {id(variable): variable for variable in candidates}
    return [variable for key, variable in unique.items() if key not in left_out]


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
