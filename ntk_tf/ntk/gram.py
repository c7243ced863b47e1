"""The empirical NTK of a model: structured, blocked, exact."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ntk_tf.ntk.contract import StreamedGradients
from ntk_tf.ntk.pieces import Features, Piece, survey
from ntk_tf.ntk.plan import Plan, free_memory, make_plan

#: The name under which steps report the forward and backward passes.
PROPAGATION = "propagation"


@dataclasses.dataclass(frozen=True)
class Step:
    """What has just been done, for a callback.

    Attributes:
        name: the layer, or `PROPAGATION`.
        done: number of steps done, those of an earlier process included.
        total: number of all steps.
        seconds: that the step took.
        operations: multiplications and additions in its matrix products; None for propagation.
        gram: float64 `[n L, m L]`, the sum so far; read it, keep a copy.
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
        gram: its last `Step.gram`.
        memory_gib: its budget, which fixes the order of the steps.
    """

    done: int
    gram: np.ndarray
    memory_gib: float


def gram(
    model: keras.Model,
    x: np.ndarray,
    x2: np.ndarray | None = None,
    *,
    memory_gib: float | None = None,
    precision: str = "float32",
    after_step: Callable[[Step], None] | None = None,
    partial: Partial | None = None,
) -> np.ndarray:
    """The neural tangent kernel at the model's present weights, in inference mode.

    Theta[i,l,j,m] = <grad_w f_l(x_i), grad_w f_m(x'_j)>, w all trainable weights; nothing is
    averaged. Samarin, Roth and Belius (2020), section 2, with A A^T = Theta.

    The model must treat each example by itself, as all do in inference mode.

    Args:
        model: maps `[b, ...]` to one tensor with L outputs an example.
        x: inputs `[n, ...]`.
        x2: inputs x' `[m, ...]`; None for x.
        memory_gib: what may be used, the result included; None for half of what is free.
        precision: of the factors and of their products; `float32` products are summed in float64
            every 8192 terms. The gradients have the model's own precision.
        after_step: called after every part of the work.
        partial: go on from here; the model, inputs and precision must be the same.

    Returns:
        float64 `[n, L, m, L]`; for one set exactly symmetric.

    Raises:
        ValueError: for a model without trainable weights or with several outputs, no inputs, an
            unknown precision, or a budget that does not hold the result.
    """
    kernel = GramFunction(model, precision)
    return kernel(x, x2, memory_gib=memory_gib, after_step=after_step, partial=partial)


class _Survey:
    """What is known of a model for inputs of some shape."""

    def __init__(self, model: keras.Model, precision: str, pieces: list[Piece], outputs: int):
        self.model, self.precision = model, precision
        self.pieces, self.outputs = pieces, outputs
        self._features: dict[tuple[str, ...], Features] = {}

    def features(self, group: list[Piece]) -> Features:
        """What computes the factors of some pieces; made once, since tracing takes seconds."""
        names = tuple(piece.name for piece in group)
        if names not in self._features:
            self._features[names] = Features(self.model, group, self.precision)
        return self._features[names]


class GramFunction:
    """`gram` of one model, many times: what a call has found out and traced serves the next.

    It follows the weights, but not other changes of the model, such as layers frozen or replaced.

    Args:
        model: see `gram`.
        precision: see `gram`.

    Raises:
        ValueError: for an unknown precision.
    """

    def __init__(self, model: keras.Model, precision: str = "float32"):
        if precision not in ("float32", "float64"):
            raise ValueError(f"precision={precision!r}: must be 'float32' or 'float64'")
        self.model, self.precision = model, precision
        self._surveys: dict[Any, _Survey] = {}

    def __call__(
        self,
        x: np.ndarray,
        x2: np.ndarray | None = None,
        *,
        memory_gib: float | None = None,
        after_step: Callable[[Step], None] | None = None,
        partial: Partial | None = None,
    ) -> np.ndarray:
        """The Gram for one or two sets of inputs; see `gram`.

        Raises:
            ValueError: see `gram`.
        """
        if len(x) == 0 or (x2 is not None and len(x2) == 0):
            raise ValueError("the NTK needs at least one example")
        if partial is not None:
            memory_gib = partial.memory_gib
        elif memory_gib is None:
            memory_gib = free_memory() / 2
        with _exact_products():
            known = self._survey(x)
            cols = None if x2 is None else len(x2)
            size = np.dtype(self.precision).itemsize
            plan = make_plan(known.pieces, known.outputs, len(x), cols, memory_gib, size)
            result = _Work(plan, known, (x, x if x2 is None else x2), after_step).run(partial)
        return result.reshape(len(x), known.outputs, -1, known.outputs)

    def _survey(self, x: np.ndarray) -> _Survey:
        key = (len(x), x.shape[1:], x.dtype)
        if key not in self._surveys:
            pieces, outputs = survey(self.model, x[:2], len(x))
            self._surveys[key] = _Survey(self.model, self.precision, pieces, outputs)
        return self._surveys[key]


@contextlib.contextmanager
def _exact_products() -> Iterator[None]:
    """Multiply float32 matrices as such: GPUs would round factors to 10 bits (TF32)."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


class _Work:
    """The execution of a plan, step by step."""

    def __init__(self, plan: Plan, known: _Survey, inputs, after_step):
        self.plan, self.known, self.outputs = plan, known, known.outputs
        self.inputs = inputs
        self.after_step = after_step or (lambda step: None)
        self.total_steps = sum(1 + len(self._parts(*p[:2])) for p in plan.passes())

    def run(self, partial: Partial | None) -> np.ndarray:
        """Carry out all steps but those done; `[n L, m L]`.

        Raises:
            ValueError: if the partial Gram is of another shape.
        """
        x, x2 = self.inputs
        shape = len(x) * self.outputs, len(x2) * self.outputs
        self.done = self.skip = 0
        self.gram = np.zeros(shape)
        if partial is not None:
            if partial.gram.shape != shape:
                raise ValueError(f"partial.gram has shape {partial.gram.shape}, not {shape}")
            self.gram, self.skip = partial.gram, partial.done
        for group, rows, cols in self.plan.passes():
            self._pass(group, rows, cols)
        if self.plan.symmetric:
            _mirror(self.gram, self.plan.row_blocks, self.outputs)
        return self.gram

    def _parts(self, group: list[Piece], rows: range) -> list[tuple[Piece, object]]:
        sizes = [_length(self.plan.row_blocks[i]) for i in rows]
        return [
            (piece, part)
            for piece in group
            for part in piece.contraction.parts(sizes, self.plan.scratch)
        ]

    def _pass(self, group: list[Piece], rows: range, cols: range) -> None:
        parts = self._parts(group, rows)
        if self.done + 1 + len(parts) <= self.skip:
            self.done += 1 + len(parts)
            return
        started = time.perf_counter()
        features = self.known.features(group)
        x, x2 = self.inputs
        left = {i: features(x[self.plan.row_blocks[i]]) for i in rows}
        same = left if self.plan.symmetric else {}
        right = {j: same.get(j) or features(x2[self.plan.col_blocks[j]]) for j in cols}
        self._finish(PROPAGATION, started, None)
        pairs = self.plan.pairs(rows, cols)
        for piece, part in parts:
            if self.done >= self.skip:
                started = time.perf_counter()
                self._contract(piece, part, left, right, pairs)
                self._finish(piece.name, started, self._operations(piece, left, right, pairs))
            else:
                self.done += 1

    def _contract(self, piece: Piece, part, left, right, pairs) -> None:
        rows = {i: stored[piece.name] for i, stored in left.items()}
        cols = {
            j: rows[j] if left.get(j) is stored else stored[piece.name]
            for j, stored in right.items()
        }
        piece.contraction.contract(part, rows, cols, pairs, self._add)

    def _operations(self, piece: Piece, left, right, pairs) -> float:
        """Operations of one of a piece's parts, on average."""
        entries = sum(
            _length(self.plan.row_blocks[i]) * _length(self.plan.col_blocks[j]) for i, j in pairs
        )
        contraction = piece.contraction
        operations = contraction.operations() * entries * self.outputs**2
        if isinstance(contraction, StreamedGradients):
            blocks = [self.plan.row_blocks[i] for i in left]
            blocks += [self.plan.col_blocks[j] for j, s in right.items() if left.get(j) is not s]
            operations += contraction.streaming() * sum(map(_length, blocks))
        sizes = [_length(self.plan.row_blocks[i]) for i in left]
        return operations / len(contraction.parts(sizes, self.plan.scratch))

    def _add(self, i: int, j: int, offset: int, tile: tf.Tensor) -> None:
        row = (self.plan.row_blocks[i].start + offset) * self.outputs
        col = self.plan.col_blocks[j].start * self.outputs
        self.gram[row : row + tile.shape[0], col : col + tile.shape[1]] += tile.numpy()

    def _finish(self, name: str, started: float, operations: float | None) -> None:
        self.done += 1
        seconds = time.perf_counter() - started
        step = Step(name, self.done, self.total_steps, seconds, operations, self.gram)
        if self.done > self.skip:
            self.after_step(step)


def _mirror(matrix: np.ndarray, blocks: list[slice], outputs: int) -> None:
    """Copy what is below the diagonal to above it, in place and block by block."""
    for rows in blocks:
        r = slice(rows.start * outputs, rows.stop * outputs)
        for cols in blocks:
            c = slice(cols.start * outputs, cols.stop * outputs)
            if cols.start < rows.start:
                matrix[c, r] = matrix[r, c].T
        square = matrix[r, r]
        matrix[r, r] = np.tril(square) + np.tril(square, -1).T


def _length(block: slice) -> int:
    return block.stop - block.start
