"""Independent ways to compute what the package computes."""

import numpy as np
import tensorflow as tf


def dense_jacobian(model, x) -> np.ndarray:
    """[n * L, p]: gradients of all outputs in all trainable weights, by one backward pass each.

    Several outputs come one after the other.
    """
    weights = [w.value for w in model.trainable_weights]
    with tf.GradientTape(persistent=True) as tape:
        leaves = tf.nest.flatten(model(x, training=False))
        outputs = tf.concat([tf.reshape(leaf, [-1]) for leaf in leaves], axis=0)
    rows = []
    for one in np.eye(len(outputs), dtype=outputs.dtype.name):
        parts = tape.gradient(outputs, weights, one, unconnected_gradients="zero")
        rows.append(np.concatenate([np.ravel(tf.convert_to_tensor(part)) for part in parts]))
    return np.stack(rows)


def flat(tensors) -> np.ndarray:
    """One vector of all the tensors' elements."""
    return np.concatenate([np.ravel(np.asarray(t)) for t in tensors])


def assign_flat(variables, vector) -> None:
    """Set variables to consecutive pieces of a vector."""
    position = 0
    for variable in variables:
        size = int(np.prod(variable.shape))
        variable.assign(np.reshape(vector[position : position + size], variable.shape))
        position += size


def dense_gram(model, x, x2=None) -> np.ndarray:
    """[n, L, m, L]: the kernel of one set or of two, by dense Jacobians summed in float64."""
    rows = dense_jacobian(model, x).astype("float64")
    cols = rows if x2 is None else dense_jacobian(model, x2).astype("float64")
    return (rows @ cols.T).reshape(len(x), len(rows) // len(x), -1, len(rows) // len(x))


def surveyed(kernel):
    """What a `GramFunction` that was called once has found out of its model."""
    (traced,) = kernel._surveys.values()
    return traced.known
