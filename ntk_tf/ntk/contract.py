"""The ways to contract a layer's factors into its part of the NTK, and what each costs.

With the factors a_i(p) `[K]` and delta_il(p) `[C]` of `factors`, the layer's part is

    Theta[i,l,j,m] = sum_pq <a_i(p), a_j(q)> <delta_il(p), delta_jm(q)>.

- `Gradients` forms G_il = sum_p delta_il(p) a_i(p)^T and multiplies G G^T: 2 g K C operations an
  entry, whatever P. `StreamedGradients` does so for some channels at a time, from stored factors.
- `Positions` sums over q first: 2 P C (P / L + 1) + 2 P^2 K / L^2 operations an entry, less than
  the above for wide layers with few positions.
- `Outer` is the case P = 1, where Theta is the product of the Grams of delta and of a.
- `Pairs` serves where each output is paired only with itself: there the sum over outputs can be
  taken within the Gram of delta, 2 P^2 (K + L C) operations an entry of the sum.

Where outputs are summed, `Gradients` joins them: <G_i, G_j> of one long vector an example, so that
nothing of size [n, L, n, L] arises. L stands for the number of backward passes, R of `kinds`.

A contraction is the sum of independent parts. For each part what is stored of a block of examples
is prepared once, and then multiplied with that of every other block.

Matrices are multiplied in the factors' precision over at most `PIECE` terms, and such sums are
added in float64.
"""

import dataclasses
from collections.abc import Callable, Sequence

import tensorflow as tf

from ntk_tf.ntk.factors import Shape
from ntk_tf.ntk.kinds import Pairing

#: Terms summed in the factors' own precision.
PIECE = 8192
#: Numbers that all examples' gradients in a part have at least, so that it is worth a call.
_PART = 2**26
#: Bytes of an intermediate result of `Positions`: a few times the usual last-level cache.
_SCRATCH = 2**26
#: Operations that an element's way through memory is worth, in `Pairs`.
_ELEMENT = 64

#: How many times the memory of their factors gradients may take where outputs are not paired.
_MORE = 1.5

#: A block's stored factors, and what is prepared of them; their meaning is the contraction's.
Stored = tuple[tf.Tensor, ...]


@dataclasses.dataclass(frozen=True)
class Contraction:
    """How a layer with factors of some shape is contracted.

    Attributes:
        shape: of the factors.
        outputs: L.
        pairing: which pairs of outputs are kept.
    """

    shape: Shape
    outputs: int
    pairing: Pairing = Pairing.EVERY

    def stored(self) -> int:
        """Numbers stored for one example."""
        s, outputs = self.shape, self.outputs
        return s.groups * s.positions * (s.inputs + outputs * s.channels)

    def of_output(self, a: tf.Tensor, delta: tf.Tensor) -> tf.Tensor:
        """What to keep of one output's gradient: delta `[b, g, P, C]`, with a `[b, g, P, K]`."""
        del a
        return delta

    def store(self, a: tf.Tensor, kept: tf.Tensor) -> Stored:
        """What to store, from a and what was kept `[L, b, ...]`."""
        raise NotImplementedError

    def joined(self, blocks: Sequence[Stored]) -> Stored:
        """What is stored of several blocks' examples, one block after the other."""
        return tuple(tf.concat(parts, self.axis) for parts in zip(*blocks, strict=True))

    @property
    def axis(self) -> int:
        """That of the examples in what is stored."""
        return 0

    def parts(self, examples: int, scratch: float) -> list:
        """The parts, each prepared for so many examples and taking at most `scratch` numbers."""
        del examples, scratch
        return [0]

    def prepare(self, part, stored: Stored) -> Stored:
        """What a part needs of a block."""
        del part
        return stored

    def preparing(self, stored: Stored) -> float:
        """Operations that preparing a block takes, for all parts together."""
        del stored
        return 0.0

    def operations(self) -> float:
        """Operations for one entry of the kernel, in all parts together."""
        raise NotImplementedError

    def product(self, left: Stored, right: Stored) -> tf.Tensor:
        """The kernel's part for two prepared blocks.

        `[rows * L, columns * L]` for every pair of outputs, `[rows, columns]` for their sum, and
        `[L, rows, columns]` for each with itself.
        """
        raise NotImplementedError

    def inputs_gram(self, a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
        """<a_r, b_s> for `[r, K]` and `[s, K]`; of one-hot vectors, given as their numbers."""
        if self.shape.lookup:
            return tf.cast(tf.equal(a, tf.transpose(b)), a.dtype)
        return inner_products(a, b)


class _ExampleGradients(Contraction):
    """A part is prepared as gradients `[b * L, q]`, `[b, L * q]` or `[L, b, q]` of weights."""

    @property
    def terms(self) -> int:
        """Outputs whose products are terms of one sum."""
        return self.outputs if self.pairing is Pairing.SUMMED else 1

    def operations(self) -> float:
        """See `Contraction.operations`."""
        return 2.0 * self.shape.weights * self.terms

    def arrange(self, gradients: tf.Tensor) -> tf.Tensor:
        """Gradients `[b, L, q]` as the factor of a product."""
        if self.pairing is Pairing.EACH:
            return tf.transpose(gradients, [1, 0, 2])
        return tf.reshape(gradients, [-1, gradients.shape[-1] * self.terms])

    def product(self, left, right):
        """See `Contraction.product`."""
        return inner_products(left[0], right[0])


class Gradients(_ExampleGradients):
    """Per-example gradients G `[b, L, g C K]`, stored as such, in ranges of weights."""

    @property
    def axis(self):
        """See `Contraction.axis`."""
        return 1 if self.pairing is Pairing.EACH else 0

    def stored(self) -> int:
        """See `Contraction.stored`."""
        return self.outputs * self.shape.weights

    def of_output(self, a, delta):
        """See `Contraction.of_output`."""
        return tf.reshape(tf.matmul(delta, a, transpose_a=True), [-1, self.shape.weights])

    def store(self, a, kept):
        """See `Contraction.store`."""
        return self.of_gradients(tf.transpose(kept, [1, 0, 2]))

    def of_gradients(self, gradients: tf.Tensor) -> Stored:
        """What to store, from the gradients `[b, L, g C K]`."""
        return tuple(self.arrange(gradients[:, :, part]) for part in self._ranges())

    def parts(self, examples, scratch):
        """Numbers of the ranges; see `Contraction.parts`."""
        return list(range(len(self._ranges())))

    def prepare(self, part: int, stored):
        """See `Contraction.prepare`."""
        return (stored[part],)

    def _ranges(self) -> list[slice]:
        return even_slices(self.shape.weights, max(1, PIECE // self.terms))


class StreamedGradients(_ExampleGradients):
    """Per-example gradients of some channels at a time, formed from the stored factors."""

    def preparing(self, stored):
        """See `Contraction.preparing`."""
        examples, positions = stored[0].shape[0], stored[0].shape[2]
        return 2.0 * examples * self.outputs * positions * self.shape.weights

    def store(self, a, kept):
        """See `Contraction.store`: a `[b, g, P, K]` and delta `[b, g, L, C, P]`."""
        return a, tf.transpose(kept, [1, 2, 0, 4, 3])

    def parts(self, examples, scratch):
        """Channels with a piece of weights or, for few examples, more; see `Contraction.parts`."""
        per_channel = self.shape.groups * self.shape.inputs
        worth = _PART / (examples * self.outputs)
        most = min(max(PIECE / self.terms, worth), scratch / (examples * self.outputs))
        return even_slices(self.shape.channels, max(1, int(most / per_channel)))

    def prepare(self, part: slice, stored):
        """The gradients for a range of C: a product an example and group."""
        a, delta = stored
        delta = delta[:, :, :, part]
        batch, groups, outputs, channels, positions = delta.shape
        delta = tf.reshape(delta, [batch, groups, outputs * channels, positions])
        gradients = tf.matmul(delta, a)
        if groups > 1:
            size = channels * self.shape.inputs
            gradients = tf.reshape(gradients, [batch, groups, outputs, size])
            gradients = tf.transpose(gradients, [0, 2, 1, 3])
        return (self.arrange(tf.reshape(gradients, [batch, outputs, -1])),)


class Positions(Contraction):
    """Every pair of outputs, and of positions, summed over one position first; one group only."""

    def operations(self) -> float:
        """See `Contraction.operations`."""
        s, outputs = self.shape, self.outputs
        return (
            2.0 * s.positions * s.channels * (s.positions / outputs + 1)
            + 2.0 * s.positions**2 * s.inputs / outputs**2
        )

    def store(self, a, kept):
        """See `Contraction.store`: a `[b, P, K]` and delta `[b, L, C, P]`."""
        return a[:, 0], tf.transpose(kept[:, :, 0], [1, 0, 3, 2])

    def product(self, left, right):
        """See `Contraction.product`; a few rows at a time."""
        (a_rows, delta_rows), (a_cols, delta_cols) = left, right
        channels, (count, positions) = self.shape.channels, a_cols.shape[:2]
        width = max(1, min(channels, PIECE // positions))
        per_row = count * a_rows.shape[1] * max(positions, self.outputs * width)

        def tile(some):
            kernel = self._input_kernel(a_rows[some], a_cols)
            total = None
            for part in even_slices(channels, width):
                tile = self._contract(kernel, delta_rows[some, :, part], delta_cols[:, :, part])
                tile = tile if width >= channels else tf.cast(tile, tf.float64)
                total = tile if total is None else total + tile
            return total

        tiles = _in_turn(tile, a_rows.shape[0], per_row * a_rows.dtype.size)
        return tf.concat(tiles, axis=0)

    def _input_kernel(self, a_rows, a_cols):
        """<a_i(p), a_j(q)> as `[i, j, q, p]`."""
        products = _flat_gram(self, a_rows, a_cols)
        return tf.transpose(tf.cast(products, a_rows.dtype), [0, 2, 3, 1])

    def _contract(self, kernel, delta_rows, delta_cols):
        """Sum over q, then over p and the given channels: `[i * L, j * L]`."""
        left, right, positions, _ = kernel.shape
        flat = tf.reshape(delta_cols, [1, right, -1, positions])
        summed = tf.reshape(tf.matmul(flat, kernel), [left, right * self.outputs, -1])
        delta_rows = tf.reshape(delta_rows, [left, self.outputs, -1])
        tile = tf.matmul(delta_rows, summed, transpose_b=True)
        return tf.reshape(tile, [left * self.outputs, -1])


class Outer(Contraction):
    """Every pair of outputs at one position: the Grams of delta and a, element by element."""

    def operations(self) -> float:
        """See `Contraction.operations`."""
        return 2.0 * self.shape.channels + 2.0 * self.shape.inputs / self.outputs**2

    def store(self, a, kept):
        """See `Contraction.store`: a `[b, K]` and delta `[b * L, C]`."""
        delta = tf.transpose(kept[:, :, 0, 0], [1, 0, 2])
        return a[:, 0, 0], tf.reshape(delta, [-1, self.shape.channels])

    def product(self, left, right):
        """See `Contraction.product`."""
        (a_rows, delta_rows), (a_cols, delta_cols) = left, right
        inputs = self.inputs_gram(a_rows, a_cols)[:, None, :, None]
        deltas = inner_products(delta_rows, delta_cols)
        rows, cols = deltas.shape
        deltas = tf.reshape(deltas, [a_rows.shape[0], self.outputs, -1, self.outputs])
        return tf.reshape(tf.multiply(*_same_precision(inputs, deltas)), [rows, cols])


class Pairs(Contraction):
    """Each output with itself: the Grams of delta and a over pairs of positions; one group only."""

    def operations(self) -> float:
        """See `Contraction.operations`; `choose` adds the way through memory."""
        s, each = self.shape, self.pairing is Pairing.EACH
        products = s.inputs + self.outputs * s.channels
        return 2.0 * s.positions**2 * products / (self.outputs if each else 1)

    def store(self, a, kept):
        """See `Contraction.store`: a `[b, P, K]`, delta `[b, P, L * C]` or `[b, P, L, C]`."""
        delta = tf.transpose(kept[:, :, 0], [1, 2, 0, 3])
        if self.pairing is Pairing.SUMMED:
            delta = tf.reshape(delta, [-1, delta.shape[1], self.outputs * self.shape.channels])
        return a[:, 0], delta

    def product(self, left, right):
        """See `Contraction.product`; a few rows at a time."""
        (a_rows, delta_rows), (a_cols, delta_cols) = left, right
        count, positions = a_cols.shape[:2]
        per_row = 2 * count * positions * a_rows.shape[1] * a_rows.dtype.size

        def tile(some):
            inputs = _flat_gram(self, a_rows[some], a_cols)
            if self.pairing is Pairing.SUMMED:
                return self._sum(inputs, delta_rows[some], delta_cols)
            each = range(self.outputs)
            return tf.stack(
                [self._sum(inputs, delta_rows[some, :, k], delta_cols[:, :, k]) for k in each]
            )

        return tf.concat(_in_turn(tile, a_rows.shape[0], per_row), axis=-2)

    def _sum(self, inputs, delta_rows, delta_cols):
        """Over both positions: `[i, j]`."""
        left, positions = delta_rows.shape[:2]
        right, others = delta_cols.shape[:2]
        channels = delta_rows.shape[2]
        deltas = inner_products(
            tf.reshape(delta_rows, [-1, channels]), tf.reshape(delta_cols, [-1, channels])
        )
        deltas = tf.reshape(deltas, [left, positions, right, others])
        products = tf.multiply(*_same_precision(inputs, deltas))
        if positions == others == 1:
            return tf.reshape(products, [left, right])
        return tf.reduce_sum(products, [1, 3])


def _flat_gram(contraction: Contraction, a_rows: tf.Tensor, a_cols: tf.Tensor) -> tf.Tensor:
    """<a_i(p), a_j(q)> as `[i, p, j, q]`, for `[i, p, K]` and `[j, q, K]`."""
    (left, positions, inputs), (right, others, _) = a_rows.shape, a_cols.shape
    products = contraction.inputs_gram(
        tf.reshape(a_rows, [-1, inputs]), tf.reshape(a_cols, [-1, inputs])
    )
    return tf.reshape(products, [left, positions, right, others])


def _in_turn(tile: Callable[[slice], tf.Tensor], rows: int, bytes_per_row: int) -> list[tf.Tensor]:
    """Tiles of some rows each, computed one after the other to save memory."""
    tiles: list[tf.Tensor] = []
    for some in even_slices(rows, max(1, _SCRATCH // bytes_per_row)):
        with tf.control_dependencies(tiles[-1:]):
            tiles.append(tile(some))
    return tiles


def choose(
    shape: Shape, outputs: int, examples: int, pairing: Pairing = Pairing.EVERY
) -> Contraction:
    """The contraction that needs the fewest operations for the kernel of some examples.

    Grouped layers have few weights, so per-example gradients serve them best. These are stored
    as such where they take no more memory than the factors they are made of.
    """
    arguments = shape, outputs, pairing
    gradients: _ExampleGradients = Gradients(*arguments)
    streamed = StreamedGradients(*arguments)
    if pairing is Pairing.EVERY:
        as_such = shape.inputs <= shape.positions
    else:  # Forming them again for every block is not worth a little memory.
        as_such = gradients.stored() <= _MORE * streamed.stored()
    gradients = gradients if as_such else streamed
    if shape.groups > 1:
        return gradients
    forming = 2.0 * shape.positions * shape.weights / examples
    if pairing is not Pairing.EVERY:
        other: Contraction = Pairs(*arguments)
        forming *= gradients.terms
        moving = 2.0 * shape.positions**2 * _ELEMENT
    else:
        other = Outer(*arguments) if shape.positions == 1 else Positions(*arguments)
        forming /= outputs
        moving = 0.0
    if shape.lookup or other.operations() + moving < gradients.operations() + forming:
        return other
    return gradients


def inner_products(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """A B^T for A `[..., r, q]` and B `[..., s, q]`; in float64 if q is more than one piece."""
    slices = even_slices(a.shape[-1], PIECE)
    if len(slices) == 1:
        return tf.matmul(a, b, transpose_b=True)
    total = None
    for part in slices:
        product = tf.cast(tf.matmul(a[..., part], b[..., part], transpose_b=True), tf.float64)
        total = product if total is None else total + product
    return total


def sum_of_products(
    contractions: Sequence[Contraction], left: Sequence[Stored], right: Sequence[Stored]
) -> tf.Tensor:
    """The sum over contractions of `Contraction.product`."""
    total = None
    for contraction, rows, cols in zip(contractions, left, right, strict=True):
        tile = contraction.product(rows, cols)
        total = tile if total is None else tf.add(*_same_precision(total, tile))
    return total


def _same_precision(a: tf.Tensor, b: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Both in float64 if one is."""
    if a.dtype != b.dtype:
        a, b = tf.cast(a, tf.float64), tf.cast(b, tf.float64)
    return a, b


def even_slices(size: int, most: int) -> list[slice]:
    """Ranges of nearly equal length, at most `most`, that make up `size`."""
    count = -(-size // most)
    bounds = [size * k // count for k in range(count + 1)]
    return [slice(start, stop) for start, stop in zip(bounds, bounds[1:], strict=False)]
