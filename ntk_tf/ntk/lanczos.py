"""Eigenvalues, trace and effective rank of a kernel from products with it.

The largest eigenvalues come from Lanczos' method, sums over all of them from stochastic Lanczos
quadrature. For a symmetric Theta and a random vector z of independent signs, E[z^T f(Theta) z] =
tr f(Theta) (Hutchinson 1990). m steps of Lanczos from z give a tridiagonal T with eigenvalues
theta_k, and |z|^2 sum_k tau_k^2 f(theta_k), tau_k the first elements of T's eigenvectors, is the
m-point Gauss quadrature of z^T f(Theta) z (Ubaru, Chen and Saad 2017, "Fast estimation of tr(f(A))
via stochastic Lanczos quadrature"). The few largest eigenvalues, which make most of the variance,
are taken out first (as in Meyer et al. 2021, "Hutch++").

Small eigenvalues beyond the reach of m steps bias Gauss' rule: it has too much of a function like
the root, whose even derivatives are negative. The same T with one more row, chosen so that 0 is a
node, is Gauss-Radau's rule, which has too little (Golub and Meurant 2010, "Matrices, Moments and
Quadrature", section 6.2), and from further away where many eigenvalues are small. Gauss' rule is
taken, and half of the difference is its error.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import scipy.linalg
import scipy.sparse.linalg


def top_eigenvalues(
    operator: scipy.sparse.linalg.LinearOperator,
    count: int,
    *,
    tolerance: float = 1e-7,
    seed: int = 0,
    after_product: Callable[[], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The largest eigenvalues and their vectors, by implicitly restarted Lanczos (ARPACK).

    Args:
        operator: symmetric `[rows, rows]`, such as `KernelOperator`.
        count: k, less than the number of rows.
        tolerance: relative accuracy of the eigenvalues, as far as the products have it.
        seed: of the first vector.
        after_product: called after each product; may raise to stop.

    Returns:
        Eigenvalues `[k]`, descending, and vectors `[rows, k]` of length 1.

    Raises:
        ValueError: if `count` is not between 1 and one less than the number of rows.
        ArpackError: if it does not converge.
    """
    rows = operator.shape[0]
    if not 1 <= count < rows:
        raise ValueError(f"count={count}: must be at least 1 and less than the {rows} rows")

    def matvec(v):
        result = operator.matvec(v)
        if after_product is not None:
            after_product()
        return result

    wrapped = scipy.sparse.linalg.LinearOperator(operator.shape, matvec, dtype=np.float64)
    start = np.random.default_rng(seed).standard_normal(rows)
    try:
        values, vectors = scipy.sparse.linalg.eigsh(
            wrapped, count, which="LA", v0=start, tol=tolerance
        )
    except scipy.sparse.linalg.ArpackError:
        if wrapped.matvec(start).any():
            raise
        return np.zeros(count), np.eye(rows, count)  # of zero any vectors are
    return values[::-1], vectors[:, ::-1]


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What random probes say about a kernel.

    Attributes:
        trace: tr Theta.
        trace_error: its standard error.
        effective_rank: see `spectrum.effective_rank`, of the square roots of the eigenvalues.
        effective_rank_error: its error, that of the random vectors and of the quadrature together.
        quadrature_error: the quadrature's part of it, which falls with the steps: the value lies
            up to twice that below, but for the random vectors' error.
        probes: number of random vectors.
        products: with Theta, in all.
    """

    trace: float
    trace_error: float
    effective_rank: float
    effective_rank_error: float
    quadrature_error: float
    probes: int
    products: int


def estimate_spectrum(
    operator: scipy.sparse.linalg.LinearOperator,
    probes: int = 16,
    steps: int = 40,
    deflate: int = 20,
    seed: int = 0,
) -> Estimate:
    """Trace and effective rank by stochastic Lanczos quadrature, with their errors.

    With S = tr Theta^(1/2) and H = tr Theta^(1/2) log Theta^(1/2), the effective rank is
    exp(log S - H / S). The error of the probes' means is taken to first order (the delta method),
    that of the quadrature is half of the difference between Gauss' and Gauss-Radau's rule; the
    root of the sum of their squares is given. The trace has no quadrature error.

    Args:
        operator: symmetric and positive semidefinite `[rows, rows]`, such as `KernelOperator`.
        probes: number of random vectors, at least 2.
        steps: m, products for each of them.
        deflate: number of largest eigenvalues that are computed, and left to no chance.
        seed: of the vectors.

    Returns:
        The estimates.

    Raises:
        ValueError: for fewer than 2 probes, less than one step, as many eigenvalues as rows, or
            an operator that is zero.
    """
    if probes < 2 or steps < 1:
        raise ValueError(f"probes={probes}, steps={steps}: at least 2 and 1 are needed")
    rows, products = operator.shape[0], 0
    if not 0 <= deflate < rows:
        raise ValueError(f"deflate={deflate}: must be at least 0 and less than the {rows} rows")

    def count() -> None:
        nonlocal products
        products += 1

    top, vectors = np.zeros(0), np.zeros((rows, 0))
    if deflate:
        top, vectors = top_eigenvalues(operator, deflate, seed=seed, after_product=count)
    exact = _functions(top).sum(axis=1)
    rng = np.random.default_rng(seed)
    samples = []
    for _ in range(probes):
        start = _without(vectors, rng.choice([-1.0, 1.0], rows))
        rules = _quadratures(operator, start, steps, vectors, count)
        samples.append([exact + _functions(values) @ weights for values, weights in rules])
    (trace, *means), (_, *radau) = np.mean(samples, axis=0)
    total, entropy = means
    if not total > 0:
        raise ValueError("the operator is zero, which has no effective rank")
    covariance = np.cov(np.array(samples)[:, 0].T) / probes
    rank = _rank(*means)
    slope = rank * np.array([0, 1 / total + entropy / total**2, -1 / total])
    quadrature = abs(rank - _rank(*radau)) / 2
    return Estimate(
        trace=float(trace),
        trace_error=float(np.sqrt(covariance[0, 0])),
        effective_rank=rank,
        effective_rank_error=float(np.hypot(np.sqrt(slope @ covariance @ slope), quadrature)),
        quadrature_error=quadrature,
        probes=probes,
        products=products,
    )


def _rank(total: float, entropy: float) -> float:
    """The effective rank, from the sums over all eigenvalues of s and of s log s."""
    return float(np.exp(np.log(total) - entropy / total))


def _functions(eigenvalues: np.ndarray) -> np.ndarray:
    """Eigenvalues, their roots s, and s log s: `[3, k]`."""
    roots = np.sqrt(np.maximum(eigenvalues, 0))
    return np.stack([eigenvalues, roots, roots * np.log(np.where(roots > 0, roots, 1))])


def _without(vectors: np.ndarray, v: np.ndarray) -> np.ndarray:
    """V without its part in the span of some vectors; twice is enough for rounding."""
    for _ in range(2):
        v = v - vectors @ (vectors.T @ v)
    return v


def _quadratures(
    operator, start: np.ndarray, steps: int, deflated: np.ndarray, after_product
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Nodes and weights for start^T f(operator) start, outside of a deflated space.

    By Gauss' and by Gauss-Radau's rule.
    """
    norm = np.linalg.norm(start)
    if norm == 0:  # it lies in the deflated space
        return 2 * [(np.zeros(1), np.zeros(1))]
    rows, first = deflated.shape
    basis = np.empty((rows, first + steps), order="F")
    basis[:, :first] = deflated
    basis[:, first] = start / norm
    diagonal: list[float] = []
    beside: list[float] = []
    while True:
        last = first + len(diagonal)
        w = operator.matvec(basis[:, last])
        after_product()
        diagonal.append(float(w @ basis[:, last]))
        w = _without(basis[:, : last + 1], w)
        length = float(np.linalg.norm(w))
        exhausted = last + 1 == rows or length <= 1e-10 * abs(diagonal[0])
        if exhausted or last + 1 == first + steps:
            break
        beside.append(length)
        basis[:, last + 1] = w / length
    values, vectors = scipy.linalg.eigh_tridiagonal(diagonal, beside)
    gauss = values, norm**2 * vectors[0] ** 2
    if exhausted:
        return [gauss, gauss]
    # the element that makes 0 an eigenvalue: of the last row of T^-1, see Golub and Meurant
    least = np.finfo(float).eps * values[-1]
    corner = length**2 * (vectors[-1] ** 2 / np.maximum(values, least)).sum()
    values, vectors = scipy.linalg.eigh_tridiagonal([*diagonal, corner], [*beside, length])
    return [gauss, (values, norm**2 * vectors[0] ** 2)]
