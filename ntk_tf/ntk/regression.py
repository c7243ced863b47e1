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

    def predict(self, cross: np.ndarray, offset: np.ndarray) -> np.ndarray:
        """What is predicted elsewhere: f(x') + Theta(x', x) alpha.

        Args:
            cross: Theta(x', x), `[m, L, n, L]` or `[m L, n L]`; `[m, n]` if the Gram was `[n, n]`.
            offset: f(x') `[m, L]`, the outputs at u = 0.

        Returns:
            `[m, L]`.

        Raises:
            ValueError: for shapes that do not belong together.
        """
        cross, offset = np.asarray(cross), np.asarray(offset)
        of_each = cross.shape == (len(offset), len(self.dual))  # one kernel for each output
        of_all = cross.size == offset.size * self.dual.size
        if offset.shape[1:] != self.dual.shape[1:] or not (of_each or of_all):
            raise ValueError(
                f"kernel {cross.shape} and outputs {offset.shape} do not belong to a regression of"
                f" targets {self.dual.shape}"
            )
        if of_each:
            return offset + cross @ self.dual
        return offset + (cross.reshape(offset.size, -1) @ self.dual.ravel()).reshape(offset.shape)


def kernel_regression(
    gram: np.ndarray,
    targets: np.ndarray,
    offset: np.ndarray | None = None,
    ridge: float = 0.0,
    precision: str = "float32",
) -> Regression:
    """Minimize the linearized model's L2 loss with weight decay, exactly.

    With T(u) = f + A u, the loss |T(u) - y|^2 / (n L) + (ridge / 2) |u|^2 is that of training with
    mean squared error and weight decay `ridge`. Its minimizer is u = A^T alpha with

        (Theta + (ridge n L / 2) I) alpha = y - f,

    for ridge 0 the limit of gradient descent from u = 0: the shortest u of least loss. There
    eigenvalues of Theta that rounding alone can make count as 0; see `rounding`.

    Args:
        gram: Theta `[n, L, n, L]`, float64; or `[n, n]`, one kernel for each of the outputs.
        targets: y `[n, L]`.
        offset: f `[n, L]`, the outputs at u = 0; None for 0, the regression on the kernel alone.
        ridge: weight decay, at least 0.
        precision: of the model and of the Gram's products, whichever is lower.

    Returns:
        The solution.

    Raises:
        ValueError: for a negative ridge, an unknown precision, shapes that do not belong
            together, or targets that are the numbers of classes.
    """
    if not ridge >= 0:
        raise ValueError(f"ridge={ridge}: must be at least 0")
    matrix = square(np.asarray(gram))
    targets = as_targets(targets)
    offset = np.zeros(targets.shape) if offset is None else np.asarray(offset)
    if targets.shape != offset.shape or len(matrix) not in (targets.size, len(targets)):
        raise ValueError(
            f"targets {targets.shape} and outputs {offset.shape} do not belong to a Gram with"
            f" {len(matrix)} rows"
        )
    residual = targets - offset
    residual = residual if len(matrix) < residual.size else residual.ravel()
    alpha = _solve(matrix, ridge * targets.size / 2, residual, rounding(matrix, precision))
    fitted = offset + (matrix @ alpha).reshape(offset.shape)
    return Regression(alpha.reshape(offset.shape), fitted)


def as_targets(targets: np.ndarray) -> np.ndarray:
    """Targets as float64; the numbers of several classes are none.

    Raises:
        ValueError: for those.
    """
    targets = np.asarray(targets)
    if targets.ndim == 1 and targets.dtype.kind in "iu" and len(np.unique(targets)) > 2:
        raise ValueError(
            f"targets of integers {targets.min()} to {targets.max()}: numbers of classes have no"
            " size; must be one-hot [n, L], or floating-point"
        )
    return targets.astype(np.float64)


def rounding(matrix: np.ndarray, precision: str) -> float:
    """Size of the eigenvalues that rounding makes of zeros in a Gram Theta.

    Each entry is a product of gradients, wrong by about eps |g_i| |g_j| at random, however exactly
    the products are summed. A symmetric matrix of such errors has the norm 2 eps tr(Theta) /
    sqrt(rows) (Wigner's semicircle); measured on kernels of known rank it is a sixth of that.

    Args:
        matrix: Theta `[rows, rows]`.
        precision: `float32` or `float64`.

    Returns:
        The bound, for float64 at least that of LAPACK's eigenvalues.

    Raises:
        ValueError: for another precision.
    """
    if precision not in ("float32", "float64"):
        raise ValueError(f"precision={precision!r}: must be 'float32' or 'float64'")
    trace, rows = float(np.trace(matrix)), len(matrix)
    of_products = 2 * float(np.finfo(precision).eps) * trace / rows**0.5
    return max(of_products, float(np.finfo(np.float64).eps) * trace)


def _solve(matrix: np.ndarray, shift: float, b: np.ndarray, noise: float) -> np.ndarray:
    """(matrix + shift I)^-1 b; the pseudo-inverse's solution where that is singular."""
    shifted = matrix.copy(order="F")
    shifted[np.diag_indices_from(shifted)] += shift
    norm = float(np.abs(shifted).sum(axis=0).max())
    try:
        factor = scipy.linalg.cho_factor(shifted, lower=True, overwrite_a=True)
    except np.linalg.LinAlgError:
        return _pseudo_solve(matrix, shift, b, noise)
    # An estimate of 1 / |inverse|_1, which is at most the smallest eigenvalue.
    reciprocal, _ = scipy.linalg.lapack.dpocon(factor[0], norm, uplo="L")
    if shift <= noise and reciprocal * norm <= noise:
        return _pseudo_solve(matrix, shift, b, noise)
    solution = scipy.linalg.cho_solve(factor, b)
    # One step of refinement: Theta's condition is that of A squared.
    return solution + scipy.linalg.cho_solve(factor, b - matrix @ solution - shift * solution)


def _pseudo_solve(matrix: np.ndarray, shift: float, b: np.ndarray, noise: float) -> np.ndarray:
    """As `_solve`, leaving out eigenvalues that are 0 but for rounding."""
    values, vectors = scipy.linalg.eigh(matrix)
    # Of a Gram all are positive but by rounding, which the most negative one shows.
    kept = values + shift > max(noise, -values[0])
    vectors = vectors[:, kept]
    return (vectors / (values[kept] + shift)) @ (vectors.T @ b)


def accuracy(outputs: np.ndarray, labels: np.ndarray) -> float:
    """The share of examples whose largest output is their label's.

    Args:
        outputs: `[n, L]`.
        labels: integers `[n]`.
    """
    return float(np.mean(outputs.argmax(axis=1) == labels))
