"""Losses and metrics of a classifier whose targets are one-hot."""

import keras
import numpy as np
import tensorflow as tf


def loss_function(name: str, dtype: str = "float32") -> keras.losses.Loss:
    """The loss by its name in the settings.

    `l2` is the squared distance to the one-hot target, averaged over batch and outputs (PyTorch's
    `MSELoss`); `cross_entropy` is that of the softmax of the outputs, averaged over the batch.

    Args:
        name: `l2` or `cross_entropy`.
        dtype: that it is computed in.

    Returns:
        A Keras loss for outputs and targets `[B, L]`.
    """
    if name == "l2":
        return keras.losses.MeanSquaredError(dtype=dtype)
    return keras.losses.CategoricalCrossentropy(from_logits=True, dtype=dtype)


def has_finite_outputs(model: keras.Model, x: tf.Tensor) -> bool:
    """Whether a model's outputs of `x [B, ...]` are finite, by operations that are not fused.

    oneDNN's ReLU, fused with a convolution or a product in a graph, makes 0 of NaN.
    """
    return bool(np.isfinite(model(x, training=False)).all())


class FirstNonFinite(keras.metrics.Metric):
    """Number of the first batch since the last reset whose outputs are not all finite.

    Counted from 1; 0 as long as all are finite. It finds the step at which a run diverged although
    many steps run inside one graph. Its numbers are int64: XLA wants all variables on one device,
    and TensorFlow keeps those of int32 on the CPU.
    """

    def __init__(self, name="first_non_finite", **kwargs):
        super().__init__(name=name, dtype="int64", **kwargs)
        self.batches = self.add_weight(shape=(), initializer="zeros", dtype="int64", name="batches")
        self.first = self.add_weight(shape=(), initializer="zeros", dtype="int64", name="first")
        self.replicas = tf.distribute.get_strategy().num_replicas_in_sync

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Look at the outputs `y_pred [B, L]` of one more batch."""
        finite = tf.reduce_all(tf.math.is_finite(y_pred))
        if self.replicas > 1:  # all of them see the same, whichever sees it first
            here = tf.cast(finite, tf.int32)
            everywhere = tf.distribute.get_replica_context().all_reduce("sum", here)
            finite = everywhere == self.replicas
        self.batches.assign_add(1)
        seen = tf.where(self.first > 0, self.first, self.batches)
        self.first.assign(tf.where(finite, self.first, seen))

    def result(self):
        """The number of the first such batch, or 0."""
        return tf.convert_to_tensor(self.first) // self.replicas
