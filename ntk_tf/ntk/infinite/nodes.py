"""Layers of infinitely wide networks as maps of kernels between positions of two pictures.

A layer's outputs at position p of a picture x and q of a picture z are, over its channels,
Gaussian with covariance K(p, q); Theta(p, q) is the neural tangent kernel of one channel. A node
takes K and Theta of the layer before at some pairs of positions to its own (Jacot, Gabriel and
Hongler 2018; Lee et al. 2018; Arora et al. 2019, section 4), and tells which pairs it needs: where
nothing pools, these are the equal positions alone.

A pair (p, q) of a layer with P positions has the number p P + q. Kernels have their pairs along the
first axis, in ascending order, and two sets of pictures along the others.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
import tensorflow as tf

from ntk_tf.ntk.infinite.windows import OUTSIDE

#: As many terms are gathered and summed at once; beyond, all of an output at once, or in a loop.
_FEW_TERMS = 32
#: The one part of the NTK if it is not asked for by layer.
WHOLE = "/ntk"


@dataclasses.dataclass
class Kernel:
    """The kernels of a layer at some pairs of positions.

    Attributes:
        pairs: their numbers, ascending.
        nngp: K, of shape `[pairs, ...]`.
        ntk: Theta in parts, by name; those that are 0 are left out.
    """

    pairs: np.ndarray
    nngp: tf.Tensor
    ntk: dict[str, tf.Tensor]

    def __iter__(self) -> Iterator[tf.Tensor]:
        """K and the parts of Theta."""
        yield from (self.nngp, *self.ntk.values())


class Pairing(Protocol):
    """How pictures are paired, see `pairings`; p and q are positions, a pair of each a row."""

    ntk: bool

    def inputs(self, p: np.ndarray, q: np.ndarray) -> tf.Tensor:
        """Products of the inputs, summed over channels."""

    def variances(
        self, node: "Activation", kernel: "Kernel", p: np.ndarray, q: np.ndarray
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Variances before an activation, of shapes that broadcast."""

    def maxima(
        self, node: "MaxPool", pairs: np.ndarray, before: "Kernel | None", per_layer: bool
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """K behind a max pooling and the parts of Theta, see `Node.kernel`."""


class Node:
    """A layer.

    Attributes:
        name: of the layer.
        inputs: the layers before.
        shape: height and width; `(1, 1)` for vectors.
        channels: at width 1.
        grows: whether the channels grow with the width.
        terms: number of pairs of positions of an input that one of its own reads.
        single: whether its kernels are of random channels, which are float32.
    """

    terms = 1
    single = False

    def __init__(
        self,
        name: str,
        inputs: Sequence["Node"],
        shape: tuple[int, int] | None = None,
        channels: int | None = None,
        grows: bool | None = None,
    ):
        self.name, self.inputs = name, tuple(inputs)
        self.shape = inputs[0].shape if shape is None else shape
        self.channels = inputs[0].channels if channels is None else channels
        self.grows = inputs[0].grows if grows is None else grows
        self.single = self.single or any(node.single for node in self.inputs)

    @property
    def positions(self) -> int:
        """Number P of positions."""
        return math.prod(self.shape)

    def reads(self, pairs: np.ndarray) -> np.ndarray:
        """Pairs of the inputs that some pairs need, in any order."""
        return pairs

    def kernel(
        self, pairs: np.ndarray, before: Sequence[Kernel], pairing: Pairing, per_layer: bool
    ) -> Kernel:
        """The layer's kernels.

        Args:
            pairs: of its positions.
            before: kernels of the inputs, at least at what the pairs read.
            pairing: of the pictures.
            per_layer: whether Theta's parts are those of the layers with weights.
        """
        raise NotImplementedError

    def split(self, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First and second positions of pairs."""
        return np.divmod(pairs, self.positions)


class Input(Node):
    """Pictures, or vectors; K is the mean over channels of the products."""

    def kernel(self, pairs, before, pairing, per_layer):
        """See `Node.kernel`."""
        return Kernel(pairs, pairing.inputs(*self.split(pairs)) / self.channels, {})


class Linear(Node):
    """Sums over windows of positions, the same for all channels.

    Args:
        name: see `Node`.
        before: the layer before.
        windows: positions `[P, k]` that each position reads.
        factor: of the sums, one or `[P]`.
        crossed: whether the terms of a sum are correlated, as in a pooling; otherwise each has
            weights of its own, and K(p, q) sums over terms of equal place in both windows.
        **more: see `Node`.
    """

    def __init__(self, name, before, windows, factor=1.0, crossed=False, **more):
        super().__init__(name, [before], **more)
        self.windows, self.crossed = windows, crossed
        self.terms = windows.shape[1] ** (2 if crossed else 1)
        self.factor = np.broadcast_to(np.asarray(factor, float), [len(windows)])

    def reads(self, pairs):
        """See `Node.reads`."""
        found = self._terms(pairs)
        return found[found != OUTSIDE]

    def _terms(self, pairs: np.ndarray) -> np.ndarray:
        """Pairs `[pairs, terms]` of the layer before that are summed."""
        p, q = (self.windows[positions] for positions in self.split(pairs))
        if self.crossed:
            p, q = p[:, :, None], q[:, None, :]
        outside = (p == OUTSIDE) | (q == OUTSIDE)
        found = np.where(outside, OUTSIDE, p * self.inputs[0].positions + q)
        return found.reshape(len(pairs), math.prod(found.shape[1:]))

    def kernel(self, pairs, before, pairing, per_layer):
        """See `Node.kernel`."""
        (kernel,) = before
        p, q = self.split(pairs)
        terms = self._terms(pairs)
        outside = terms == OUTSIDE
        rows = np.where(outside, len(kernel.pairs), np.searchsorted(kernel.pairs, terms))
        factors = self.factor[p] * self.factor[q]
        nngp, *parts = _sums(list(kernel), rows, outside, factors)
        return Kernel(pairs, nngp, dict(zip(kernel.ntk, parts, strict=True)))


class Flatten(Linear):
    """All positions side by side, for a layer that has weights for each: the mean over them.

    Args:
        name: see `Node`.
        before: the layer before.
        **more: see `Node`.
    """

    def __init__(self, name, before, **more):
        size = before.positions
        channels = size * before.channels
        everywhere = np.arange(size)[None]
        super().__init__(name, before, everywhere, size**-0.5, channels=channels, **more)


class Weights(Linear):
    """A convolution or a dense layer: sums with weights of its own, and biases.

    Args:
        name: see `Node`.
        before: the layer before.
        windows: see `Linear`.
        factor: see `Linear`; sigma_w / sqrt(k) for the mean over the k positions.
        variance: of the biases, sigma_b^2.
        shares: what the layer's own weights and biases add to Theta, the weights as a multiple of
            K without biases: 1 and sigma_b^2 in NTK parametrization.
        **more: see `Node`.
    """

    def __init__(self, name, before, windows, factor, variance, shares=(1.0, 1.0), **more):
        super().__init__(name, before, windows, factor, **more)
        self.variance, self.shares = variance, shares

    @property
    def first(self) -> bool:
        """Whether it reads pictures, so that K is made of inner products of their patches."""
        return isinstance(self.inputs[0], Input)

    def features(self, inputs: tf.Tensor) -> tf.Tensor:
        """Of a first layer: scaled patches, whose inner products are K less biases.

        Args:
            inputs: `[positions, channels, n]`.

        Returns:
            `[P, k channels, n]` for its own P positions.
        """
        rows = np.where(self.windows == OUTSIDE, inputs.shape[0], self.windows)
        patches = tf.gather(tf.concat([inputs, tf.zeros_like(inputs[:1])], 0), rows)
        flat = tf.reshape(patches, [len(rows), -1, inputs.shape[2]])
        return _scaled(flat, self.factor / math.sqrt(inputs.shape[1]))

    def kernel(self, pairs, before, pairing, per_layer):
        """See `Node.kernel`."""
        found = super().kernel(pairs, before, pairing, per_layer)
        ntk = found.ntk
        if pairing.ntk and any(self.shares):
            name, own = self.part(per_layer), self.own(found.nngp)
            ntk = ntk | {name: own + ntk[name] if name in ntk else own}
        nngp = found.nngp + self.variance if self.variance else found.nngp
        return Kernel(pairs, nngp, ntk)

    def own(self, nngp: tf.Tensor) -> tf.Tensor:
        """What the layer's own weights and biases add to Theta, from K without biases."""
        weights, biases = self.shares
        own = nngp if weights == 1 else weights * nngp
        return own + biases if biases else own

    def part(self, per_layer: bool) -> str:
        """The name of the part of Theta that it adds to."""
        return self.name if per_layer else WHOLE


class Activation(Node):
    """ReLU or the error function."""

    def __init__(self, name: str, before: Node, kind: str):
        super().__init__(name, [before])
        self.kind = kind

    def kernel(self, pairs, before, pairing, per_layer):
        """See `Node.kernel`."""
        (kernel,) = before
        rows = np.searchsorted(kernel.pairs, pairs)
        here, *parts = (_sum_of_rows(x, rows[:, None]) for x in kernel)
        variances = pairing.variances(self, kernel, *self.split(pairs))
        precision = "float32" if self.single else here.dtype.name
        noise = _ROUNDING * np.finfo(precision).eps
        nngp, parts = ACTIVATIONS[self.kind](here, *variances, parts, noise)
        return Kernel(pairs, nngp, dict(zip(kernel.ntk, parts, strict=True)))


class Sum(Node):
    """The sum of two layers whose outputs are independent."""

    def kernel(self, pairs, before, pairing, per_layer):
        """See `Node.kernel`."""
        one, other = (_at(kernel, pairs) for kernel in before)
        parts = {
            name: one.ntk[name] + part if name in one.ntk else part
            for name, part in other.ntk.items()
        }
        return Kernel(pairs, one.nngp + other.nngp, one.ntk | parts)


class MaxPool(Node):
    """Maxima over windows of a Gaussian layer, or of its ReLU, estimated from random channels.

    Args:
        name: see `Node`.
        before: the layer whose maxima are taken, before its ReLU.
        windows: positions `[P, k]`.
        relu: whether a ReLU comes first.
        **more: see `Node`.
    """

    single = True

    def __init__(self, name, before, windows, relu, **more):
        super().__init__(name, [before], **more)
        self.windows, self.relu = windows, relu
        self.terms = 1 if self._behind_first else windows.shape[1] ** 2

    @property
    def features_before(self) -> int:
        """Numbers of the first layer's features at a position, if that is the layer before."""
        (layer,) = self.inputs
        return layer.windows.shape[1] * layer.inputs[0].channels if self._behind_first else 0

    @property
    def _behind_first(self) -> bool:
        """Whether the layer before is a first one, whose kernels need not be kept for all pairs."""
        before = self.inputs[0]
        return isinstance(before, Weights) and before.first

    def reads(self, pairs):
        """See `Node.reads`."""
        return pairs[:0] if self._behind_first else self._terms(pairs)

    def _terms(self, pairs: np.ndarray) -> np.ndarray:
        """Pairs `[pairs, k, k]` of positions in both windows."""
        p, q = (self.windows[positions] for positions in self.split(pairs))
        return p[:, :, None] * self.inputs[0].positions + q[:, None, :]

    def kernel(self, pairs, before, pairing, per_layer):
        """See `Node.kernel`."""
        return Kernel(pairs, *pairing.maxima(self, pairs, before[0], per_layer))

    def theta(
        self,
        pairs: np.ndarray,
        before: Kernel | None,
        per_layer: bool,
        products: Callable[[tf.Tensor], tf.Tensor],
    ) -> dict[str, Callable[[tf.Tensor], tf.Tensor]]:
        """Theta's parts before the pooling, at all positions of two windows, in each picture.

        Functions of the number of a pair of windows: `[k n, k m]`, pictures innermost.

        Args:
            pairs: of windows.
            before: kernels of the layer before at what they read.
            per_layer: see `Node.kernel`.
            products: the same of K less biases of the layer before, if it is a first one.
        """
        if self._behind_first:
            (layer,) = self.inputs
            own = {layer.part(per_layer): lambda number: layer.own(products(number))}
            return own if any(layer.shares) else {}
        rows = np.searchsorted(before.pairs, self._terms(pairs)).astype(np.int32)

        def at(part, number):
            found = tf.gather(part, tf.gather(rows, number))
            k, _, n, m = found.shape
            return tf.reshape(tf.transpose(found, [0, 2, 1, 3]), [k * n, k * m])

        return {name: functools.partial(at, part) for name, part in before.ntk.items()}


#: By precision: integers of the same size, and which of their bits are the exponent.
_EXPONENT = {"float32": (tf.int32, 0x7F800000), "float64": (tf.int64, 0x7FF0000000000000)}


#: So many units of rounding may be between ab and s^2 of two equal pictures: sums over their
#: thousands of numbers, and variances are summed in another order.
_ROUNDING = 64


def relu(
    s: tf.Tensor, a: tf.Tensor, b: tf.Tensor, parts: Sequence[tf.Tensor], noise: float
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Means of products of ReLUs, and of their derivatives times arrays (Cho and Saul 2009).

    Args:
        s: covariances of two Gaussians.
        a: variances of one, of shapes that broadcast.
        b: variances of the other.
        parts: what to multiply by the derivatives' means.
        noise: what part of ab counts as 0 in ab - s^2: the root of what rounding alone makes of
            nothing would be far larger than rounding.
    """
    scale = _power_of_two(tf.maximum(tf.reduce_max(a), tf.reduce_max(b)))
    inverse = 1 / scale  # or products leave the range of floating point
    noise = tf.constant(noise, s.dtype)
    return _relu(s, a * inverse, b * inverse, inverse, scale / (2 * math.pi), list(parts), noise)


@tf.function(jit_compile=True, autograph=False)
def _relu(s, a, b, inverse, factor, parts, noise):
    """As `relu`, with variances of at most 2, in one loop."""
    s = s * inverse
    sine = tf.sqrt(_determinant(s, a, b, noise))
    angle = math.pi - _angle(sine, s)
    derivative = angle * (1 / (2 * math.pi))
    return (sine + angle * s) * factor, [part * derivative for part in parts]


#: Of polynomials P in z = t^2 with arctan(t) = t P(z) up to rounding for |t| < tan(pi/8), highest
#: power first: those that are exact at Chebyshev's points of that range of z. A quotient of
#: shorter ones, as libraries have, takes longer, since divisions do.
_ARCTAN = {
    "float32": (
        *(0.079762918067945579, -0.13848490212269208, 0.19974082415507667),
        *(-0.33332785771924844, 0.99999998126461112),
    ),
    "float64": (
        *(0.021135373157693245, -0.043480522157164625, 0.056883492268090105),
        *(-0.066402339304294086, 0.076899534963068578, -0.090907730748084138),
        *(0.11111106180455945, -0.14285714180976467, 0.1999999999885511),
        *(-0.33333333333328439, 1.0),
    ),
}


def _angle(y: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """atan2(y, x) for y >= 0, in [0, pi], of operations that XLA makes one loop over vectors of."""
    size = tf.abs(x)
    smaller, larger = tf.minimum(size, y), tf.maximum(size, y)
    steep = smaller > math.tan(math.pi / 8) * larger  # less pi/4 in place of the quotient itself
    tiny = np.finfo(x.dtype.name).tiny  # the angle of nothing is 0
    below = tf.maximum(tf.where(steep, smaller + larger, larger), tiny)
    t = tf.where(steep, smaller - larger, smaller) / below
    z = t * t
    angle = t * _polynomial(z, _ARCTAN[x.dtype.name])
    angle = angle + tf.where(steep, tf.constant(math.pi / 4, x.dtype), tf.zeros((), x.dtype))
    angle = tf.where(y > size, math.pi / 2 - angle, angle)
    return tf.where(x < 0, math.pi - angle, angle)


def _polynomial(x: tf.Tensor, coefficients: Sequence[float]) -> tf.Tensor:
    """By Horner's rule; the highest power first."""
    return functools.reduce(lambda value, c: value * x + c, coefficients[1:], coefficients[0])


def _power_of_two(x: tf.Tensor) -> tf.Tensor:
    """The largest that is not above a positive number; dividing by it rounds nothing."""
    bits, exponent = _EXPONENT[x.dtype.name]
    normal = tf.maximum(x, tf.constant(np.finfo(x.dtype.name).tiny, x.dtype))
    return tf.bitcast(tf.bitwise.bitwise_and(tf.bitcast(normal, bits), exponent), x.dtype)


def _determinant(s, a, b, noise):
    """Of the covariances of two Gaussians, ab - s^2, 0 where it may be rounding's alone."""
    product = a * b
    square = product - s * s
    return tf.where(square > noise * product, square, 0)


def erf(
    s: tf.Tensor, a: tf.Tensor, b: tf.Tensor, parts: Sequence[tf.Tensor], noise: float
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """The same for the error function (Williams 1996).

    With all divided by (1 + 2a) (1 + 2b), so that nothing overflows or cancels.
    """
    p, q = 1 / (1 + 2 * a), 1 / (1 + 2 * b)
    root = tf.sqrt(p * q)
    covariance = s * root
    below = p + q - p * q + 4 * _determinant(covariance, a * p, b * q, noise)
    nngp = 2 / math.pi * tf.atan2(2 * covariance, tf.sqrt(below))
    derivative = 4 / math.pi * root / tf.sqrt(below)
    return nngp, [part * derivative for part in parts]


ACTIVATIONS = {"relu": relu, "erf": erf}


def _at(kernel: Kernel, pairs: np.ndarray) -> Kernel:
    """A kernel at some of its pairs."""
    rows = np.searchsorted(kernel.pairs, pairs)[:, None]
    parts = {name: _sum_of_rows(part, rows) for name, part in kernel.ntk.items()}
    return Kernel(pairs, _sum_of_rows(kernel.nngp, rows), parts)


def _sums(
    arrays: Sequence[tf.Tensor], rows: np.ndarray, outside: np.ndarray, factors: np.ndarray
) -> Sequence[tf.Tensor]:
    """Sums over rows `[outputs, terms]` of each array, times factors `[outputs]`.

    Args:
        arrays: each of the same rows.
        rows: one behind the last where `outside` is.
        outside: which terms are 0.
        factors: of the sums.
    """
    if 1 < rows.shape[1] <= _FEW_TERMS:
        weights = tf.constant(np.where(outside, 0, factors[:, None]).T, arrays[0].dtype)
        return _gathered(list(arrays), np.where(outside, 0, rows).T.astype(np.int32), weights)
    return [_scaled(_sum_of_rows(x, rows, outside.any()), factors) for x in arrays]


def _sum_of_rows(x: tf.Tensor, rows: np.ndarray, outside: bool = False) -> tf.Tensor:
    """Sums over rows `[outputs, terms]` of x; one behind the last stands for zeros."""
    outputs, terms = rows.shape
    if terms == 1 and outputs == x.shape[0] and np.array_equal(rows[:, 0], np.arange(outputs)):
        return x
    if outside:
        x = tf.concat([x, tf.zeros_like(x[:1])], 0)
    if terms == 1:
        return tf.gather(x, rows[:, 0])
    if outputs == 1 and np.array_equal(rows[0], np.arange(x.shape[0])):
        return tf.reduce_sum(x, 0, keepdims=True)
    if outputs < terms:
        return tf.stack([tf.reduce_sum(tf.gather(x, row), 0) for row in rows])
    return _gathered_in_turn(x, rows.T.astype(np.int32))


def _gathered_in_turn(x: tf.Tensor, rows: np.ndarray) -> tf.Tensor:
    """Sums over rows `[terms, outputs]`, in a loop, whose graph does not grow with them."""

    def add(i, total):
        return i + 1, total + tf.gather(x, tf.gather(rows, i))

    start = tf.zeros((rows.shape[1], *x.shape[1:]), x.dtype)
    _, total = tf.while_loop(lambda i, _: i < len(rows), add, (0, start), parallel_iterations=1)
    return total


@tf.function(jit_compile=True, autograph=False)
def _gathered(arrays: Sequence[tf.Tensor], rows: tf.Tensor, weights: tf.Tensor) -> list[tf.Tensor]:
    """Sums over rows `[terms, outputs]`, weighted; compiled: gathers alone would take most time."""

    def sums(x: tf.Tensor) -> tf.Tensor:
        columns = tf.reshape(weights, [*rows.shape, *[1] * (len(x.shape) - 1)])
        terms = zip(tf.unstack(rows), tf.unstack(columns), strict=True)
        return functools.reduce(tf.add, (tf.gather(x, row) * weight for row, weight in terms))

    return [sums(x) for x in arrays]


def _scaled(x: tf.Tensor, factors: np.ndarray) -> tf.Tensor:
    """Rows times factors."""
    if np.all(factors == factors[0]):
        return x if factors[0] == 1 else x * tf.constant(factors[0], x.dtype)
    shape = [-1] + [1] * (len(x.shape) - 1)
    return x * tf.reshape(tf.constant(factors, x.dtype), shape)
