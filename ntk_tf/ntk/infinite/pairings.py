"""How pictures are paired: each of one set with each of another, or each with itself."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf


class Maxima(NamedTuple):
    """Random channels behind a max pooling.

    Attributes:
        values: `[positions, n, channels]`.
        chosen: place of each in its window, int8; -1 where it has no derivative.
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

    def maxima(self, node, p, q, rows, parts):
        """See `nodes.Pairing`."""
        values = self.side.maxima[node.name].values

        def one(pair):
            return tf.reduce_mean(tf.gather(values, pair[0]) * tf.gather(values, pair[1]), -1)

        result = tf.map_fn(one, (p, q), fn_output_signature=values.dtype)
        return tf.cast(result, self.side.inputs.dtype), []


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

    def maxima(self, node, p, q, rows, parts):
        """See `nodes.Pairing`.

        Of the pooling's derivative at a pair of windows only the probability counts with which
        place i of one is chosen together with place j of the other.
        """
        left, right = self.left.maxima[node.name], self.right.maxima[node.name]
        size, dtype = rows.shape[1], self.left.inputs.dtype
        channels = tf.cast(tf.shape(left.values)[-1], dtype)

        def masks(chosen):
            mask = chosen[None] == np.arange(size, dtype=np.int8)[:, None, None]
            return tf.reshape(tf.cast(mask, left.values.dtype), [-1, chosen.shape[-1]])

        def one(pair):
            i, j, its_rows = pair
            products = tf.matmul(left.values[i], right.values[j], transpose_b=True)
            nngp = tf.cast(products, dtype) / channels
            together = tf.matmul(masks(left.chosen[i]), masks(right.chosen[j]), transpose_b=True)
            n, m = nngp.shape
            chance = tf.transpose(tf.reshape(together, [size, n, size, m]), [0, 2, 1, 3])
            chance = tf.cast(chance, dtype) / channels
            ntk = [tf.reduce_sum(chance * tf.gather(part, its_rows), [0, 1]) for part in parts]
            return nngp, *ntk

        signature = (dtype,) * (1 + len(parts))
        nngp, *ntk = tf.map_fn(one, (p, q, rows), fn_output_signature=signature)
        return nngp, ntk


def _rows(x: tf.Tensor, rows: np.ndarray) -> tf.Tensor:
    whole = len(rows) == x.shape[0] and np.array_equal(rows, np.arange(len(rows)))
    return x if whole else tf.gather(x, rows)
