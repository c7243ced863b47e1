"""The ways to contract a layer's factors into its part of the NTK, and what each costs.

With the factors a_i(p) `[K]` and delta_il(p) `[C]` of `rules`, the layer's part is

    Theta[i,l,j,m] = sum_pq <a_i(p), a_j(q)> <delta_il(p), delta_jm(q)>.

- `Gradients` forms G_il = sum_p delta_il(p) a_i(p)^T and multiplies G G^T: 2 g K C operations an
  entry, whatever P. `StreamedGradients` does so for some channels at a time, from stored factors.
- `Positions` sums over q first: 2 P C (P / L + 1) + 2 P^2 K / L^2 operations an entry, less than
  the above for wide layers with few positions.
- `Outer` is the case P = 1, where Theta is the product of the Grams of delta and of a.

Matrices are multiplied in the factors' precision over at most `PIECE` terms, and such sums are
added in float64.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import tensorflow as tf

from ntk_tf.ntk.rules import Shape

#: Terms summed in the factors' own precision.
PIECE = 8192
#: Bytes of an intermediate result of `Positions`: a few times the usual last-level cache.
_SCRATCH = 2**26

#: A block's stored factors; their meaning is the contraction's.
Stored = tuple[tf.Tensor, ...]
#: Takes the numbers of a row and a column block, the first example's offset within the row block,
#: and Theta's part `[rows * L, columns * L]`.
Add = Callable[[int, int, int, tf.Tensor], None]


@dataclasses.dataclass(frozen=True)
class Contraction:
    """How a layer with factors of some shape is contracted.

    Attributes:
        shape: of the factors.
        outputs: L.
    """

    shape: Shape
    outputs: int

    def forming(self) -> float:
        """Operations that preparing the stored factors of one example takes."""
        return 0.0

    def stored(self) -> int:
        """Numbers stored for one example."""
        s, outputs = self.shape, self.outputs
        return s.groups * s.positions * (s.inputs + outputs * s.channels)

    def of_output(self, a: tf.Tensor, delta: tf.Tensor) -> tf.Tensor:
        """What to keep of one output's gradient: delta `[b, g, C, P]` and a `[b, g, P, K]`."""
        del a
        return delta

    def store(self, a: tf.Tensor, kept: tf.Tensor) -> Stored:
        """What to store, from a and what was kept `[b, L, ...]`."""
        return a, kept


class Gradients(Contraction):
    """Per-example gradients G `[b * L, g K C]`, stored as such."""

    def operations(self) -> float:
        """Operations for one entry of Theta."""
        return 2.0 * self.shape.weights

    def forming(self) -> float:
        """See `Contraction.forming`."""
        return 2.0 * self.outputs * self.shape.positions * self.shape.weights

    def stored(self) -> int:
        """See `Contraction.stored`."""
        return self.outputs * self.shape.weights

    def of_output(self, a, delta):
        """See `Contraction.of_output`."""
        return tf.reshape(tf.matmul(delta, a), [-1, self.shape.weights])

    def store(self, a, kept):
        """See `Contraction.store`."""
        return (tf.reshape(kept, [-1, self.shape.weights]),)

    def parts(self, rows: Sequence[int], scratch: float) -> list[slice]:
        """The steps: ranges of weights."""
        del rows, scratch
        return _slices(self.shape.weights, PIECE)

    def contract(self, part: slice, rows, cols, pairs, add: Add) -> None:
        """Add a part for the given pairs of row and column blocks."""
        whole = (part.stop - part.start) == self.shape.weights
        left, right = (
            {i: g if whole else g[:, part] for i, (g,) in blocks.items()} for blocks in (rows, cols)
        )
        _add_products(left, right, pairs, add)


class StreamedGradients(Contraction):
    """Per-example gradients of some channels at a time, formed from the stored factors."""

    def operations(self) -> float:
        """Operations for one entry of Theta."""
        return 2.0 * self.shape.weights

    def streaming(self) -> float:
        """Operations that forming one example's gradients takes, in all parts together."""
        return 2.0 * self.outputs * self.shape.positions * self.shape.weights

    def parts(self, rows: Sequence[int], scratch: float) -> list[slice]:
        """The steps: channels with a piece of weights, which take at most `scratch` numbers."""
        per_channel = self.shape.groups * self.shape.inputs
        most = min(PIECE, scratch / (sum(rows) * self.outputs))
        return _slices(self.shape.channels, max(1, int(most / per_channel)))

    def contract(self, part: slice, rows, cols, pairs, add: Add) -> None:
        """Add a part for the given pairs of row and column blocks."""
        left = {i: self._gradients(part, *stored) for i, stored in rows.items()}
        right = {
            j: left[j] if rows.get(j) is stored else self._gradients(part, *stored)
            for j, stored in cols.items()
        }
        _add_products(left, right, pairs, add)

    def _gradients(self, part: slice, a: tf.Tensor, delta: tf.Tensor) -> tf.Tensor:
        """`[b * L, g * C * K]` for a range of C: one product per example and group."""
        delta = delta[:, :, :, part]
        batch, outputs, groups, channels, positions = delta.shape
        delta = tf.transpose(delta, [0, 2, 1, 3, 4]) if groups > 1 else delta
        delta = tf.reshape(delta, [batch, groups, outputs * channels, positions])
        gradients = tf.matmul(delta, a)
        if groups > 1:
            size = channels * self.shape.inputs
            gradients = tf.reshape(gradients, [batch, groups, outputs, size])
            gradients = tf.transpose(gradients, [0, 2, 1, 3])
        return tf.reshape(gradients, [batch * outputs, -1])


class Positions(Contraction):
    """Pairs of positions, summed over one position first; one group only."""

    def operations(self) -> float:
        """Operations for one entry of Theta."""
        s, outputs = self.shape, self.outputs
        return (
            2.0 * s.positions * s.channels * (s.positions / outputs + 1)
            + 2.0 * s.positions**2 * s.inputs / outputs**2
        )

    def store(self, a, kept):
        """See `Contraction.store`: a `[b, P, K]` and delta `[b, L, C, P]`."""
        return a[:, 0], kept[:, :, 0]

    def parts(self, rows: Sequence[int], scratch: float) -> list[int]:
        """The steps: row blocks."""
        del scratch
        return list(range(len(rows)))

    def contract(self, part: int, rows, cols, pairs, add: Add) -> None:
        """Add a row block's part for the given pairs of row and column blocks."""
        numbers = sorted(rows)
        if part >= len(numbers):
            return
        i = numbers[part]
        for row, j in pairs:
            if row == i:
                for offset, tile in self._tiles(*rows[i], *cols[j]):
                    add(i, j, offset, tile)

    def _tiles(self, a_rows, delta_rows, a_cols, delta_cols):
        """Theta's part for a few rows at a time, and the first of them."""
        count, (positions, channels) = a_cols.shape[0], (self.shape.positions, self.shape.channels)
        width = max(1, min(channels, PIECE // positions))
        number_size = a_rows.dtype.size
        per_row = count * positions * max(positions, self.outputs * width) * number_size
        for some in _slices(a_rows.shape[0], max(1, _SCRATCH // per_row)):
            kernel = self._input_kernel(a_rows[some], a_cols)
            total = None
            for part in _slices(channels, width):
                tile = self._contract(kernel, delta_rows[some, :, part], delta_cols[:, :, part])
                tile = tile if width >= channels else tf.cast(tile, tf.float64)
                total = tile if total is None else total + tile
            yield some.start, total

    def _input_kernel(self, a_rows, a_cols):
        """<a_i(p), a_j(q)> as `[i, j, q, p]`."""
        (left, positions, inputs), right = a_rows.shape, a_cols.shape[0]
        products = inner_products(
            tf.reshape(a_rows, [-1, inputs]), tf.reshape(a_cols, [-1, inputs])
        )
        products = tf.cast(products, a_rows.dtype)
        products = tf.reshape(products, [left, positions, right, positions])
        return tf.transpose(products, [0, 2, 3, 1])

    def _contract(self, kernel, delta_rows, delta_cols):
        """Sum over q, then over p and the given channels: `[i * L, j * L]`."""
        left, right = kernel.shape[:2]
        flat = tf.reshape(delta_cols, [1, right, -1, self.shape.positions])
        summed = tf.reshape(tf.matmul(flat, kernel), [left, right * self.outputs, -1])
        delta_rows = tf.reshape(delta_rows, [left, self.outputs, -1])
        tile = tf.matmul(delta_rows, summed, transpose_b=True)
        return tf.reshape(tile, [left * self.outputs, -1])


class Outer(Contraction):
    """One position: the Gram of delta times that of a, element by element; one group only."""

    def operations(self) -> float:
        """Operations for one entry of Theta."""
        return 2.0 * self.shape.channels + 2.0 * self.shape.inputs / self.outputs**2

    def store(self, a, kept):
        """See `Contraction.store`: a `[b, K]` and delta `[b * L, C]`."""
        return a[:, 0, 0], tf.reshape(kept, [-1, self.shape.channels])

    def parts(self, rows: Sequence[int], scratch: float) -> list[int]:
        """The steps: one."""
        del rows, scratch
        return [0]

    def contract(self, part: int, rows, cols, pairs, add: Add) -> None:
        """Add the part for the given pairs of row and column blocks."""
        del part
        outputs = self.outputs
        for i, j in pairs:
            (a_rows, delta_rows), (a_cols, delta_cols) = rows[i], cols[j]
            inputs = inner_products(a_rows, a_cols)[:, None, :, None]
            deltas = inner_products(delta_rows, delta_cols)
            left, right = a_rows.shape[0], a_cols.shape[0]
            deltas = tf.reshape(deltas, [left, outputs, right, outputs])
            if inputs.dtype != deltas.dtype:
                inputs, deltas = tf.cast(inputs, tf.float64), tf.cast(deltas, tf.float64)
            add(i, j, 0, tf.reshape(inputs * deltas, [left * outputs, right * outputs]))


def choose(shape: Shape, outputs: int, examples: int) -> Contraction:
    """The contraction that needs the fewest operations for the Gram of some examples.

    Grouped layers have few weights, so per-example gradients serve them best. These are stored
    as such where they take no more memory than the factors they are made of.
    """
    gradients = (
        Gradients(shape, outputs)
        if shape.inputs <= shape.positions
        else StreamedGradients(shape, outputs)
    )
    if shape.groups > 1:
        return gradients
    other = Outer(shape, outputs) if shape.positions == 1 else Positions(shape, outputs)
    forming = 2.0 * shape.positions * shape.weights / (examples * outputs)
    return other if other.operations() < gradients.operations() + forming else gradients


def inner_products(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """A B^T for A `[r, q]` and B `[s, q]`, in float64 where q is more than one piece."""
    slices = _slices(a.shape[1], PIECE)
    if len(slices) == 1:
        return tf.matmul(a, b, transpose_b=True)
    total = tf.zeros((a.shape[0], b.shape[0]), tf.float64)
    for part in slices:
        product = tf.matmul(a[:, part], b[:, part], transpose_b=True)
        total += tf.cast(product, tf.float64)
    return total


def _add_products(left, right, pairs: Iterable[tuple[int, int]], add: Add) -> None:
    for i, j in pairs:
        add(i, j, 0, inner_products(left[i], right[j]))


def _slices(size: int, most: int) -> list[slice]:
    """Ranges of nearly equal length, at most `most`, that make up `size`."""
    count = -(-size // most)
    bounds = [size * k // count for k in range(count + 1)]
    return [slice(start, stop) for start, stop in zip(bounds, bounds[1:], strict=False)]
