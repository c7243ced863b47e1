"""The state of a run: what a checkpoint holds, saved and restored as one."""

import dataclasses
import pathlib
import time
import zlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from ntk_tf.runs import RunDirectoryError
from ntk_tf.training import checkpoint


@dataclasses.dataclass
class History:
    """What a run has recorded so far.

    Attributes:
        tables: rows by the name of the table that they belong to.
        seconds: spent by earlier processes.
    """

    tables: dict[str, list[dict[str, Any]]] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    _started: float = dataclasses.field(default_factory=time.monotonic)

    def table(self, name: str) -> list[dict[str, Any]]:
        """The rows of a table, to read and to add to."""
        return self.tables.setdefault(name, [])

    def elapsed(self) -> float:
        """Seconds spent on the run by all its processes."""
        return self.seconds + time.monotonic() - self._started


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
        self._fingerprint = 0
        for variable in fixed:
            self._fingerprint = zlib.crc32(variable.numpy().tobytes(), self._fingerprint)

    def save(self, step: int) -> None:
        """Write a checkpoint of the state after so many updates, if it is finite.

        The last finite state so survives a divergence, which shows only in the outputs that the
        next update computes.

        Raises:
            WriteError: if it cannot be written.
        """
        arrays = checkpoint.values(self.variables)
        if not all(np.isfinite(a).all() for a in list(arrays.values())[: self._live]):
            return
        meta = {
            "tables": self.history.tables,
            "seconds": self.history.elapsed(),
            "fingerprint": self._fingerprint,
        }
        checkpoint.save(self.directory, checkpoint.Checkpoint(step, arrays, meta))

    def restore(self) -> int:
        """Go back to the newest checkpoint, if there is one.

        Returns:
            The number of updates done, 0 without a checkpoint.

        Raises:
            RunDirectoryError: if the checkpoint is of another model or initialization.
        """
        found = checkpoint.restore(self.directory)
        if found is None:
            return 0
        if not {"fingerprint", "tables", "seconds"} <= found.meta.keys():
            raise RunDirectoryError(
                f"{self.directory}: made by another version of ntk_tf; finish the run with that one"
                " or remove the folder to start anew"
            )
        if found.meta["fingerprint"] != self._fingerprint:
            raise RunDirectoryError(
                f"{self.directory}: made from another initialization, by another version of"
                " TensorFlow or Keras; finish the run with that one or remove the folder"
            )
        checkpoint.assign(self.variables, found.arrays, self.directory)
        self.history = History(found.meta["tables"], found.meta["seconds"])
        return found.step


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
