"""The linearization's regression as passes over the data: its products, residuals and outputs.

Training T(u) = f + J u by mean squared error with weight decay minimizes

    |f + J u - y|^2 / (n L) + (weight_decay / 2) |u|^2,

whose gradient is 0 where (J^T J + lambda I) u = J^T (y - f), lambda = n L weight_decay / 2. Its
matrix is never held. A vector is flat, `[p]`, in the precision of the weights; what is summed up
over it is float64.
"""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ntk_tf.linearization.operator import Jacobian

Batches = Iterable[tuple[Any, Any]]


class Ridge:
    """The regression of a model's linearization at its present weights, as passes over the data.

    Args:
        model: a built Keras model f of one output `[b, L]`; a fixed function, in inference mode.
        batches: pairs `(x [b, ...], y [b, L])`, the same at each iteration; a dataset or a list.
        rows: n L.
        weight_decays: at least one, of at least 0 and finite, all different.
        decay_toward: what decays: `initialization` for u, `zero` for the weights w0 + u.
        centered: leave out f, so that T(u) = J u.
        watched: batches of other inputs x, whose outputs are followed.

    Attributes:
        shifts: lambda = n L weight_decay / 2 of each weight decay, the smallest first, `[s]`.
        size: number p of weights.
        dtype: of vectors.

    Raises:
        ValueError: for weight decays or a `decay_toward` that cannot be, and as `Jacobian`.
    """

    def __init__(
        self,
        model: keras.Model,
        batches: Batches,
        rows: int,
        weight_decays: Sequence[float],
        decay_toward: str = "initialization",
        centered: bool = False,
        watched: Iterable[Any] = (),
    ):
        decays = sorted(weight_decays)
        if not decays:
            raise ValueError("weight_decays=(): must hold at least one")
        for decay in decays:
            if not 0 <= decay < math.inf:
                raise ValueError(f"weight_decay={decay}: must be at least 0, and finite")
        if len(set(decays)) < len(decays):
            raise ValueError(f"weight_decays={decays}: must be different")
        if decay_toward not in ("initialization", "zero"):
            raise ValueError(f"decay_toward={decay_toward!r}: must be one of initialization, zero")
        self.batches, self.rows, self.watched = batches, rows, watched
        self.shifts = rows * np.array(decays) / 2
        self.toward_zero, self.centered = decay_toward == "zero", centered
        self.jacobian = Jacobian(model)
        self._shapes = [w.shape for w in self.jacobian.weights]
        self._dtypes = [w.dtype for w in self.jacobian.weights]
        self._sizes = [s.num_elements() for s in map(tf.TensorShape, self._shapes)]
        self.size, self.dtype = sum(self._sizes), tf.as_dtype(self._dtypes[0])
        graph = functools.partial(tf.function, autograph=False)
        self._product = graph(self._product_of_batch)
        self._residual = graph(self._residual_of_batch)
        self._outputs = graph(self._outputs_of_batch)
        self._pullback = graph(self._pullback_of_batch)

    def origin(self) -> tf.Tensor:
        """The u where nothing decays: 0, or -w0; where there is no weight decay, that of SGD, 0."""
        if self.toward_zero and self.shifts.any():
            return -self._start()
        return tf.zeros(self.size, self.dtype)

    def product(self, v: tf.Tensor) -> tuple[tf.Tensor, np.ndarray]:
        """(J^T J + lambda I) v for the smallest lambda, and J v `[n + m, L]`."""
        total, tangents = self._sum(lambda x, y: self._product(x, v))
        watched = [tangent for _, tangent in (self._outputs(x, v) for x in self.watched)]
        return total + tf.cast(self.shifts[0], self.dtype) * v, _rows([*tangents, *watched])

    def residual(self, u: tf.Tensor, i: int = 0) -> tuple[tf.Tensor, np.ndarray]:
        """The negative gradient of n L / 2 times the i-th loss at u, and T(u) `[n + m, L]`."""
        total, outputs = self._sum(lambda x, y: self._residual(x, y, u))
        watched = [self._of_linearization(*self._outputs(x, u)) for x in self.watched]
        gradient = tf.cast(self.shifts[i], self.dtype) * self.decaying(u)
        return total - gradient, _rows([*outputs, *watched])

    def decaying(self, u: tf.Tensor) -> tf.Tensor:
        """What weight decay acts on: u, or w0 + u."""
        return u + self._start() if self.toward_zero else u

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

    def _start(self) -> tf.Tensor:
        return self.flat(w.value for w in self.jacobian.weights)

    def _of_linearization(self, f, tangent):
        return tangent if self.centered else f + tangent

    def _sum(self, of_batch: Callable) -> tuple[tf.Tensor, list[tf.Tensor]]:
        total, parts = tf.zeros(self.size, self.dtype), []
        for x, y in self.batches:
            vector, part = of_batch(x, y)
            total += vector
            parts.append(part)
        return total, parts

    def _product_of_batch(self, x, v):
        _, tangent, pullback = self.jacobian.linearize(x, self.split(v), persistent=False)
        return self.flat(pullback(tangent)), tangent

    def _residual_of_batch(self, x, y, u):
        f, tangent, pullback = self.jacobian.linearize(x, self.split(u), persistent=False)
        if not isinstance(f, tf.Tensor) or f.shape.rank != 2:
            raise ValueError(
                f"{self.jacobian.base.name!r}: must have one output [b, L], for which it is solved"
            )
        outputs = self._of_linearization(f, tangent)
        if y.shape[1:] != outputs.shape[1:]:
            raise ValueError(
                f"targets of {y.shape[-1]} numbers: must have as many as the model has outputs,"
                f" {outputs.shape[-1]}"
            )
        return self.flat(pullback(tf.cast(y, outputs.dtype) - outputs)), outputs

    def _outputs_of_batch(self, x, u):
        return self.jacobian.jvp(x, self.split(u))

    def _pullback_of_batch(self, x, r):
        return self.flat(self.jacobian.vjp(x, r))


def _rows(parts: list[tf.Tensor]) -> np.ndarray:
    return np.concatenate([np.asarray(part, np.float64) for part in parts])
