"""Kernel regression: where training the linearized model to the end arrives."""

import dataclasses

import numpy as np
import scipy.linalg

from ntk_tf.ntk.spectrum import square


@dataclasses.dataclass(frozen=True)
class Regression:
    """The solution of a kernel regression.

    Attributes:
        dual: alpha `[n, L]`; the minimizer is u = A^T alpha.
        fitted: what is predicted at the training examples, `[n, L]`.
    """

    dual: np.ndarray
    fitted: np.ndarray


def kernel_regression(
    gram: np.ndarray, targets: np.ndarray, offset: np.ndarray, ridge: float = 0.0
) -> Regression:
    """Minimize the linearized model's L2 loss with weight decay, exactly.

    With T(u) = f + A u, the loss |T(u) - y|^2 / (n L) + (ridge / 2) |u|^2 is that of training with
    `--loss=l2 --weight_decay=ridge`. Its minimizer is u = A^T alpha with

        (Theta + (ridge n L / 2) I) alpha = y - f,

    for ridge 0 the limit of gradient descent from u = 0: the shortest u of least loss.

    Args:
        gram: Theta `[n, L, n, L]`, float64.
        targets: y `[n, L]`.
        offset: f `[n, L]`, the outputs at u = 0.
        ridge: weight decay, at least 0.

    Returns:
        The solution.

    Raises:
        ValueError: for a negative ridge or shapes that do not belong together.
    """
    if not ridge >= 0:
        raise ValueError(f"ridge={ridge}: must be at least 0")
    matrix = square(gram)
    if targets.shape != offset.shape or targets.size != len(matrix):
        raise ValueError(
            f"targets {targets.shape} and outputs {offset.shape} do not belong to a Gram with"
            f" {len(matrix)} rows"
        )
    residual = np.ravel(np.asarray(targets, np.float64) - offset)
    shift = ridge * len(matrix) / 2
    alpha = _solve(matrix, shift, residual)
    fitted = offset + (matrix @ alpha).reshape(offset.shape)
    return Regression(alpha.reshape(offset.shape), fitted)


def _solve(matrix: np.ndarray, shift: float, b: np.ndarray) -> np.ndarray:
    """(matrix + shift I)^-1 b; the pseudo-inverse's solution where that is singular."""
    shifted = matrix.copy(order="F")
    shifted[np.diag_indices_from(shifted)] += shift
    try:
        factor = scipy.linalg.cho_factor(shifted, lower=True, overwrite_a=True)
    except np.linalg.LinAlgError:
        return _pseudo_solve(matrix, shift, b)
    solution = scipy.linalg.cho_solve(factor, b)
    # One step of refinement: Theta's condition is that of A squared.
    return solution + scipy.linalg.cho_solve(factor, b - matrix @ solution - shift * solution)


def _pseudo_solve(matrix: np.ndarray, shift: float, b: np.ndarray) -> np.ndarray:
    """As `_solve`, leaving out eigenvalues that are 0 but for rounding."""
    values, vectors = scipy.linalg.eigh(matrix)
    values = values + shift
    kept = values > len(matrix) * np.finfo(np.float64).eps * values[-1]
    vectors = vectors[:, kept]
    return vectors @ ((vectors.T @ b) / values[kept])
