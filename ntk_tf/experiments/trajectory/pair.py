"""A network and its linearization trained on the same batches, and how far apart they are."""

import keras
import numpy as np
import tensorflow as tf


class Pair:
    """Two models that `training.loop.train` trains as one, recording their outputs in the graph.

    Args:
        standard: the network f, compiled and built.
        linearized: its linearization T_f at the same weights, a `LinearizedModel`, likewise.
        pictures: inputs `[E, h, w, c]` whose outputs are recorded.
        count: T, number of records to make room for, that before the first update included.
        every: updates between records.

    Attributes:
        records: float32 `[T, 2, E, L]`, outputs of the network and of the linearization.
    """

    def __init__(
        self,
        standard: keras.Model,
        linearized: keras.Model,
        pictures: tf.Tensor,
        count: int,
        every: int,
        outputs: int,
    ):
        self.standard, self.linearized = standard, linearized
        self.pictures, self.every = pictures, every
        shape = (count, 2, len(pictures), outputs)
        self.records = keras.Variable(
            np.full(shape, np.nan, "float32"), trainable=False, name="records"
        )
        self.jit_compile = standard.jit_compile
        self.distribute_strategy = standard.distribute_strategy
        self.stop_training = False

    def train_step(self, data) -> None:
        """An update of both on one batch, after a record of the state before it if it is time.

        Coming first, the record needs nothing of the update and runs beside it. That of the last
        state is left to `record`.
        """
        step = tf.cast(self.standard.optimizer.iterations.value, tf.int32)
        if self.every == 1:
            self._write(step)
        else:
            tf.cond(step % self.every == 0, lambda: self._write(step // self.every), tf.no_op)
        self.standard.train_step(data)
        self.linearized.train_step(data)

    def record(self) -> None:
        """Record the present state, if it is time."""
        step = int(self.standard.optimizer.iterations.value)
        if step % self.every == 0:
            self._record_at(tf.constant(step // self.every))

    @tf.function(autograph=False)
    def _record_at(self, position: tf.Tensor) -> None:
        self._write(position)

    @tf.function(autograph=False)
    def outputs(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """f(w_t, x), T_f(u_t, x) and f(w_0, x), each `[n, L]`."""
        models = (self.standard, self.linearized, self.linearized.base)
        return tuple(model(x, training=False) for model in models)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Of both models."""
        return [*self.standard.metrics, *self.linearized.metrics]

    def reset_metrics(self) -> None:
        """Start the running metrics of both models anew."""
        self.standard.reset_metrics()
        self.linearized.reset_metrics()

    def get_metrics_result(self) -> dict[str, tf.Tensor]:
        """The network's metrics; `first_non_finite` is of whichever diverged first."""
        result = self.standard.get_metrics_result()
        steps = [
            int(model.get_metrics_result()["first_non_finite"])
            for model in (self.standard, self.linearized)
        ]
        return result | {"first_non_finite": min((s for s in steps if s), default=0)}

    def _write(self, position: tf.Tensor) -> tf.Operation:
        outputs = tf.cast(tf.stack(self.outputs(self.pictures)[:2]), self.records.dtype)
        update = self.records.value.scatter_nd_update([[position]], outputs[None])
        return tf.group(update)


def relative_distance(pair: Pair, x: tf.Tensor) -> dict[str, float]:
    """How far the linearization is from the network, measured by how far the network has moved.

    Args:
        pair: both models, after the same updates.
        x: inputs `[n, h, w, c]`.

    Returns:
        `distance` = ||f(w_t) - T_f(u_t)||, `movement` = ||f(w_t) - f(w_0)||, Frobenius norms over
        the `[n, L]` outputs, and `relative_distance`, their quotient; NaN without movement.
    """
    now, linear, start = (np.float64(outputs) for outputs in pair.outputs(x))
    distance, movement = np.linalg.norm(now - linear), np.linalg.norm(now - start)
    relative = distance / movement if movement > 0 else np.nan
    return {
        "relative_distance": float(relative),
        "distance": float(distance),
        "movement": float(movement),
    }
