"""How pictures are paired: each of one set with each of another, or each with itself."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf


class Maxima(NamedTuple):
    """Random channels behind a max pooling.

    Attributes:
        values: `[positions, n, channels]`.
        chosen: place of each in its window, int8 or int16; -1 where it has no derivative.
    """

    values: tf.Tensor
    chosen: tf.Tensor


class Side(NamedTuple):
    """What is known of one set of pictures.

    Attributes:
        inputs: `[positions, n, channels]`.
        variances: `[positions, n]` before each activation, by its name.
        maxima: by the name of the max pooling.
    """

    inputs: tf.Tensor
    variances: Mapping[str, tf.Tensor]
    maxima: Mapping[str, Maxima]


class Each:
    """Each picture with itself: results `[pairs, n]`; there is no Theta."""

    ntk = False

    def __init__(self, side: Side):
        self.side = side

    def inputs(self, p, q):
        """See `nodes.Pairing`."""
        x = self.side.inputs
        return tf.reduce_sum(tf.gather(x, p) * tf.gather(x, q), -1)

    def variances(self, node, kernel, p, q):
        """See `nodes.Pairing`."""
        own = (np.searchsorted(kernel.pairs, i * (node.positions + 1)) for i in (p, q))
        a, b = (tf.gather(kernel.nngp, rows) for rows in own)
        return a, b

    def maxima(self, node, pairs, before, per_layer):
        """See `nodes.Pairing`."""
        values = self.side.maxima[node.name].values

        def one(pair):
            return tf.reduce_mean(tf.gather(values, pair[0]) * tf.gather(values, pair[1]), -1)

        result = tf.map_fn(one, node.split(pairs), fn_output_signature=values.dtype)
        return tf.cast(result, self.side.inputs.dtype), {}


class Every:
    """Each picture of one set with each of another: results `[pairs, n, m]`."""

    ntk = True

    def __init__(self, left: Side, right: Side):
        self.left, self.right = left, right

    def inputs(self, p, q):
        """See `nodes.Pairing`."""
        x, z = tf.gather(self.left.inputs, p), tf.gather(self.right.inputs, q)
        return tf.matmul(x, z, transpose_b=True)

    def variances(self, node, kernel, p, q):
        """See `nodes.Pairing`."""
        a = _rows(self.left.variances[node.name], p)
        b = _rows(self.right.variances[node.name], q)
        return a[:, :, None], b[:, None, :]

    def maxima(self, node, pairs, before, per_layer):
        """See `nodes.Pairing`.

        Of the pooling's derivative at a pair of windows only the probability counts with which
        place i of one is chosen together with place j of the other.
        """
        left, right = self.left.maxima[node.name], self.right.maxima[node.name]
        size, dtype = node.windows.shape[1], left.values.dtype
        p, q = node.split(pairs)

        def products(x, z, number, **transposed):
            i, j = tf.gather(p, number), tf.gather(q, number)
            return tf.matmul(tf.gather(x, i), tf.gather(z, j), **transposed)

        sides = (self.left, self.right) if node.features_before else ()
        patches = [_features(side, node) for side in sides]

        def of_patches(number):
            return products(*patches, number, transpose_a=True)

        parts = node.theta(pairs, before, per_layer, of_patches)
        masks = [_masks(side.chosen, size, dtype) for side in (left, right)]

        def one(number):
            nngp = products(left.values, right.values, number, transpose_b=True)
            if not parts:
                return (nngp,)
            together = products(*masks, number, transpose_b=True)
            ntk = (together * tf.cast(part(number), dtype) for part in parts.values())
            return nngp, *(_summed(x, size) for x in ntk)

        signature = (dtype,) * (1 + len(parts))
        found = tf.map_fn(one, tf.range(len(pairs)), fn_output_signature=signature)
        channels = left.values.shape[-1]
        nngp, *ntk = (tf.cast(x, self.left.inputs.dtype) / channels for x in found)
        return nngp, dict(zip(parts, ntk, strict=True))


def _features(side: Side, node) -> tf.Tensor:
    """Those of the layer before a pooling at each window's positions, `[windows, d, k n]`."""
    inputs = tf.cast(side.inputs, side.maxima[node.name].values.dtype)
    features = node.inputs[0].features(tf.transpose(inputs, [0, 2, 1]))
    found = tf.transpose(tf.gather(features, node.windows), [0, 2, 1, 3])
    return tf.reshape(found, [*found.shape[:2], -1])


def _masks(chosen: tf.Tensor, size: int, dtype: tf.DType) -> tf.Tensor:
    """Which place of its window each channel has chosen, 0 or 1 `[windows, k n, channels]`."""
    count, n, channels = chosen.shape
    masks = [tf.cast(chosen == tf.constant(place, chosen.dtype), dtype) for place in range(size)]
    return tf.reshape(tf.stack(masks, 1), [count, size * n, channels])


def _summed(x: tf.Tensor, size: int) -> tf.Tensor:
    """Sums over the places of two windows, `[n, m]` from `[k n, k m]`."""
    n, m = (length // size for length in x.shape)
    rows = tf.reduce_sum(tf.reshape(x, [size, n * size * m]), 0)
    return tf.reduce_sum(tf.reshape(rows, [n, size, m]), 1)


def _rows(x: tf.Tensor, rows: np.ndarray) -> tf.Tensor:
    whole = len(rows) == x.shape[0] and np.array_equal(rows, np.arange(len(rows)))
    return x if whole else tf.gather(x, rows)
