"""A trajectory in TensorBoard."""

import pathlib
from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from ntk_tf.experiments.trajectory.pair import Pair
from ntk_tf.runs import History
from ntk_tf.training.records import EventFiles

_TABLES = ("distance", "kernel")
#: Points of a curve: TensorBoard shows no more, and to write one takes as long as an update.
MOST = 1000


class Show(keras.callbacks.Callback):
    """Shows everything recorded and measured.

    Sibling runs `standard` and `linearized` hold the same tags, so that the curves of a picture
    overlay; `comparison` holds the distance between the two and the movement of the kernel.

    Args:
        folder: of the event files.
        pair: both models and the records of their outputs.
        chosen: positions of the recorded pictures, `[E]`.
        labels: of those.
        history: the tables `distance` and `kernel`.
        start_step: updates done before.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        pair: Pair,
        chosen: np.ndarray,
        labels: np.ndarray,
        history: History,
        start_step: int,
    ):
        super().__init__()
        self.folder, self.pair, self.history, self.step = folder, pair, history, start_step
        self.pictures = list(enumerate(zip(chosen, labels, strict=True)))

    def on_train_begin(self, logs=None):
        """Bring the event files to the state that training starts from."""
        names = ("standard", "linearized", "comparison")
        self.events = EventFiles(self.folder, names, self._show_all)

    def on_train_batch_end(self, batch, logs=None):
        """Write what is new; `batch` is the number of updates done."""
        self.step = batch
        self.events.write(self._show)

    def on_train_end(self, logs=None):
        """Close the event files."""
        self.events.close()

    def _show_all(self, writers: Mapping[str, tf.summary.SummaryWriter]) -> None:
        """Write everything, into new files."""
        self.shown = dict.fromkeys((*_TABLES, "outputs"), 0)
        self._show(writers)

    def _show(self, writers: Mapping[str, tf.summary.SummaryWriter]) -> None:
        """Write what has been measured and recorded since the last time."""
        with writers["comparison"].as_default():
            for table in _TABLES:
                rows = self.history.table(table)
                for row in rows[self.shown[table] :]:
                    for name in row.keys() - {"step"}:
                        tf.summary.scalar(f"{table}/{name}", row[name], step=row["step"])
                self.shown[table] = len(rows)
        self._show_outputs(writers)

    def _show_outputs(self, writers: Mapping[str, tf.summary.SummaryWriter]) -> None:
        """Write the outputs of the correct classes, some of the records where there are many."""
        count, shown = self.step // self.pair.every + 1, self.shown["outputs"]
        apart = -(-self.pair.records.shape[0] // MOST)
        records = self.pair.records.value[shown:count].numpy()
        for side, name in enumerate(("standard", "linearized")):
            with writers[name].as_default():
                for position in range(-(-shown // apart) * apart, count, apart):
                    for e, (index, label) in self.pictures:
                        tf.summary.scalar(
                            f"output of the correct class/picture {index} (class {label})",
                            records[position - shown, side, e, label],
                            step=position * self.pair.every,
                        )
        self.shown["outputs"] = count
