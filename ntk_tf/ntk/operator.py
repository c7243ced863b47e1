"""The neural tangent kernel as a linear map, for more examples than a Gram can have.

Theta v = J (J^T v): one backward pass and one forward derivative for each batch of examples, so
that time and memory grow with n and not with its square.
"""

import functools
from collections.abc import Iterator

import keras
import numpy as np
import scipy.sparse.linalg
import tensorflow as tf

from ntk_tf.linearization import Jacobian
from ntk_tf.linearization.operator import batch_ranges
from ntk_tf.linearization.products import exact_products
from ntk_tf.ntk.inputs import Inputs, as_arrays, length, signature, take, tensors
from ntk_tf.ntk.passes import outputs_of


class _Derivatives:
    """J^T v and J u of a batch, at the model's present weights, outputs flattened to `[b, L]`.

    Args:
        model: see `KernelOperator`.
        x: what tells the inputs' shapes.
    """

    def __init__(self, model: keras.Model, x: Inputs):
        self.jacobian = Jacobian(model)
        self.weights = [w.value for w in model.trainable_weights]
        first = tensors(take(x, slice(1)))
        rows = outputs_of(model, first)
        self.outputs, self.dtype = rows.shape[1], rows.dtype
        self.shape = [-1, *model(first, training=False).shape[1:]]
        cotangents = tf.TensorSpec([None, self.outputs], self.dtype)
        shapes = [tf.TensorSpec(w.shape, w.dtype) for w in self.weights]
        graph = functools.partial(tf.function, autograph=False)
        self.vjp = graph(self._vjp, input_signature=[signature(x), cotangents])
        self.jvp = graph(self._jvp, input_signature=[signature(x), shapes])

    def _vjp(self, x, cotangents):
        return self.jacobian.vjp(x, tf.reshape(cotangents, self.shape))

    def _jvp(self, x, tangents):
        return tf.reshape(self.jacobian.jvp(x, tangents)[1], [-1, self.outputs])


class KernelOperator(scipy.sparse.linalg.LinearOperator):
    """Theta `[n L, n L]` of one set of inputs, known by its products with vectors.

    What scipy's solvers take: `scipy.sparse.linalg.eigsh`, `lobpcg`, `cg`.

    Args:
        model: maps inputs to one tensor with L outputs an example; see `gram`. Its weights at the
            time of a product count.
        x: inputs `[n, ...]`; see `inputs.as_arrays`.
        batch_size: examples at one time.

    Attributes:
        outputs: L.

    Raises:
        ValueError: for a model without trainable weights or with several outputs, no inputs, or a
            batch size below 1.
            A product raises it for a model that TensorFlow differentiates wrongly; see `Jacobian`.
    """

    def __init__(self, model: keras.Model, x: Inputs, batch_size: int = 256):
        if not model.trainable_weights:
            raise ValueError(f"the NTK needs trainable weights, and {model.name!r} has none")
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: must be at least 1")
        self._x, self._batch_size = as_arrays(x), batch_size
        self._derivatives = _Derivatives(model, self._x)
        self.outputs = self._derivatives.outputs
        rows = length(self._x) * self.outputs
        super().__init__(np.dtype(np.float64), (rows, rows))

    def _batches(self) -> Iterator[tuple[Inputs, slice]]:
        """Inputs, and the rows of a vector that belong to them."""
        for some in batch_ranges(length(self._x), self._batch_size):
            rows = slice(some.start * self.outputs, some.stop * self.outputs)
            yield tensors(take(self._x, some)), rows

    def _matvec(self, vector: np.ndarray) -> np.ndarray:
        v = np.ravel(vector)
        scale = float(np.abs(v).max()) or 1.0
        with exact_products():
            u = self._transposed(v / scale)
            parts = [self._derivatives.jvp(x, u).numpy() for x, _ in self._batches()]
        return scale * np.concatenate([np.ravel(part) for part in parts]).astype(np.float64)

    def _transposed(self, v: np.ndarray) -> list[tf.Tensor]:
        """J^T v, summed over batches in float64."""
        total = None
        for x, rows in self._batches():
            cotangents = v[rows].reshape(-1, self.outputs).astype(self._derivatives.dtype.name)
            parts = [
                tf.cast(g, tf.float64) for g in self._derivatives.vjp(x, tf.constant(cotangents))
            ]
            total = parts if total is None else [a + b for a, b in zip(total, parts, strict=True)]
        weights = self._derivatives.weights
        return [tf.cast(g, w.dtype) for g, w in zip(total, weights, strict=True)]

    def _adjoint(self) -> "KernelOperator":
        return self


def product(model: keras.Model, x: Inputs, v: np.ndarray, batch_size: int = 256) -> np.ndarray:
    """Theta v without Theta.

    Args:
        model: see `KernelOperator`.
        x: inputs `[n, ...]`.
        v: `[n, L]`, or any shape with as many elements in this order.
        batch_size: examples at one time.

    Returns:
        sum_jm Theta[i,l,j,m] v[j,m], float64 in v's shape.

    Raises:
        ValueError: as `KernelOperator`, or for a vector of another size.
    """
    operator, v = KernelOperator(model, x, batch_size), np.asarray(v)
    if v.size != operator.shape[0]:
        rows = operator.shape[0]
        raise ValueError(f"v of shape {v.shape}: the kernel takes vectors of {rows} numbers")
    return operator.matvec(v.ravel()).reshape(v.shape)
