"""The empirical NTK of a model: structured, blocked, exact."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ntk_tf.linearization.products import exact_products
from ntk_tf.ntk.contract import Stored, even_slices, sum_of_products
from ntk_tf.ntk.inputs import Inputs, as_arrays, key, length, take
from ntk_tf.ntk.kinds import Outputs, Pairing, check
from ntk_tf.ntk.pieces import Features, Piece, StructureError, Survey, survey
from ntk_tf.ntk.plan import Plan, make_plan
from ntk_tf.process.memory import budget

#: A block of examples: the stored factors by the pieces' names.
Block = dict[str, Stored]

#: The name under which steps report the forward and backward passes.
PROPAGATION = "propagation"


@dataclasses.dataclass(frozen=True)
class Step:
    """What has just been done, for a callback.

    Attributes:
        name: the layer, several joined by ` + ` whose sum was added at once, or `PROPAGATION`.
        done: number of steps done, those of an earlier process included.
        total: number of all steps.
        seconds: that the step took.
        operations: multiplications and additions in its matrix products; None for propagation.
        gram: float64, the sum so far, `[n L, m L]` for all outputs; read it, keep a copy.
    """

    name: str
    done: int
    total: int
    seconds: float
    operations: float | None
    gram: np.ndarray


@dataclasses.dataclass(frozen=True)
class Partial:
    """Where an earlier computation was interrupted.

    Attributes:
        done: its last `Step.done`.
        total: its `Step.total`.
        gram: its last `Step.gram`.
        memory_gib: its budget, which fixes the order of the steps.
    """

    done: int
    total: int
    gram: np.ndarray
    memory_gib: float


class PartialError(ValueError):
    """An interrupted computation that cannot go on, since its work was divided otherwise."""


def gram(
    model: keras.Model,
    x: Inputs,
    x2: Inputs | None = None,
    outputs: Outputs = "full",
    layers: str | Sequence[str] | None = None,
    per_layer: bool = False,
    *,
    memory_gib: float | None = None,
    precision: str | None = None,
    after_step: Callable[[Step], None] | None = None,
    partial: Partial | None = None,
) -> np.ndarray | dict[str, np.ndarray]:
    """The neural tangent kernel at the model's present weights, in inference mode.

    Theta[i,l,j,m] = <grad_w f_l(x_i), grad_w f_m(x'_j)>, w all trainable weights; nothing is
    averaged. Samarin, Roth and Belius (2020), section 2, with A A^T = Theta. Of it `outputs` keeps

    - `full`: everything, `[n, L, m, L]`;
    - `trace`: (1/L) sum_l Theta[i,l,j,l], `[n, m]`;
    - `diagonal`: Theta[i,l,j,l], `[n, m, L]`;
    - `sum`: (1/L) sum_lm Theta[i,l,j,m], the kernel of (1 / sqrt L) sum_l f_l, `[n, m]`;
    - a number l: Theta[i,l,j,l], `[n, m]`;
    - a vector v `[L]`: sum_lm v_l v_m Theta[i,l,j,m], the kernel of v . f, `[n, m]`.

    Time and memory are those of what is kept.

    The model must treat each example by itself, as all do in inference mode.

    Args:
        model: maps inputs with examples on the first axis to one tensor with L outputs an example.
        x: inputs `[n, ...]`, a structure of such, or a batched dataset; see `inputs.as_arrays`.
        x2: inputs x' `[m, ...]`, of any precision and size that the model takes; None for x.
        outputs: what is kept.
        layers: only the weights of layers with such a name or path, and of those within them;
            patterns such as `conv*` are allowed, and several of them.
        per_layer: keep the layers' parts, whose sum is the kernel, apart.
        memory_gib: what may be used, the result included; None for half of what is free.
        precision: of the factors and of their products; `float32` products are summed in float64
            every `contract.PIECE` terms. None for `float64` where a weight is, else `float32`.
        after_step: called after each step; may raise to stop.
        partial: an interrupted computation of the same, which is taken over and changed.

    Returns:
        float64, as above; for one set exactly symmetric. With `per_layer` a dictionary of such by
        the layers' paths.

    Raises:
        ValueError: for a model without trainable weights or with several outputs, no inputs, an
            unknown precision, `outputs` or `layers` that the model has not, a budget that does not
            hold the result, an interrupted computation of something else, or weights that an
            operation without a derivative hides.
    """
    kernel = GramFunction(model, precision, outputs, layers, per_layer)
    return kernel(x, x2, memory_gib=memory_gib, after_step=after_step, partial=partial)


class _Traced:
    """A survey, and what has been traced for it."""

    def __init__(self, model: keras.Model, precision: str, known: Survey):
        self.model, self.precision, self.known = model, precision, known
        self._features: dict[tuple[str, ...], Features] = {}
        self._sums: dict[tuple[str, ...], Callable] = {}

    def features(self, group: list[Piece]) -> Features:
        """What computes the factors of some pieces; made once, since tracing takes seconds."""
        names = tuple(piece.name for piece in group)
        if names not in self._features:
            self._features[names] = Features(self.model, self.known, group, self.precision)
        return self._features[names]

    def sum_of_products(self, group: list[Piece]) -> Callable:
        """A graph of `sum_of_products` for some pieces."""
        names = tuple(piece.name for piece in group)
        if names not in self._sums:
            contractions = [piece.contraction for piece in group]
            self._sums[names] = tf.function(
                functools.partial(sum_of_products, contractions), autograph=False
            )
        return self._sums[names]


class GramFunction:
    """`gram` of one model, many times: what a call has found out and traced serves the next.

    It follows the weights, but not other changes of the model, such as layers frozen or replaced.

    Args:
        model: see `gram`.
        precision: see `gram`.
        outputs: see `gram`.
        layers: see `gram`.
        per_layer: see `gram`.

    Raises:
        ValueError: for an unknown precision or name of outputs.
    """

    def __init__(
        self,
        model: keras.Model,
        precision: str | None = None,
        outputs: Outputs = "full",
        layers: str | Sequence[str] | None = None,
        per_layer: bool = False,
    ):
        if precision is None:
            double = any(w.dtype == "float64" for w in model.trainable_weights)
            precision = "float64" if double else "float32"
        if precision not in ("float32", "float64"):
            raise ValueError(f"precision={precision!r}: must be 'float32' or 'float64'")
        check(outputs)
        self.model, self.precision = model, precision
        self.per_layer = per_layer
        self._wanted = {"outputs": outputs, "layers": layers, "per_layer": per_layer}
        self._surveys: dict[tuple, _Traced] = {}
        self._without: list[keras.Layer] = []

    def __call__(
        self,
        x: Inputs,
        x2: Inputs | None = None,
        *,
        memory_gib: float | None = None,
        after_step: Callable[[Step], None] | None = None,
        partial: Partial | None = None,
    ) -> np.ndarray | dict[str, np.ndarray]:
        """The Gram for one or two sets of inputs; see `gram`.

        Raises:
            ValueError: see `gram`.
        """
        x = as_arrays(x)
        x2 = None if x2 is None else as_arrays(x2)
        if partial is not None:
            memory_gib = partial.memory_gib
        elif memory_gib is not None and not 0 < memory_gib < math.inf:
            raise ValueError(f"memory_gib={memory_gib}: must be above 0, and finite")
        with exact_products():
            while True:
                try:
                    return self._compute(x, x2, memory_gib, after_step, partial)
                except StructureError as error:
                    self._without.append(error.layer)
                    self._surveys.clear()

    def _compute(self, x, x2, memory_gib, after_step, partial):
        traced = self._survey(x, x2)
        known = traced.known
        owners = list(dict.fromkeys(piece.owner for piece in known.pieces))
        results = owners if self.per_layer else []
        cols = None if x2 is None else length(x2)
        if memory_gib is None:
            memory_gib = budget(8 * length(x) * (cols or length(x)) * known.kind.entries)
        size = np.dtype(self.precision).itemsize
        plan = make_plan(known, length(x), cols, memory_gib, size, max(1, len(results)))
        work = _Work(plan, traced, (x, x if x2 is None else x2), results, after_step)
        computed = work.run(partial)
        if not self.per_layer:
            return known.kind.result(computed)
        return {name: known.kind.result(part) for name, part in zip(results, computed, strict=True)}

    def _survey(self, x: Inputs, x2: Inputs | None) -> _Traced:
        name = length(x), key(x), None if x2 is None else key(x2)
        if name not in self._surveys:
            known = survey(
                self.model,
                _few(x),
                length(x),
                x2=None if x2 is None else _few(x2),
                without=self._without,
                **self._wanted,
            )
            self._surveys[name] = _Traced(self.model, self.precision, known)
        return self._surveys[name]


class _Work:
    """The execution of a plan, step by step.

    A step is a row of blocks of one `_Sum`.
    """

    def __init__(self, plan: Plan, traced: _Traced, sets, results: list[str], after_step):
        self.plan, self.traced, self.kind = plan, traced, traced.known.kind
        self.sets, self.results = sets, results
        self.after_step = after_step or (lambda step: None)
        self.total_steps = sum(
            1 + len(rows) * len(self._sums(group, rows, cols))
            for group, rows, cols in plan.passes()
        )

    def run(self, partial: Partial | None) -> np.ndarray:
        """Carry out all steps but those done; the kernel as `Kind.shape` says, or one a layer.

        Raises:
            PartialError: if the partial Gram is of another shape or another division of the work.
        """
        x, x2 = self.sets
        shape = self.kind.shape(length(x), length(x2))
        if self.results:
            shape = (len(self.results), *shape)
        self.done = self.skip = 0
        self.gram = np.zeros(shape)
        if partial is not None:
            if partial.gram.shape != shape:
                raise PartialError(f"partial.gram has shape {partial.gram.shape}, not {shape}")
            if partial.total != self.total_steps:
                raise PartialError(f"divided into {partial.total} steps, not {self.total_steps}")
            self.gram, self.skip = partial.gram, partial.done
        for group, rows, cols in self.plan.passes():
            self._pass(group, rows, cols)
        if self.plan.symmetric:
            for plane in self.gram.reshape(-1, *shape[-2:]):
                _mirror(plane, self.plan.row_blocks, self.kind.rows)
        return self.gram

    def _sums(self, group: list[Piece], rows: range, cols: range) -> list["_Sum"]:
        """All parts of some pieces: together those that are all of a piece, then the others."""
        blocks = [self.plan.row_blocks[i] for i in rows]
        if not (self.plan.symmetric and rows == cols):
            blocks += [self.plan.col_blocks[j] for j in cols]
        examples = sum(map(_length, blocks))
        whole, others = [], []
        for piece in group:
            parts = piece.contraction.parts(examples, self.plan.scratch)
            if len(parts) == 1 and not self.results:
                whole.append((piece, parts[0]))
            else:
                others += [_Sum(self.traced, [(piece, part)], 1 / len(parts)) for part in parts]
        return ([_Sum(self.traced, whole, 1.0)] if whole else []) + others

    def _pass(self, group: list[Piece], rows: range, cols: range) -> None:
        sums = self._sums(group, rows, cols)
        if self.done + 1 + len(rows) * len(sums) <= self.skip:
            self.done += 1 + len(rows) * len(sums)
            return
        started = time.perf_counter()
        features = self.traced.features(group)
        x, x2 = self.sets
        left = {i: self._block(features, group, x, self.plan.row_blocks[i]) for i in rows}
        same = left if self.plan.symmetric else {}
        right = {
            j: same.get(j) or self._block(features, group, x2, self.plan.col_blocks[j])
            for j in cols
        }
        self._finish(PROPAGATION, started, None)
        pairs = self.plan.pairs(rows, cols)
        for tile_of in sums:
            for row in rows:
                if self.done < self.skip:
                    self.done += 1
                    continue
                started, before = time.perf_counter(), tile_of.operations
                for i, j in pairs:
                    if i == row:
                        self._add(i, j, tile_of, tile_of(left[i], right[j]))
                self._finish(tile_of.name, started, tile_of.operations - before)
            tile_of.prepared.clear()

    def _block(self, features: Features, group: list[Piece], x: Inputs, rows: slice) -> Block:
        """The factors of a block, which may take several batches."""
        batches = even_slices(_length(rows), self.plan.batch)
        found = [features(take(take(x, rows), some)) for some in batches]
        if len(found) == 1:
            return found[0]
        return {  # piece by piece, so that hardly more than once all is held
            piece.name: piece.contraction.joined([part.pop(piece.name) for part in found])
            for piece in group
        }

    def _add(self, i: int, j: int, tile_of: "_Sum", tile: np.ndarray) -> None:
        gram = self.gram[self.results.index(tile_of.owner)] if self.results else self.gram
        if self.kind.pairing is Pairing.EACH:
            gram = gram[tile_of.functions or slice(None)]
        row = self.plan.row_blocks[i].start * self.kind.rows
        col = self.plan.col_blocks[j].start * self.kind.rows
        gram[..., row : row + tile.shape[-2], col : col + tile.shape[-1]] += tile

    def _finish(self, name: str, started: float, operations: float | None) -> None:
        self.done += 1
        seconds = time.perf_counter() - started
        if self.done > self.skip:
            self.after_step(Step(name, self.done, self.total_steps, seconds, operations, self.gram))


class _Sum:
    """Parts of some pieces' contractions whose sum is added to the Gram at once.

    Args:
        traced: the model's survey.
        summands: the pieces, and which part of each.
        share: of the pieces' operations that these parts take.

    Attributes:
        name: the pieces'.
        owner: the first one's, as are the functions.
        operations: done so far.
        prepared: what has been prepared so far, by the block's and the piece's numbers.
    """

    def __init__(self, traced: _Traced, summands: list[tuple[Piece, Any]], share: float):
        self.summands, self.share = summands, share
        pieces = [piece for piece, _ in summands]
        self.name = " + ".join(piece.name for piece in pieces)
        self.owner, self.functions = pieces[0].owner, pieces[0].functions
        self.product = traced.sum_of_products(pieces)
        self.operations = 0.0
        self.prepared: dict[tuple[int, int], Stored] = {}

    def __call__(self, left: Block, right: Block) -> np.ndarray:
        """The sum for two blocks; see `Contraction.product`."""
        tile = self.product(self._prepare(left), self._prepare(right))
        per_entry = sum(piece.contraction.operations() for piece, _ in self.summands)
        self.operations += self.share * per_entry * tile.shape.num_elements()
        return tile.numpy()

    def _prepare(self, block: Block) -> list[Stored]:
        for number, (piece, part) in enumerate(self.summands):
            if (id(block), number) not in self.prepared:
                stored = block[piece.name]
                self.prepared[id(block), number] = piece.contraction.prepare(part, stored)
                self.operations += self.share * piece.contraction.preparing(stored)
        return [self.prepared[id(block), number] for number in range(len(self.summands))]


def _mirror(matrix: np.ndarray, blocks: list[slice], outputs: int) -> None:
    """Copy what is below the diagonal to above it, in place and block by block."""
    for rows in blocks:
        r = slice(rows.start * outputs, rows.stop * outputs)
        for cols in blocks:
            c = slice(cols.start * outputs, cols.stop * outputs)
            if cols.start < rows.start:
                matrix[c, r] = matrix[r, c].T
        square = matrix[r, r]
        np.copyto(square, square.T.copy(), where=np.tri(len(square), k=-1, dtype=bool).T)


def _few(x: Inputs) -> Inputs:
    """Two examples apart from each other: those at the beginning may all be of one kind."""
    return take(x, [0, length(x) // 2])


def _length(block: slice) -> int:
    return block.stop - block.start
