"""How a Gram is computed within a memory budget: what is held at one time, and what is not."""

import dataclasses
from collections.abc import Iterator, Sequence

from ntk_tf.ntk.contract import even_slices
from ntk_tf.ntk.kinds import Pairing
from ntk_tf.ntk.pieces import Piece, Survey, divided, of_functions

#: Rows of Theta that a block of examples gives, twice as many for large Grams: enough for matrix
#: products at full speed, and few enough that computing only half of a symmetric matrix's blocks
#: saves nearly half of the work.
_BLOCK_ROWS = 512
#: Weights without a rule that are worth a pass of their own.
_FEWEST = 4096
#: Parts of the budget for the gradients of `StreamedGradients` and for a forward pass.
_SCRATCH, _FORWARD = 0.2, 0.15


class BudgetError(ValueError):
    """A memory budget that does not hold the Gram."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """The division of the work.

    Attributes:
        row_blocks: ranges of the first set's examples.
        col_blocks: ranges of the second set's, the same if there is none.
        symmetric: whether there is but one set.
        groups: pieces whose factors are held at one time.
        batch: most examples that go through the model at one time.
        held: most row blocks, and as many column blocks, held at one time.
        scratch: numbers that the gradients of a part may take.
    """

    row_blocks: list[slice]
    col_blocks: list[slice]
    symmetric: bool
    groups: list[list[Piece]]
    batch: int
    held: int
    scratch: float

    def passes(self) -> Iterator[tuple[list[Piece], range, range]]:
        """Pieces, numbers of row blocks and of column blocks to hold together."""
        for group in self.groups:
            for start in range(0, len(self.row_blocks), self.held):
                rows = range(start, min(start + self.held, len(self.row_blocks)))
                end = rows.stop if self.symmetric else len(self.col_blocks)
                for other in range(0, end, self.held):
                    yield group, rows, range(other, min(other + self.held, end))

    def pairs(self, rows: range, cols: range) -> list[tuple[int, int]]:
        """The pairs of blocks to compute: with one set, those on or below the diagonal."""
        return [(i, j) for i in rows for j in cols if not self.symmetric or j <= i]


def make_plan(
    known: Survey,
    rows: int,
    cols: int | None,
    memory_gib: float,
    number_size: int,
    results: int = 1,
) -> Plan:
    """Divide the work so that it takes about a given amount of memory.

    The result itself comes first; then factors of as many pieces and examples as fit, since each
    further pass repeats forward and backward propagation. Functions that are not paired with each
    other may come one after the other, which repeats only the former.

    Args:
        known: the model's survey.
        rows: examples of the first set.
        cols: examples of the second set; None if there is none.
        memory_gib: the budget.
        number_size: bytes of a number of the factors.
        results: number of kernels kept.

    Returns:
        The plan.

    Raises:
        BudgetError: if the budget does not even hold the result.
    """
    kind, other = known.kind, rows if cols is None else cols
    gram = 8.0 * rows * other * kind.entries * results
    numbers = (memory_gib * 2**30 - gram) / number_size
    if numbers <= 0:
        raise BudgetError(
            f"memory_gib={memory_gib:g}: the Gram of {rows} x {other} examples with"
            f" {kind.functions} outputs alone takes {gram / 2**30:.3g} GiB"
        )
    counts = [kind.functions]
    if kind.pairing is not Pairing.EVERY:
        counts = list(dict.fromkeys(-(-kind.functions // k) for k in range(1, kind.functions + 1)))
    for count in counts:
        plan = _with_functions(known, count, rows, cols, numbers)
        if plan.held == max(len(plan.row_blocks), len(plan.col_blocks)):
            break
    return plan


def _with_functions(known: Survey, count: int, rows: int, cols: int | None, numbers: float) -> Plan:
    """The plan with at most so many functions at one time."""
    kind, other = known.kind, rows if cols is None else cols
    room = (1 - _SCRATCH - _FORWARD) * numbers
    # Of what has no rule, all examples' gradients in some weights are held, not some examples' in
    # all: that takes half as many passes. And two examples fit at least.
    examples = rows + (cols or 0)
    most = max(_FEWEST, int(min(room / examples, _FORWARD * numbers / 2) / count))
    divisions = [
        [part for piece in of_functions(known, some) for part in divided(piece, kind, most)]
        for some in even_slices(kind.functions, count)
    ]
    stored = {p.name: p.contraction.stored() for pieces in divisions for p in pieces}
    forward = max(sum(_forward(piece, count) for piece in pieces) for pieces in divisions)
    block_rows = _BLOCK_ROWS if rows * kind.rows < 8 * _BLOCK_ROWS else 2 * _BLOCK_ROWS
    size = min(
        max(1, block_rows // kind.rows),
        max(1, int(room / (3 * max(stored.values())))),
    )
    batch = min(size, max(1, int(_FORWARD * numbers / forward)))
    twice = 1.4 * size if batch < size else 0  # while batches are joined, roughly
    row_blocks, col_blocks = even_slices(rows, size), even_slices(other, size)
    held = max(len(row_blocks), len(col_blocks))
    while held > 1 and max(stored.values()) * (_examples(held, size, rows, cols) + twice) > room:
        held = -(-held // 2)
    most_stored = room / (_examples(held, size, rows, cols) + twice)
    groups = [group for pieces in divisions for group in _pack(pieces, stored, most_stored)]
    return Plan(row_blocks, col_blocks, cols is None, groups, batch, held, _SCRATCH * numbers)


def _forward(piece: Piece, outputs: int) -> float:
    """Numbers that one example's forward and backward pass needs for a piece, roughly."""
    s = piece.contraction.shape
    if piece.layer is None:
        return 2.0 * outputs * s.weights
    kept = piece.contraction.stored()
    return 2.0 * s.groups * s.positions * (s.inputs + 4 * s.channels) + kept


def _examples(held: int, size: int, rows: int, cols: int | None) -> int:
    """Examples whose factors are held at one time."""
    if cols is None:
        return rows if held * size >= rows else 2 * held * size
    return min(rows, held * size) + min(cols, held * size)


def _pack(pieces: Sequence[Piece], stored: dict[str, int], most: float) -> list[list[Piece]]:
    """Consecutive pieces together, as long as they store at most so much for an example."""
    groups: list[list[Piece]] = []
    filled = most
    for piece in pieces:
        if filled + stored[piece.name] > most:
            groups.append([])
            filled = 0.0
        groups[-1].append(piece)
        filled += stored[piece.name]
    return groups
