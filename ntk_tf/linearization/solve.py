"""Where training the linearization ends: ridge regression on all the data, without its Gram.

The minimizer has (J^T J + lambda I) u = J^T (y - f); see `ridge`. Conjugate gradients (Hestenes and
Stiefel 1952) need one product with that matrix a step, which is a pass over the data.

The preconditioner takes a few examples for all n: (n / m) J_S^T J_S + mu I, whose inverse needs no
more than a Cholesky factor of their Gram. FALKON (Rudi, Carratino and Rosasco 2017) solves kernel
regression so; here what is solved stays the whole regression.

Several weight decays share one sequence of passes where there is no preconditioner: J^T J has the
same Krylov space with every multiple of I added, and residuals that point the same way (Frommer
2003, "BiCGStab(l) for families of shifted linear systems", section 2; Jegerlehner 1996).
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import scipy  # whose parts load where they are used
import tensorflow as tf

from ntk_tf.linearization.operator import batch_ranges
from ntk_tf.linearization.products import exact_products
from ntk_tf.linearization.ridge import Ridge

#: Passes after which the residual is computed anew, since what is updated drifts by rounding.
REFRESH = 20
#: Least part of a Gram's trace in its diagonal's shift, above what float32 makes of zero.
_LEAST = 1e-7
#: So many times the least residual is no detour of the method any more, but what rounding does.
_ASTRAY = 1e4

Precondition = Callable[[tf.Tensor], tf.Tensor]


class NotFiniteError(ValueError):
    """A regression whose outputs, targets or gradients are not finite."""


def preconditioner(
    ridge: Ridge, x: np.ndarray, gram: np.ndarray, examples: int, batch_size: int = 100
) -> "Preconditioner":
    """The preconditioner from the Gram of a few examples.

    Its mu is 2 (lambda + l) with l the smallest eigenvalue of the Gram times n / m: below that the
    few examples know no direction, and mu = lambda would trust their noise.

    Args:
        ridge: the regression.
        x: the examples `[m, ...]`.
        gram: their Theta `[m, L, m, L]`, as of `ntk.gram`.
        examples: n.
        batch_size: examples a product.

    Returns:
        The preconditioner.

    Raises:
        ValueError: if the Gram is not of these examples, or is not positive semidefinite.
        NotFiniteError: a ValueError, if it is not finite.
    """
    rows = gram.shape[0] * gram.shape[1] if gram.ndim == 4 else 0
    if gram.size != rows**2 or len(gram) != len(x):
        raise ValueError(f"gram {gram.shape}: must be [m, L, m, L] of the {len(x)} examples")
    gram = gram.reshape(rows, rows)
    if not np.isfinite(gram).all():
        raise NotFiniteError(
            "the preconditioner's Gram is not finite: the model's gradients are not, or overflow"
        )
    shift = max(ridge.shifts[0] * len(x) / examples, _LEAST * (np.trace(gram) or 1.0))
    shift = 2 * _smallest_eigenvalue(_cholesky(gram, shift))
    return Preconditioner(ridge, x, _cholesky(gram, shift), batch_size)


class Preconditioner:
    """v - J_S^T (Theta_S + shift I)^-1 J_S v, that is mu / ((n / m) J_S^T J_S + mu I).

    J_S is never held: J_S v takes a forward derivative over the m examples, J_S^T c a backward
    pass.

    Args:
        ridge: the regression.
        x: the m examples S.
        factor: lower Cholesky factor `[m L, m L]` of Theta_S + shift I, shift = mu m / n; what is
            above its diagonal is not read.
        batch_size: examples a product.
    """

    def __init__(self, ridge: Ridge, x: np.ndarray, factor: np.ndarray, batch_size: int = 100):
        self.ridge, self.factor = ridge, factor
        self.batches = [x[part] for part in batch_ranges(len(x), batch_size)]

    def __call__(self, v: tf.Tensor) -> tf.Tensor:
        """The product with a vector `[p]`."""
        tangents = self.ridge.tangents(v, self.batches)
        solved = scipy.linalg.cho_solve((self.factor, True), tangents.ravel(), check_finite=False)
        return v - self.ridge.pullback(solved.reshape(tangents.shape), self.batches)


@dataclasses.dataclass(frozen=True)
class State:
    """Where conjugate gradients are: all that the next step depends on.

    There are s weight decays, the smallest first. The residual of the i-th is zeta_i r.

    Attributes:
        u: the solutions so far `[s, p]`.
        r: the residual J^T (y - f) - (J^T J + lambda I) u of the smallest `[p]`.
        p: the directions of the next step `[s, p]`.
        outputs: T(u) of all examples, those that are watched last, float64 `[s, n + m, L]`.
        tangents: J times the directions of the last step, float64 `[s, n + m, L]`.
        zeta: factors `[s]`.
        ratio: of zeta to that of the step before `[s]`.
        betas: parts of the last directions in the next `[s]`.
        length: of the last step.
        rz: r^T z with z the preconditioned residual.
        norm: |r| at the start.
        passes: over the data.
        residuals: |zeta_i r| relative to |r| at the start `[s]`.
        best: the solutions where the largest of these was smallest `[s, p]`.
        least: what that was.
        drifted: the residual where the recurrence was last found to be wrong.
        exhausted: whether the precision holds no smaller residual.
    """

    u: tf.Tensor
    r: tf.Tensor
    p: tf.Tensor
    outputs: np.ndarray
    tangents: np.ndarray
    zeta: np.ndarray
    ratio: np.ndarray
    betas: np.ndarray
    length: float
    rz: float
    norm: float
    passes: int
    residuals: np.ndarray
    best: tf.Tensor
    least: float
    drifted: float = math.inf
    exhausted: bool = False

    @property
    def residual(self) -> float:
        """The largest of the residuals."""
        return float(self.residuals.max())


class ConjugateGradients:
    """Preconditioned conjugate gradients, step by step, for one or several weight decays.

    Of one, the residual is computed anew every `REFRESH` passes and before it is first said to be
    small enough. Where it is not what the recurrence says, the method begins anew there, and where
    that has happened before at hardly more, rounding allows no less. Of several it follows from the
    recurrence, and `confirm` computes it at the end. Where rounding leads far astray, the method
    goes back to its smallest residual, and begins anew there or, of several, ends.

    Args:
        ridge: the regression.
        precondition: maps r to z; None for none.
        tolerance: what residual is small enough.

    Raises:
        ValueError: for a preconditioner of several weight decays.
    """

    def __init__(self, ridge: Ridge, precondition: Precondition | None, tolerance: float):
        if precondition is not None and len(ridge.shifts) > 1:
            raise ValueError(f"{len(ridge.shifts)} weight decays: cannot have a preconditioner")
        self.ridge, self.tolerance = ridge, tolerance
        self.precondition = precondition or tf.identity
        self.offsets = ridge.shifts - ridge.shifts[0]

    def start(self) -> State:
        """At `Ridge.origin`, after one pass.

        Raises:
            NotFiniteError: if the residual is not finite.
        """
        u, count = self.ridge.origin(), len(self.offsets)
        r, outputs = self.ridge.residual(u)
        norm = _norm(r)
        residuals = np.full(count, _finite(norm / (norm or 1.0), 1))
        outputs = np.repeat(outputs[None], count, axis=0)
        return self._beginning(_repeated(u, count), r, outputs, residuals, norm, passes=1)

    def _beginning(self, u, r, outputs, residuals, norm, passes, **more) -> State:
        """A state whose next step is along the residual."""
        z, count = self.precondition(r), len(residuals)
        return State(
            u=u,
            r=r,
            p=_repeated(z, count),
            outputs=outputs,
            tangents=np.zeros_like(outputs),
            zeta=np.ones(count),
            ratio=np.ones(count),
            betas=np.zeros(count),
            length=1.0,
            rz=dot(r, z),
            norm=norm,
            passes=passes,
            residuals=residuals,
            best=u,
            least=float(residuals.max()),
            **more,
        )

    def _back(self, state: State, passes: int) -> State:
        """At the smallest residual so far, which is computed anew."""
        r, outputs, residuals = self._anew(state.best, state.norm)
        residual, count = float(residuals.max()), len(residuals)
        return self._beginning(
            *(state.best, r, outputs, residuals, state.norm, passes + count),
            drifted=residual,
            exhausted=count > 1 or residual > state.drifted / 2,
        )

    def _anew(self, u: tf.Tensor, norm: float) -> tuple[tf.Tensor, np.ndarray, np.ndarray]:
        """Of solutions `[s, p]`, a pass each: r of the first, and outputs and residuals of all."""
        found = [self.ridge.residual(one, i) for i, one in enumerate(u)]
        residuals = np.array([_norm(r) / (norm or 1.0) for r, _ in found])
        return found[0][0], np.stack([outputs for _, outputs in found]), residuals

    def step(self, state: State) -> State:
        """One step on: a pass, or more where residuals are computed anew.

        Raises:
            NotFiniteError: if the residual is not finite, or the direction's curvature no number
                above 0, before any step has made the residual smaller.
        """
        product, tangent = self.ridge.product(state.p[0])
        curvature = dot(state.p[0], product)
        if not curvature > 0:
            if state.least < 1:
                return self._back(state, state.passes + 1)
            raise NotFiniteError(
                f"the curvature along step {state.passes} is {curvature:g}: the model's gradients"
                f" are not finite, or too small or too large for {state.r.dtype.name}"
            )
        length = state.rz / curvature
        # Frommer 2003, (2.3) to (2.6), by the ratios of zeta, which do not underflow.
        memory = length * state.betas[0] / state.length
        ratio = 1 / (1 + self.offsets * length + memory * (1 - state.ratio))
        tangents = self._tangents(state, tangent)
        u = state.u + _column(length * ratio, state.u.dtype) * state.p
        outputs = state.outputs + (length * ratio)[:, None, None] * tangents
        r = state.r - tf.constant(length, state.r.dtype) * product  # a cast would be of a float32
        zeta = state.zeta * ratio
        passes, residual = state.passes + 1, _norm(r) / state.norm
        restart = False
        small = residual <= self.tolerance < state.residual
        if len(zeta) == 1 and (passes % REFRESH == 0 or small):
            r, renewed = self.ridge.residual(u[0])
            said, residual = residual, _norm(r) / state.norm
            outputs, passes = renewed[None], passes + 1
            restart = residual > 2 * said or said <= self.tolerance < residual
        residuals = zeta * residual
        if state.least < 1 and not residuals.max() <= _ASTRAY * state.least:
            return self._back(state, passes)
        better = restart or _finite(residuals.max(), passes) < state.least
        z = self.precondition(r)
        rz = dot(r, z)
        betas = (0.0 if restart else rz / state.rz) * ratio**2
        return State(
            u=u,
            r=r,
            p=_column(zeta, z.dtype) * z + _column(betas, z.dtype) * state.p,
            outputs=outputs,
            tangents=tangents,
            zeta=zeta,
            ratio=ratio,
            betas=betas,
            length=length,
            rz=rz,
            norm=state.norm,
            passes=passes,
            residuals=residuals,
            best=u if better else state.best,
            least=float(residuals.max()) if better else state.least,
            drifted=residual if restart else state.drifted,
            exhausted=restart and residual > state.drifted / 2,
        )

    def _tangents(self, state: State, tangent: np.ndarray) -> np.ndarray:
        """J times the directions, from that of the smallest weight decay."""
        along_z = tangent - state.betas[0] * state.tangents[0]
        found = state.zeta[:, None, None] * along_z + state.betas[:, None, None] * state.tangents
        found[0] = tangent
        return found

    def confirm(self, state: State) -> State:
        """The same with residuals and outputs that are computed anew, a pass for each."""
        _, outputs, residuals = self._anew(state.u, state.norm)
        passes = state.passes + len(residuals)
        return dataclasses.replace(state, outputs=outputs, passes=passes, residuals=residuals)


@dataclasses.dataclass(frozen=True)
class Solution:
    """A minimizer.

    Attributes:
        weight_decay: whose it is.
        u: tensors of the weights' shapes.
        passes: over the data that it took, together with those that were found with it.
        residual: norm of the loss' gradient relative to that at the start.
    """

    weight_decay: float
    u: list[tf.Tensor]
    passes: int
    residual: float


def solve(
    model: keras.Model,
    x: np.ndarray,
    y: np.ndarray,
    weight_decay: float,
    **options: Any,
) -> Solution:
    """Minimize the linearization's mean squared error with weight decay over all examples.

    Args:
        model: as of `solve_each`.
        x: inputs `[n, ...]`.
        y: targets `[n, L]`.
        weight_decay: as of SGD whose gradient it is added to; at least 0.
        **options: as of `solve_each`.

    Returns:
        The solution, of the residual that was reached.

    Raises:
        ValueError: as `solve_each`.
    """
    return solve_each(model, x, y, [weight_decay], **options)[0]


@exact_products()
def solve_each(
    model: keras.Model,
    x: np.ndarray,
    y: np.ndarray,
    weight_decays: Sequence[float],
    *,
    decay_toward: str = "initialization",
    centered: bool = False,
    gram: np.ndarray | None = None,
    tolerance: float = 1e-4,
    max_passes: int = 1000,
    batch_size: int = 100,
    after_step: Callable[[State], None] | None = None,
) -> list[Solution]:
    """Minimize mean squared error for several weight decays, by passes that all of them share.

    Args:
        model: a built Keras model f of one output, linearized at its present weights.
        x: inputs `[n, ...]`.
        y: targets `[n, L]`.
        weight_decays: at least one; different, of at least 0.
        decay_toward: what decays: `initialization` for u, `zero` for the weights w0 + u. Of `zero`
            and several weight decays, 0 is the limit of small ones.
        centered: leave out f, so that T(u) = J u.
        gram: Theta `[m, L, m, L]` of the first m examples, from `ntk.gram(model, x[:m])`, for the
            preconditioner of one weight decay; None for none.
        tolerance: stops at such residuals, or where the weights' precision holds no smaller ones.
        max_passes: stops at so many passes, or a few more that compute residuals anew.
        batch_size: examples a product.
        after_step: called with the state at the start and after each step; may raise to stop.

    Returns:
        The solutions in the order of the weight decays, of the residuals that were reached.

    Raises:
        ValueError: for weight decays or a `decay_toward` that cannot be, targets or a Gram that do
            not belong to x, or a model that cannot be linearized.
    """
    y = np.asarray(y)
    if not hasattr(x, "shape"):
        raise ValueError(f"x of type {type(x).__name__}: must be one array of inputs")
    if y.ndim != 2 or len(x) != len(y):
        raise ValueError(f"targets {y.shape}: must be [n, L] for the {len(x)} examples")
    batches = [(x[part], y[part]) for part in batch_ranges(len(x), batch_size)]
    ridge = Ridge(model, batches, y.size, weight_decays, decay_toward, centered)
    few = None if gram is None else preconditioner(ridge, x[: len(gram)], gram, len(x), batch_size)
    method = ConjugateGradients(ridge, few, tolerance)
    report = after_step or (lambda state: None)
    state = method.start()
    report(state)
    while state.residual > tolerance and state.passes < max_passes and not state.exhausted:
        state = method.step(state)
        report(state)
    if len(weight_decays) > 1:
        state = method.confirm(state)
    place = {decay: i for i, decay in enumerate(sorted(weight_decays))}
    return [
        Solution(decay, ridge.split(state.u[i]), state.passes, float(state.residuals[i]))
        for decay, i in ((decay, place[decay]) for decay in weight_decays)
    ]


def dot(a: tf.Tensor, b: tf.Tensor) -> float:
    """The inner product of two vectors, summed in float64."""
    return float(tf.einsum("i,i->", tf.cast(a, tf.float64), tf.cast(b, tf.float64)))


def _cholesky(gram: np.ndarray, shift: float) -> np.ndarray:
    """The lower factor of Theta + shift I, an array of its own.

    Raises:
        ValueError: if there is none.
    """
    shifted = np.array(gram, np.float64, order="F")
    shifted[np.diag_indices_from(shifted)] += shift
    try:
        return scipy.linalg.cho_factor(shifted, lower=True, overwrite_a=True)[0]
    except np.linalg.LinAlgError as error:
        raise ValueError(f"gram {gram.shape}: must be positive semidefinite") from error


def _smallest_eigenvalue(factor: np.ndarray) -> float:
    """Of the matrix of a Cholesky factor, or somewhat above, by inverse iteration."""
    v = np.random.default_rng(0).standard_normal(len(factor))
    for _ in range(20):
        v = scipy.linalg.cho_solve((factor, True), v / np.linalg.norm(v), check_finite=False)
    return 1 / float(np.linalg.norm(v))


def _repeated(v: tf.Tensor, count: int) -> tf.Tensor:
    return tf.repeat(v[None], count, axis=0)


def _column(values: np.ndarray, dtype: tf.DType) -> tf.Tensor:
    return tf.cast(values[:, None], dtype)


def _norm(v: tf.Tensor) -> float:
    return dot(v, v) ** 0.5


def _finite(residual: float, passes: int) -> float:
    if not math.isfinite(residual):
        raise NotFiniteError(
            f"the residual after {passes} passes is {residual}: the model's outputs, its gradients"
            " or the targets are not finite"
        )
    return residual
