"""Kernel regression whose ridge is chosen by leave-one-out, which has a closed form."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy.linalg

from ntk_tf.ntk.regression import Regression, as_targets
from ntk_tf.ntk.spectrum import square

#: What is tried, as parts of the kernel's mean on the diagonal.
RELATIVE_SHIFTS = tuple(float(shift) for shift in np.logspace(-8, 2, 41))


@dataclasses.dataclass(frozen=True)
class Choice:
    """A regression with the best ridge.

    Attributes:
        regression: the solution.
        ridge: weight decay; see `kernel_regression`.
        error: mean squared error of the left-out.
        eigenvalues: of the kernel, `[rows]`, descending.
    """

    regression: Regression
    ridge: float
    error: float
    eigenvalues: np.ndarray


def leave_one_out(
    gram: np.ndarray, targets: np.ndarray, relative_shifts: Sequence[float] = RELATIVE_SHIFTS
) -> Choice:
    """Kernel regression with the ridge that is best for examples left out.

    With G = Theta + s I and alpha = G^-1 y, the error at example i of the regression on all others
    is alpha_i / (G^-1)_ii (Rifkin and Lippert 2007, "Notes on regularized least squares"). Of a
    kernel of all outputs an example has L rows, which are left out together, and (G^-1)_ii is
    their block `[L, L]`.

    Args:
        gram: Theta `[n, n]`, or `[n, L, n, L]` or `[n L, n L]` for all outputs; float64.
        targets: y `[n, L]`.
        relative_shifts: shifts s to try, as parts of Theta's mean on the diagonal.

    Returns:
        The regression with the shift that has the least mean squared error; of equal ones the
        first.

    Raises:
        ValueError: if the targets do not belong to the kernel, are not finite or the numbers of
            classes, or no shift makes it positive definite.
    """
    if not len(relative_shifts):
        raise ValueError("relative_shifts=(): must hold at least one")
    targets = as_targets(targets)
    matrix, n = square(gram), len(targets)
    if len(matrix) not in (n, targets.size):
        raise ValueError(f"targets {targets.shape} do not belong to a kernel {matrix.shape}")
    values, vectors = scipy.linalg.eigh(matrix)
    rotated = vectors.T @ targets.reshape(len(matrix), -1)
    shifts = [part * float(np.trace(matrix)) / len(matrix) for part in relative_shifts]
    errors = [_error(values + shift, vectors, rotated, n) for shift in shifts]
    best = int(np.argmin(errors))
    if not np.isfinite(errors[best]):
        raise ValueError(
            f"relative_shifts={tuple(relative_shifts)}: none makes the kernel positive definite, or"
            " the targets are not finite"
        )
    alpha = vectors @ (rotated / (values + shifts[best])[:, None])
    fitted = (matrix @ alpha).reshape(targets.shape)
    regression = Regression(alpha.reshape(targets.shape), fitted)
    return Choice(regression, 2 * shifts[best] / targets.size, errors[best], values[::-1])


def _error(values: np.ndarray, vectors: np.ndarray, rotated: np.ndarray, n: int) -> float:
    """Mean squared error of the left-out; infinite if the shift does not reach above 0."""
    if values[0] <= 0:
        return float("inf")
    alpha = vectors @ (rotated / values[:, None])
    blocks = vectors.reshape(n, -1, len(values))
    inverse = (blocks / values) @ blocks.transpose(0, 2, 1)
    errors = np.linalg.solve(inverse, alpha.reshape(n, blocks.shape[1], -1))
    return float(np.mean(errors**2))
