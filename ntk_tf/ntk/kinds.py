"""What is kept of the kernel of all outputs with each other, and at what cost.

A kernel of R functions of the L outputs is computed from R cotangents `[R, L]`, one backward pass
each. Of the pairs of these functions a kind keeps every one, or each function with itself, apart
or summed.
"""

import dataclasses
import enum
from collections.abc import Sequence

import numpy as np

#: What may be asked for of a model's outputs: a kind's name, an output's number, or a vector `[L]`.
Outputs = str | int | Sequence[float] | np.ndarray

NAMES = ("full", "trace", "diagonal", "sum")


class Pairing(enum.Enum):
    """Which pairs of the R functions are kept."""

    EVERY = "every one with each"
    SUMMED = "each with itself, summed"
    EACH = "each with itself"


@dataclasses.dataclass(frozen=True, eq=False)
class Kind:
    """A kernel of functions of a model's outputs.

    Attributes:
        cotangents: the functions' coefficients `[R, L]`.
        pairing: which of their pairs are kept.
        shown: whether the result has axes for every pair, however few there are.
        factor: of the result; not in the coefficients, which a model in half precision would round.
    """

    cotangents: np.ndarray
    pairing: Pairing
    shown: bool = False
    factor: float = 1.0

    @property
    def functions(self) -> int:
        """R, the number of backward passes."""
        return len(self.cotangents)

    @property
    def rows(self) -> int:
        """Rows that an example gives."""
        return self.functions if self.pairing is Pairing.EVERY else 1

    @property
    def entries(self) -> int:
        """Numbers kept for a pair of examples."""
        return self.rows**2 * (self.functions if self.pairing is Pairing.EACH else 1)

    def shape(self, n: int, m: int) -> tuple[int, ...]:
        """In which it is computed: `[n R, m R]`, `[n, m]`, or `[R, n, m]` for each with itself."""
        planes = (self.functions,) if self.pairing is Pairing.EACH else ()
        return (*planes, n * self.rows, m * self.rows)

    def result(self, computed: np.ndarray) -> np.ndarray:
        """As users get it: `[n, L, m, L]`, `[n, m]`, or `[n, m, L]`, a view of what is changed."""
        if self.factor != 1:
            computed *= self.factor
        if self.pairing is Pairing.EACH:
            return np.moveaxis(computed, 0, -1)
        if not self.shown:
            return computed
        rows = self.rows
        n, m = (size // rows for size in computed.shape)
        return computed.reshape(n, rows, m, rows)


def kind_of(outputs: Outputs, count: int) -> Kind:
    """The kind that `gram`'s argument `outputs` stands for, of a model with L = `count` outputs.

    The trace is the mean over outputs as in neural-tangents (`trace_axes=(-1,)`); the sum is that
    of (1 / sqrt L) sum_l f_l, the pseudo-NTK of Mohamadi, Bae and Sutherland (2023), "A fast,
    well-founded approximation to the empirical neural tangent kernel".

    Raises:
        ValueError: for another name, a number that no output has, or a vector of another length.
    """
    check(outputs)
    if isinstance(outputs, str):
        return _named(outputs, count)
    if np.ndim(outputs) == 0:
        number = int(outputs)
        if number != outputs or not 0 <= number < count:
            raise ValueError(f"outputs={outputs}: the model's outputs are 0 to {count - 1}")
        return Kind(np.eye(count)[[number]], Pairing.EVERY)
    vector = np.asarray(outputs, np.float64)
    if vector.shape != (count,):
        raise ValueError(f"outputs of shape {vector.shape}: a vector must have shape ({count},)")
    if not np.isfinite(vector).all():
        raise ValueError(f"outputs={vector}: a vector must be finite")
    _, power = np.frexp(np.abs(vector).max())  # so that no square leaves the range of float32
    return Kind(
        np.ldexp(vector, -power)[None], Pairing.EVERY, factor=float(np.ldexp(1.0, 2 * power))
    )


def check(outputs: Outputs) -> None:
    """Refuse what can be for no model.

    Raises:
        ValueError: for an unknown name.
    """
    wrong = outputs is None or isinstance(outputs, bool | np.bool_)
    if wrong or (isinstance(outputs, str) and outputs not in NAMES):
        raise ValueError(
            f"outputs={outputs!r}: must be {', '.join(map(repr, NAMES))}, an output's number or a"
            " vector"
        )


def _named(name: str, count: int) -> Kind:
    if name == "sum":
        return Kind(np.ones((1, count)), Pairing.EVERY, factor=1 / count)
    if name == "trace":
        return Kind(np.eye(count), Pairing.SUMMED, factor=1 / count)
    if name == "diagonal":
        return Kind(np.eye(count), Pairing.EACH)
    return Kind(np.eye(count), Pairing.EVERY, shown=True)
