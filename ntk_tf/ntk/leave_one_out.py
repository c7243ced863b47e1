"""Kernel regression whose ridge is chosen by leave-one-out, which has a closed form."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy.linalg

from ntk_tf.ntk.regression import Regression
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
        eigenvalues: of the kernel, `[n]`, descending.
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
    is alpha_i / (G^-1)_ii (Rifkin and Lippert 2007, "Notes on regularized least squares").

    Args:
        gram: Theta `[n, n]`, float64.
        targets: y `[n, L]`.
        relative_shifts: shifts s to try, as parts of Theta's mean on the diagonal.

    Returns:
        The regression with the shift that has the least mean squared error; of equal ones the
        first.

    Raises:
        ValueError: if the targets do not belong to the kernel.
    """
    matrix = square(gram)
    if len(matrix) != len(targets):
        raise ValueError(f"targets {targets.shape} do not belong to a kernel {matrix.shape}")
    values, vectors = scipy.linalg.eigh(matrix)
    rotated = vectors.T @ targets
    shifts = [part * float(np.trace(matrix)) / len(matrix) for part in relative_shifts]
    errors = [_error(values + shift, vectors, rotated) for shift in shifts]
    best = int(np.argmin(errors))
    alpha = vectors @ (rotated / (values + shifts[best])[:, None])
    regression = Regression(alpha, matrix @ alpha)
    return Choice(regression, 2 * shifts[best] / targets.size, errors[best], values[::-1])


def _error(values: np.ndarray, vectors: np.ndarray, rotated: np.ndarray) -> float:
    """Mean squared error of the left-out; infinite if the shift does not reach above 0."""
    if values[0] <= 0:
        return float("inf")
    alpha = vectors @ (rotated / values[:, None])
    diagonal = (vectors**2) @ (1 / values)
    return float(np.mean((alpha / diagonal[:, None]) ** 2))
