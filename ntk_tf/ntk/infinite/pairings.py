"""How pictures are paired: each of one set with each of another, or each with itself."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf


class Maxima(NamedTuple):
    """Random channels behind a max pooling.

    Attributes:
        values: `[positions, n, channels]`.
        chosen: bits that say which channels have chosen each place of a window, none where there
            is no derivative: int64 `[positions, k, words, n]` for k places.
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
        dtype = left.values.dtype
        p, q = node.split(pairs)

        def at(x, z, number):
            return tf.gather(x, tf.gather(p, number)), tf.gather(z, tf.gather(q, number))

        sides = (self.left, self.right) if node.features_before else ()
        patches = [_features(side, node) for side in sides]

        def of_patches(number):
            return tf.matmul(*at(*patches, number), transpose_a=True)

        parts = node.theta(pairs, before, per_layer, of_patches)

        def one(number):
            nngp = tf.matmul(*at(left.values, right.values, number), transpose_b=True)
            ntk = [tf.cast(part(number), dtype) for part in parts.values()]
            if not ntk:
                return (nngp,)
            return nngp, *_where_chosen(ntk, *at(left.chosen, right.chosen, number))

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


@tf.function(jit_compile=True, autograph=False)
def _where_chosen(parts: Sequence[tf.Tensor], x: tf.Tensor, z: tf.Tensor) -> list[tf.Tensor]:
    """Sums over two windows' places, each so often as it counts for channels of both pictures.

    Channels that have chosen a place in each are counted as common bits, of 64 channels at a time:
    a third to a quarter of the time that products of matrices of ones and zeros take.

    Args:
        parts: what to sum, `[k n, k m]`.
        x: of one window, `[k, words, n]`, see `Maxima.chosen`.
        z: of the other, `[k, words, m]`.

    Returns:
        `[n, m]` of each part.
    """
    size, words, n = x.shape
    columns = tf.reshape(tf.transpose(z, [1, 0, 2]), [words, -1])
    parts = [tf.reshape(part, [size, n, -1]) for part in parts]

    def of_place(i, totals):
        rows = x[i, :, :, None]
        common = (rows[word] & columns[word] for word in range(words))
        counts = (tf.cast(tf.raw_ops.PopulationCount(x=bits), tf.int32) for bits in common)
        together = tf.cast(sum(counts), parts[0].dtype)
        return i + 1, [
            total + together * part[i] for total, part in zip(totals, parts, strict=True)
        ]

    start = [tf.zeros(part.shape[1:], part.dtype) for part in parts]
    _, totals = tf.while_loop(lambda i, _: i < size, of_place, (0, start))
    return [tf.reduce_sum(tf.reshape(total, [n, size, -1]), 1) for total in totals]


def _rows(x: tf.Tensor, rows: np.ndarray) -> tf.Tensor:
    whole = len(rows) == x.shape[0] and np.array_equal(rows, np.arange(len(rows)))
    return x if whole else tf.gather(x, rows)
