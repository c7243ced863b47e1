"""Sets of layers that make an architecture's infinitely wide network; see `models.standard`.

There are two limits. In the NTK parametrization each layer's weights and biases add their own K to
Theta. In the standard parametrization, which is how the paper widens its networks, the kernel grows
as the width factor k does, and Theta / k has a limit: there a layer's weights count by their fan-in
at width 1, those before which nothing grows and biases not at all (Sohl-Dickstein et al. 2020, "On
the infinite width limit of neural networks with a standard parameterization"). With Xavier's
initialization outputs shrink as 1 / sqrt(k), and it is Theta that has a limit, in which all weights
count by their fan-in and each bias by 1.
"""

import math
from collections.abc import Sequence

import numpy as np

from ntk_tf.ntk.infinite import windows
from ntk_tf.ntk.infinite.nodes import (
    ACTIVATIONS,
    Activation,
    Flatten,
    Linear,
    MaxPool,
    Node,
    Sum,
    Weights,
)

_VECTOR = (1, 1)
#: What PyTorch's initialization multiplies 1/fan_in by, in the variance of weights and of biases.
_PYTORCH = 1 / 3


class NoKernelError(ValueError):
    """A layer that has no kernel at infinite width; the message is one line and names it."""


class _Limit:
    """Layers as nodes; subclasses know the parametrization."""

    def _weights(
        self, x: Node, size: int, units: int, grows: bool, factor: float | None
    ) -> tuple[float, float, tuple[float, float]]:
        """sigma_w, the biases' variance and what both add to Theta, of a layer with weights.

        The weights' part is a multiple of K without biases, that of biases is itself.

        Args:
            x: the layer before.
            size: positions of the kernel.
            units: channels that come out, at width 1.
            grows: whether these grow with the width.
            factor: see `Standard.conv`.
        """
        raise NotImplementedError

    def side(self, x: Node) -> int:
        """See `Standard.side`."""
        return min(x.shape)

    def conv(
        self,
        x: Node,
        filters: int,
        kernel_size: int,
        strides: int = 1,
        padding: int | str = 0,
        *,
        activation: str | None = None,
        use_bias: bool = True,
        weight_factor: float | None = None,
        name: str,
    ) -> Node:
        """See `Standard.conv`."""
        found = windows.convolution(x.shape, kernel_size, strides, padding)
        given = filters, use_bias, weight_factor
        return self._activated(self._layer(x, *found, *given, name=name), activation, name)

    def dense(
        self,
        x: Node,
        units: int,
        *,
        activation: str | None = None,
        use_bias: bool = True,
        name: str,
    ) -> Node:
        """See `Standard.dense`."""
        found = windows.convolution(x.shape, 1, 1, 0)
        return self._activated(self._layer(x, *found, units, use_bias, name=name), activation, name)

    def outputs(
        self, x: Node, num_classes: int, *, use_bias: bool = True, name: str = "outputs"
    ) -> Node:
        """See `Standard.outputs`."""
        found = windows.convolution(x.shape, 1, 1, 0)
        return self._layer(x, *found, num_classes, use_bias, name=name, grows=False)

    def _layer(self, x, shape, places, units, use_bias, factor=None, *, name, grows=True):
        size = places.shape[1]
        sigma, variance, shares = self._weights(x, size, units, grows, factor)
        return Weights(
            *(name, x, places, sigma / math.sqrt(size)),
            variance=variance if use_bias else 0.0,
            shares=(shares[0], shares[1] if use_bias else 0.0),
            shape=shape,
            channels=units,
            grows=grows,
        )

    def _activated(self, x: Node, kind: str | None, name: str) -> Node:
        if kind is None:
            return x
        return self.activation(x, kind, name=f"{name}_activation")

    def activation(self, x: Node, kind: str, *, name: str) -> Node:
        """See `Standard.activation`.

        Raises:
            NoKernelError: for another than ReLU and the error function, or if what comes before is
                not Gaussian, as an identity shortcut from behind an activation is not.
        """
        if kind not in ACTIVATIONS:
            raise NoKernelError(
                f"layer {name}: the activation {kind} has no kernel here at infinite width; those"
                f" of {', '.join(ACTIVATIONS)} are known"
            )
        if isinstance(x, Flatten):  # of each number by itself, so it may as well come first
            before = self.activation(x.inputs[0], kind, name=name)
            return self.flatten(before, name=x.name)
        if not _is_gaussian(x):
            raise NoKernelError(
                f"layer {name}: an activation has a kernel at infinite width only behind a"
                " convolution, a dense layer or a sum of such; in a sum with what another"
                " activation or a flattening gives it is not Gaussian"
            )
        return Activation(name, x, kind)

    def norm(self, x: Node, *, name: str) -> Node:
        """Refuse it: the kernel of one picture would depend on all others.

        Raises:
            NoKernelError: always.
        """
        raise NoKernelError(f"layer {name}: batch normalization has no kernel at infinite width")

    def max_pool(self, x: Node, size: int, strides: int | None = None, *, name: str) -> Node:
        """See `Standard.max_pool`.

        Raises:
            NoKernelError: if what is pooled is no Gaussian layer, nor the ReLU of one.
        """
        relu = isinstance(x, Activation) and x.kind == "relu"
        before = x.inputs[0] if relu else x
        if not _is_gaussian(before):
            raise NoKernelError(
                f"layer {name}: a max pooling has a kernel at infinite width only behind a"
                " convolution or a sum of such, with a ReLU or none between"
            )
        shape, places = windows.convolution(x.shape, size, strides or size, 0)
        return MaxPool(name, before, places, relu, shape=shape)

    def average_pool(self, x: Node, size: int, strides: int | None = None, *, name: str) -> Node:
        """See `Standard.average_pool`."""
        shape, places = windows.convolution(x.shape, size, strides or size, 0)
        return Linear(name, x, places, 1 / size**2, crossed=True, shape=shape)

    def global_average_pool(self, x: Node, *, name: str) -> Node:
        """See `Standard.global_average_pool`."""
        return Linear(name, x, _all(x), 1 / x.positions, crossed=True, shape=_VECTOR)

    def adaptive_average_pool(self, x: Node, size: int, *, name: str) -> Node:
        """See `Standard.adaptive_average_pool`."""
        if x.shape == (size, size):
            return x
        shape, places = windows.adaptive(x.shape, size)
        means = 1 / (places != windows.OUTSIDE).sum(axis=1)
        return Linear(name, x, places, means, crossed=True, shape=shape)

    def flatten(self, x: Node, *, name: str) -> Node:
        """See `Standard.flatten`; K is the mean over the positions."""
        if x.positions == 1:
            return x
        return Flatten(name, x, shape=_VECTOR)

    def add(self, x: Node, y: Node, *, name: str) -> Node:
        """See `Standard.add`.

        Raises:
            NoKernelError: if neither summand ends in weights that the other has not.
        """
        for one, other in ((x, y), (y, x)):
            if isinstance(one, Weights) and one not in _ancestors(other):
                return Sum(name, [x, y])
        raise NoKernelError(
            f"layer {name}: a sum has a kernel at infinite width only if one summand is a"
            " convolution or dense layer that the other does not go through"
        )

    def zero_padding(self, x: Node, padding: int, *, name: str) -> Node:
        """See `Standard.zero_padding`."""
        shape, places = windows.zero_padding(x.shape, padding)
        return Linear(name, x, places, shape=shape)

    def scale(self, x: Node, factor: float, *, name: str) -> Node:
        """See `Standard.scale`."""
        return Linear(name, x, windows.convolution(x.shape, 1, 1, 0)[1], factor)


class NTKLimit(_Limit):
    """The limit of `models.ntk_scaled.NTKScaled`.

    Args:
        sigma_w: see there.
        sigma_b: see there.
    """

    def __init__(self, *, sigma_w: float, sigma_b: float):
        self.sigma_w, self.sigma_b = sigma_w, sigma_b

    def _weights(self, x, size, units, grows, factor):
        """See `_Limit`."""
        sigma = self.sigma_w if factor is None else factor * math.sqrt(size * x.channels)
        return sigma, self.sigma_b**2, (1.0, self.sigma_b**2)


class WideningLimit(_Limit):
    """The limit of `models.standard.Standard`; with PyTorch's initialization of Theta / k.

    There the biases behind what does not grow remain in the signal. Weights are taken for Gaussian;
    sums over the first layer's, which are uniform, are so for many inputs alone. With Xavier's,
    Theta is not divided, and K is that of the outputs times the square root of the width.

    Args:
        gain: see `Standard`.
    """

    def __init__(self, *, gain: float | None = None):
        self.gain = gain

    def activation(self, x: Node, kind: str, *, name: str) -> Node:
        """See `Standard.activation`.

        Raises:
            NoKernelError: as above, and for the error function with Xavier's initialization.
        """
        if self.gain is not None and kind == "erf":
            # Outputs of the first layer shrink with the width, which only ReLU does not mind.
            raise NoKernelError(
                f"layer {name}: erf has no kernel here with gain={self.gain:g}; relu has"
            )
        return super().activation(x, kind, name=name)

    def _weights(self, x, size, units, grows, factor):
        """See `_Limit`."""
        fan_in = size * x.channels
        if self.gain is None:
            variance, bias = _PYTORCH, 0.0 if x.grows else _PYTORCH / fan_in
        else:
            fan_out = size * units
            fans = x.grows * fan_in + grows * fan_out or fan_in + fan_out
            variance, bias = 2 * self.gain**2 * fan_in / fans, 0.0
        weights = fan_in / variance if x.grows or self.gain is not None else 0.0
        return math.sqrt(variance), bias, (weights, 0.0 if self.gain is None else 1.0)


#: The limits by parametrization.
LIMITS = {"ntk": NTKLimit, "standard": WideningLimit}


def _all(x: Node):
    """A single window of all positions."""
    return np.arange(x.positions)[None]


def _is_gaussian(node: Node) -> bool:
    """Whether a layer's outputs are Gaussian, all alike: sums of such as weights make.

    Those of a flattening differ from position to position, and K is but their mean.
    """
    if isinstance(node, Weights):
        return True
    if isinstance(node, Flatten):
        return False
    summands = isinstance(node, Sum | Linear) and node.inputs
    return bool(summands) and all(map(_is_gaussian, node.inputs))


def _ancestors(node: Node) -> Sequence[Node]:
    found, waiting = [], [node]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.append(one)
            waiting.extend(one.inputs)
    return found
