"""Where training the linearization ends: ridge regression on all the data, without its Gram.

Training T(u) = f + J u by mean squared error with weight decay minimizes

    |f + J u - y|^2 / (n L) + (weight_decay / 2) |u|^2,

whose gradient is 0 where (J^T J + lambda I) u = J^T (y - f), lambda = n L weight_decay / 2. Its
matrix is never held: conjugate gradients (Hestenes and Stiefel 1952) need its product with one
vector per pass over the data. A vector is flat, `[p]`, in the precision of the weights; what is
summed up over it is float64.

The preconditioner is that of a few examples, whose Gram has large eigenvalues like those of the
whole up to the factor n / m (Ma and Belkin 2017, "Diving into the shallows", use it in SGD).
"""

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
import scipy.linalg
import tensorflow as tf

from ntk_tf.linearization.operator import Jacobian, batch_ranges

#: Passes after which the residual is computed anew, since what is updated drifts by rounding.
REFRESH = 20
#: Eigenvalues below this part of the largest have eigenvectors that float32 does not hold.
_SMALLEST = 1e-6

Batches = Iterable[tuple[Any, Any]]
Precondition = Callable[[tf.Tensor], tf.Tensor]


class NotFiniteError(ValueError):
    """A regression whose outputs, targets or gradients are not finite."""


class Ridge:
    """The regression of a model's linearization at its present weights, as passes over the data.

    Args:
        model: a built Keras model f of one output `[b, L]`; a fixed function, in inference mode.
        batches: pairs `(x [b, ...], y [b, L])`, the same at each iteration; a dataset or a list.
        rows: n L.
        weight_decay: at least 0.
        decay_toward: what decays: `initialization` for u, `zero` for the weights w0 + u.

    Attributes:
        shift: lambda = n L weight_decay / 2.
        size: number p of weights.
        dtype: of vectors.

    Raises:
        ValueError: for a negative weight decay or another `decay_toward`, and as `Jacobian`.
    """

    def __init__(
        self,
        model: keras.Model,
        batches: Batches,
        rows: int,
        weight_decay: float,
        decay_toward: str = "initialization",
    ):
        if not weight_decay >= 0:
            raise ValueError(f"weight_decay={weight_decay}: must be at least 0")
        if decay_toward not in ("initialization", "zero"):
            raise ValueError(f"decay_toward={decay_toward!r}: must be one of initialization, zero")
        self.batches, self.rows = batches, rows
        self.shift, self.toward_zero = rows * weight_decay / 2, decay_toward == "zero"
        self.jacobian = Jacobian(model)
        self._shapes = [w.shape for w in self.jacobian.weights]
        self._dtypes = [w.dtype for w in self.jacobian.weights]
        self._sizes = [s.num_elements() for s in map(tf.TensorShape, self._shapes)]
        self.size, self.dtype = sum(self._sizes), tf.as_dtype(self._dtypes[0])
        self._product = tf.function(self._product_of_batch)
        self._residual = tf.function(self._residual_of_batch)
        self._outputs = tf.function(self._outputs_of_batch)
        self._pullback = tf.function(self._pullback_of_batch)

    def product(self, v: tf.Tensor) -> tuple[tf.Tensor, np.ndarray]:
        """(J^T J + lambda I) v and J v `[n, L]`."""
        total, tangents = self._sum(lambda x, y: self._product(x, v))
        return total + tf.cast(self.shift, self.dtype) * v, tangents

    def residual(self, u: tf.Tensor) -> tuple[tf.Tensor, np.ndarray]:
        """The negative gradient of n L / 2 times the loss at u, and T(u) `[n, L]`."""
        total, outputs = self._sum(lambda x, y: self._residual(x, y, u))
        return total - tf.cast(self.shift, self.dtype) * self.decaying(u), outputs

    def decaying(self, u: tf.Tensor) -> tf.Tensor:
        """What weight decay acts on: u, or w0 + u."""
        return u + self.flat(w.value for w in self.jacobian.weights) if self.toward_zero else u

    def outputs(self, u: tf.Tensor, batches: Iterable[Any]) -> np.ndarray:
        """T(u) = f + J u `[m, L]`, float64, for batches of inputs x."""
        return _rows([sum(self._outputs(x, u)) for x in batches])

    def tangents(self, u: tf.Tensor, batches: Iterable[Any]) -> np.ndarray:
        """J u `[m, L]`, float64, for batches of inputs x."""
        return _rows([self._outputs(x, u)[1] for x in batches])

    def pullback(self, r: np.ndarray, batches: Iterable[Any]) -> tf.Tensor:
        """J^T r `[p]` of r `[m, L]`, for batches of inputs x."""
        total, done = tf.zeros(self.size, self.dtype), 0
        for x in batches:
            total += self._pullback(x, tf.constant(r[done : done + len(x)], self.dtype))
            done += len(x)
        return total

    def flat(self, tensors: Iterable[tf.Tensor]) -> tf.Tensor:
        """One vector of tensors like the weights."""
        return tf.concat([tf.reshape(tf.cast(t, self.dtype), [-1]) for t in tensors], 0)

    def split(self, v: tf.Tensor) -> list[tf.Tensor]:
        """Tensors like the weights of one vector."""
        parts = zip(tf.split(v, self._sizes), self._shapes, self._dtypes, strict=True)
        return [tf.cast(tf.reshape(part, shape), dtype) for part, shape, dtype in parts]

    def _sum(self, of_batch: Callable) -> tuple[tf.Tensor, np.ndarray]:
        total, parts = tf.zeros(self.size, self.dtype), []
        for x, y in self.batches:
            vector, part = of_batch(x, y)
            total += vector
            parts.append(part)
        return total, _rows(parts)

    def _product_of_batch(self, x, v):
        _, tangent, pullback = self.jacobian.linearize(x, self.split(v))
        return self.flat(pullback(tangent)), tangent

    def _residual_of_batch(self, x, y, u):
        f, tangent, pullback = self.jacobian.linearize(x, self.split(u))
        outputs = f + tangent
        return self.flat(pullback(tf.cast(y, outputs.dtype) - outputs)), outputs

    def _outputs_of_batch(self, x, u):
        return self.jacobian.jvp(x, self.split(u))

    def _pullback_of_batch(self, x, r):
        return self.flat(self.jacobian.vjp(x, r))


def preconditioner(
    ridge: Ridge, x: np.ndarray, gram: np.ndarray, examples: int, batch_size: int = 100
) -> "Preconditioner":
    """The preconditioner from the Gram of a few examples.

    Its eigenvectors count whose eigenvalues, times n / m, exceed lambda: the others change nothing.

    Args:
        ridge: the regression.
        x: the examples `[m, ...]`.
        gram: their Theta `[m, L, m, L]`, as of `ntk.gram`.
        examples: n.
        batch_size: examples a product.

    Returns:
        The preconditioner.

    Raises:
        ValueError: if the Gram is not of these examples.
    """
    rows = gram.shape[0] * gram.shape[1] if gram.ndim == 4 else 0
    if gram.size != rows**2 or len(gram) != len(x):
        raise ValueError(f"gram {gram.shape}: must be [m, L, m, L] of the {len(x)} examples")
    values, vectors = scipy.linalg.eigh(gram.reshape(rows, rows))
    of_all = values * examples / len(x)
    kept = (of_all > ridge.shift) & (values > _SMALLEST * values[-1])
    values, of_all = values[kept], of_all[kept]
    damping = 1 - (of_all[:1] + ridge.shift) / (of_all + ridge.shift)
    basis = (vectors[:, kept] / np.sqrt(values)).astype(ridge.dtype.as_numpy_dtype)
    return Preconditioner(ridge, x, basis, damping, batch_size)


class Preconditioner:
    """v - U D U^T v with U = J_S^T B orthonormal: the few examples' largest directions, damped.

    U is never held: U^T v takes a forward derivative over the m examples, U c a backward pass.

    Args:
        ridge: the regression.
        x: the m examples S.
        basis: B `[m L, r]`.
        damping: diagonal `[r]` of D, from 0 to 1.
        batch_size: examples a product.
    """

    def __init__(
        self,
        ridge: Ridge,
        x: np.ndarray,
        basis: np.ndarray,
        damping: np.ndarray,
        batch_size: int = 100,
    ):
        self.ridge, self.basis, self.damping = ridge, basis, damping
        self.batches = [x[part] for part in batch_ranges(len(x), batch_size)]

    def __call__(self, v: tf.Tensor) -> tf.Tensor:
        """The product with a vector `[p]`."""
        if not len(self.damping):
            return v
        tangents = self.ridge.tangents(v, self.batches)
        inner = self.damping * (tangents.ravel() @ self.basis)
        return v - self.ridge.pullback((self.basis @ inner).reshape(tangents.shape), self.batches)


@dataclasses.dataclass(frozen=True)
class State:
    """Where conjugate gradients are: all that the next step depends on.

    Attributes:
        u: the solution so far `[p]`.
        r: the residual J^T (y - f) - (J^T J + lambda I) u `[p]`.
        p: the direction of the next step `[p]`.
        rz: r^T z with z the preconditioned residual.
        norm: |r| at u = 0.
        outputs: T(u) of all examples, float64 `[n, L]`.
        passes: over the data.
        residual: |r| relative to that at u = 0.
    """

    u: tf.Tensor
    r: tf.Tensor
    p: tf.Tensor
    rz: float
    norm: float
    outputs: np.ndarray
    passes: int
    residual: float


class ConjugateGradients:
    """Preconditioned conjugate gradients, step by step.

    The residual is computed anew every `REFRESH` passes and before it is said to be small enough.

    Args:
        ridge: the regression.
        precondition: maps r to z; None for none.
        tolerance: what residual is small enough.
    """

    def __init__(self, ridge: Ridge, precondition: Precondition | None, tolerance: float):
        self.ridge, self.tolerance = ridge, tolerance
        self.precondition = precondition or tf.identity

    def start(self) -> State:
        """At u = 0, after one pass.

        Raises:
            NotFiniteError: if the residual is not finite.
        """
        u = tf.zeros(self.ridge.size, self.ridge.dtype)
        r, outputs = self.ridge.residual(u)
        z, norm = self.precondition(r), _norm(r)
        residual = norm / (norm or 1.0)
        return State(u, r, z, dot(r, z), norm, outputs, 1, _finite(residual, 1))

    def step(self, state: State) -> State:
        """One step on: a pass, or two where the residual is computed anew.

        Raises:
            NotFiniteError: if the residual is not finite.
        """
        product, tangents = self.ridge.product(state.p)
        length = state.rz / dot(state.p, product)
        u = state.u + tf.cast(length, state.u.dtype) * state.p
        r = state.r - tf.cast(length, state.u.dtype) * product
        outputs, passes = state.outputs + length * tangents, state.passes + 1
        residual = _norm(r) / state.norm
        if passes % REFRESH == 0 or residual <= self.tolerance:
            r, outputs = self.ridge.residual(u)
            passes, residual = passes + 1, _norm(r) / state.norm
        z = self.precondition(r)
        rz = dot(r, z)
        p = z + tf.cast(rz / state.rz, z.dtype) * state.p
        return State(u, r, p, rz, state.norm, outputs, passes, _finite(residual, passes))


@dataclasses.dataclass(frozen=True)
class Solution:
    """The minimizer.

    Attributes:
        u: tensors of the weights' shapes.
        passes: over the data that it took.
        residual: norm of the loss' gradient relative to that at u = 0.
    """

    u: list[tf.Tensor]
    passes: int
    residual: float


def solve(
    model: keras.Model,
    x: np.ndarray,
    y: np.ndarray,
    weight_decay: float,
    *,
    decay_toward: str = "initialization",
    gram: np.ndarray | None = None,
    tolerance: float = 1e-4,
    max_passes: int = 1000,
    batch_size: int = 100,
    after_step: Callable[[State], None] | None = None,
) -> Solution:
    """Minimize the linearization's mean squared error with weight decay over all examples.

    Args:
        model: a built Keras model f of one output, linearized at its present weights.
        x: inputs `[n, ...]`.
        y: targets `[n, L]`.
        weight_decay: as of SGD whose gradient it is added to; at least 0.
        decay_toward: what decays: `initialization` for u, `zero` for the weights w0 + u.
        gram: Theta `[m, L, m, L]` of the first m examples, from `ntk.gram(model, x[:m])`, for the
            preconditioner; None for none.
        tolerance: stops at such a residual.
        max_passes: stops at so many passes, or one more.
        batch_size: examples a product.
        after_step: called with the state at u = 0 and after each step; may raise to stop.

    Returns:
        The solution, of the residual that was reached.

    Raises:
        ValueError: for a weight decay or `decay_toward` that cannot be, targets or a Gram that do
            not belong to x, or a model that cannot be linearized.
    """
    if len(x) != len(y) or y.ndim != 2:
        raise ValueError(f"targets {y.shape}: must be [n, L] for the {len(x)} examples")
    batches = [(x[part], y[part]) for part in batch_ranges(len(x), batch_size)]
    ridge = Ridge(model, batches, y.size, weight_decay, decay_toward)
    few = None if gram is None else preconditioner(ridge, x[: len(gram)], gram, len(x), batch_size)
    method = ConjugateGradients(ridge, few, tolerance)
    report = after_step or (lambda state: None)
    state = method.start()
    report(state)
    while state.residual > tolerance and state.passes < max_passes:
        state = method.step(state)
        report(state)
    return Solution(ridge.split(state.u), state.passes, state.residual)


def dot(a: tf.Tensor, b: tf.Tensor) -> float:
    """The inner product of two vectors, summed in float64."""
    return float(tf.tensordot(tf.cast(a, tf.float64), tf.cast(b, tf.float64), 1))


def _norm(v: tf.Tensor) -> float:
    return dot(v, v) ** 0.5


def _finite(residual: float, passes: int) -> float:
    if not math.isfinite(residual):
        raise NotFiniteError(
            f"the residual after {passes} passes is {residual}: the model's outputs, its gradients"
            " or the targets are not finite"
        )
    return residual


def _rows(parts: list[tf.Tensor]) -> np.ndarray:
    return np.concatenate([np.asarray(part, np.float64) for part in parts])
