"""Random channels of the layers before a max pooling, from which its kernel is estimated.

Each layer's channels are drawn given those before, so that they are Gaussian with the covariance
that these have; the same for all pictures. Behind the pooling the kernels are means over them, and
thereby positive semidefinite.
"""

import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from ntk_tf.ntk.infinite import nodes
from ntk_tf.ntk.infinite.pairings import Maxima
from ntk_tf.ntk.infinite.windows import OUTSIDE

#: Precision of the channels: their number makes an error of a percent.
DTYPE = tf.float32


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
    drawn, found = _Drawn(channels, seed), {}
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


def memory(order: Sequence[nodes.Node], channels: Sequence[int]) -> tuple[int, int]:
    """Bytes that a picture's channels behind all max poolings take, and those of the largest layer.

    Args:
        order: see `maxima`.
        channels: see there.
    """
    counts: dict[nodes.Node, int] = {}
    layers = 0
    for node in order:
        if isinstance(node, nodes.Weights):
            counts[node] = _outputs(channels, layers)
            layers += 1
        else:
            counts[node] = counts[node.inputs[0]] if node.inputs else node.channels
    numbers = {node: node.positions * count for node, count in counts.items()}
    pooled = sum(number for node, number in numbers.items() if isinstance(node, nodes.MaxPool))
    return pooled * (DTYPE.size + tf.int8.size), max(numbers.values()) * DTYPE.size


def _outputs(channels: Sequence[int], layer: int) -> int:
    """The channels of a layer with weights, counted from 0."""
    return channels[min(layer, len(channels) - 1)]


class _Drawn:
    """Weights that are drawn layer by layer."""

    def __init__(self, channels: Sequence[int], seed: tf.Tensor):
        self.channels, self.seed, self.layers = channels, seed, 0

    def __call__(self, positions: int, inputs: int) -> tuple[tf.Tensor, tf.Tensor]:
        """A layer's weights `[positions, inputs, outputs]` and biases `[outputs]`."""
        outputs = _outputs(self.channels, self.layers)
        draw = functools.partial(tf.random.stateless_normal, dtype=DTYPE)
        seeds = (tf.stack([self.seed, 2 * self.layers + i]) for i in range(2))
        self.layers += 1
        return tuple(map(draw, ((positions, inputs, outputs), (outputs,)), seeds))


def _forward(node: nodes.Node, before: Sequence[tf.Tensor], drawn: _Drawn) -> tf.Tensor:
    if isinstance(node, nodes.Weights):
        weights, biases = drawn(node.windows.shape[1], before[0].shape[-1])
        weights /= math.sqrt(before[0].shape[-1])
        summed = _over_windows(
            node, before[0], lambda x, i: tf.einsum("pnc,cd->pnd", x, weights[i])
        )
        return summed + math.sqrt(node.variance) * biases
    if isinstance(node, nodes.Linear):
        return _over_windows(node, before[0], lambda x, _: x)
    if isinstance(node, nodes.Sum):
        return before[0] + before[1]
    return _FUNCTIONS[node.kind](before[0])


_FUNCTIONS: Mapping = {"relu": tf.nn.relu, "erf": tf.math.erf}


def _over_windows(node: nodes.Linear, x: tf.Tensor, term) -> tf.Tensor:
    """Sums over windows of a function of what is there and of the place in the window."""
    x = tf.concat([x, tf.zeros_like(x[:1])], 0)
    rows = np.where(node.windows == OUTSIDE, x.shape[0] - 1, node.windows)
    total = sum(term(tf.gather(x, rows[:, i]), i) for i in range(rows.shape[1]))
    return total * tf.constant(node.factor, DTYPE)[:, None, None]


def _pooled(node: nodes.MaxPool, x: tf.Tensor) -> Maxima:
    """The largest values of windows, and which they are."""
    size = node.windows.shape[1]
    best = tf.gather(x, node.windows[:, 0])
    chosen = tf.zeros(best.shape, tf.int8)
    for i in range(1, size):
        other = tf.gather(x, node.windows[:, i])
        chosen = tf.where(other > best, tf.constant(i, tf.int8), chosen)
        best = tf.maximum(best, other)
    if not node.relu:
        return Maxima(best, chosen)
    return Maxima(tf.nn.relu(best), tf.where(best > 0, chosen, tf.constant(-1, tf.int8)))
