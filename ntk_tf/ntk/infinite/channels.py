"""Random channels of the layers before a max pooling, from which its kernel is estimated.

Each layer's channels are drawn given those before, so that they are Gaussian with the covariance
that these have; the same for all pictures. Behind the pooling the kernels are means over them, and
thereby positive semidefinite.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from ntk_tf.ntk.contract import even_slices
from ntk_tf.ntk.infinite import nodes
from ntk_tf.ntk.infinite.pairings import Maxima
from ntk_tf.ntk.infinite.windows import OUTSIDE

#: Precision of the channels: their number makes an error of a percent.
DTYPE = tf.float32
#: What tells which channels have chosen a place, and of how many.
_WORD = tf.int64
_BITS = 8 * _WORD.size
#: Channels of a picture at a position's window that are gathered at one time: enough for matrix
#: products at full speed, few beside a layer's.
_GATHERED = 2048


def maxima(
    order: Sequence[nodes.Node], inputs: tf.Tensor, channels: Sequence[int], seed: tf.Tensor
) -> dict[str, Maxima]:
    """Random channels behind all max poolings.

    Args:
        order: nodes, each after its inputs.
        inputs: `[positions, n, channels]`.
        channels: of the layers with weights, the last for all further ones.
        seed: int64, not negative; fixes the channels.

    Returns:
        The channels by the pooling's name.
    """
    poolings = [node for node in order if isinstance(node, nodes.MaxPool)]
    if not poolings:
        return {}
    drawn, found = _Drawn(_counts(order, channels), seed), {}
    values: dict[nodes.Node, tf.Tensor] = {}
    for node in order[: order.index(poolings[-1]) + 1]:
        before = [values[one] for one in node.inputs]
        if isinstance(node, nodes.MaxPool):
            found[node.name] = _pooled(node, *before)
            values[node] = found[node.name].values
        elif isinstance(node, nodes.Input):
            values[node] = tf.cast(inputs, DTYPE)
        else:
            values[node] = _forward(node, before, drawn)
    return found


def memory(order: Sequence[nodes.Node], channels: Sequence[int]) -> tuple[int, int, int]:
    """Bytes of a picture: its channels behind all max poolings, the largest layer, and for pairs.

    The last is what `pairings.Every` makes for each pair of blocks at one pooling: the patches that
    the first layer reads at the places of its windows.

    Args:
        order: see `maxima`.
        channels: see there.
    """
    counts = _counts(order, channels)
    numbers = {node: node.positions * count for node, count in counts.items()}
    pools = [node for node in order if isinstance(node, nodes.MaxPool)]
    words = {node: node.windows.size * _words(counts[node]) for node in pools}
    kept = sum(numbers[node] * DTYPE.size + words[node] * _WORD.size for node in pools)
    paired = max(node.windows.size * node.features_before for node in pools)
    return kept, max(numbers.values()) * DTYPE.size, paired * DTYPE.size


def _counts(order: Sequence[nodes.Node], channels: Sequence[int]) -> dict[nodes.Node, int]:
    """The channels of each layer; where a sum would be of unequal numbers, of all the largest."""
    counts: dict[nodes.Node, int] = {}
    for given in (channels, [max(channels)]):
        layers = 0
        for node in order:
            if isinstance(node, nodes.Weights):
                counts[node] = given[min(layers, len(given) - 1)]
                layers += 1
            else:
                counts[node] = counts[node.inputs[0]] if node.inputs else node.channels
        sums = [node.inputs for node in order if isinstance(node, nodes.Sum)]
        if all(len({counts[one] for one in summands}) == 1 for summands in sums):
            break
    return counts


class _Drawn:
    """Weights that are drawn layer by layer."""

    def __init__(self, counts: Mapping[nodes.Node, int], seed: tf.Tensor):
        self.counts, self.seed, self.layers = counts, seed, 0

    def __call__(self, node: nodes.Weights, inputs: int) -> tuple[tf.Tensor, tf.Tensor]:
        """A layer's weights `[positions, inputs, outputs]` and biases `[outputs]`."""
        positions, outputs = node.windows.shape[1], self.counts[node]
        draw = functools.partial(tf.random.stateless_normal, dtype=DTYPE)
        seeds = (tf.stack([self.seed, 2 * self.layers + i]) for i in range(2))
        self.layers += 1
        return tuple(map(draw, ((positions, inputs, outputs), (outputs,)), seeds))


def _forward(node: nodes.Node, before: Sequence[tf.Tensor], drawn: _Drawn) -> tf.Tensor:
    if isinstance(node, nodes.Weights):
        weights, biases = drawn(node, before[0].shape[-1])
        weights /= math.sqrt(before[0].shape[-1])
        summed = _over_windows(node, before[0], lambda x, some: _products(x, weights[some]))
        return summed + math.sqrt(node.variance) * biases
    if isinstance(node, nodes.Linear):
        return _over_windows(node, before[0], lambda x, _: tf.reduce_sum(x, 1))
    if isinstance(node, nodes.Sum):
        return before[0] + before[1]
    return _FUNCTIONS[node.kind](before[0])


_FUNCTIONS: Mapping = {"relu": tf.nn.relu, "erf": tf.math.erf}


def _over_windows(
    node: nodes.Linear, x: tf.Tensor, term: Callable[[tf.Tensor, slice], tf.Tensor]
) -> tf.Tensor:
    """Sums over windows of a function of what is at some places `[outputs, some, n, channels]`."""
    x = tf.concat([x, tf.zeros_like(x[:1])], 0)
    rows = np.where(node.windows == OUTSIDE, x.shape[0] - 1, node.windows)
    groups = even_slices(rows.shape[1], max(1, _GATHERED // x.shape[-1]))
    total = sum(term(tf.gather(x, rows[:, some]), some) for some in groups)
    return total * tf.constant(node.factor, DTYPE)[:, None, None]


def _products(x: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """What weights `[places, channels, outputs]` make of `[positions, places, n, channels]`."""
    positions, places, n, channels = x.shape
    rows = tf.reshape(tf.transpose(x, [0, 2, 1, 3]), [positions * n, places * channels])
    found = tf.matmul(rows, tf.reshape(weights, [places * channels, -1]))
    return tf.reshape(found, [positions, n, -1])


def _pooled(node: nodes.MaxPool, x: tf.Tensor) -> Maxima:
    """The largest values of windows, and which they are: of equal ones the first."""
    places = range(node.windows.shape[1])
    best = tf.gather(x, node.windows[:, 0])
    chosen = tf.zeros(best.shape, tf.int32)
    for i in places[1:]:
        other = tf.gather(x, node.windows[:, i])
        chosen = tf.where(other > best, i, chosen)
        best = tf.maximum(best, other)
    if node.relu:
        chosen = tf.where(best > 0, chosen, OUTSIDE)
        best = tf.nn.relu(best)
    return Maxima(best, _bits(chosen, len(places)))


def _bits(chosen: tf.Tensor, size: int) -> tf.Tensor:
    """See `Maxima.chosen`, from the place `[positions, n, channels]` of each."""
    channels = chosen.shape[-1]
    words = _words(channels)
    behind = [[0, 0], [0, 0], [0, words * _BITS - channels]]
    padded = tf.pad(chosen, behind, constant_values=OUTSIDE)
    apart = tf.reshape(padded, [*chosen.shape[:-1], words, _BITS])
    powers = tf.constant(np.left_shift(1, np.arange(_BITS)), _WORD)
    found = [tf.reduce_sum(tf.where(apart == i, powers, 0), -1) for i in range(size)]
    return tf.transpose(tf.stack(found, 1), [0, 1, 3, 2])


def _words(channels: int) -> int:
    return -(-channels // _BITS)
