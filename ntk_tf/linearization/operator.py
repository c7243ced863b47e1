"""The Jacobian of a Keras model in its weights as an operator: products with vectors, never itself.

f maps a batch x to outputs at fixed weights w0; J = df/dw at w0 has a row an output and a column a
weight. There are two ways to J u:

* `forward`: a `tf.autodiff.ForwardAccumulator` carries the tangent through the forward pass. It
  loses or refuses what TensorFlow calls as a function in a graph: loops, variables that an inner
  `tf.function` captures, custom gradients.
* `double_vjp`: J^T r is linear in r, and its own vector-Jacobian product with u is J u, at the cost
  of about one more backward pass. It is right wherever J^T r has a gradient.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ntk_tf.linearization import check as checks
from ntk_tf.linearization import products

WAYS = ("auto", *products.WAYS)


class Jacobian:
    """J of a Keras model at its present weights, for batches x that each product is given.

    A vector u in the space of the weights is a list of tensors of their shapes, a vector r in the
    space of the outputs a structure like the model's. The model is a fixed function, in inference
    mode. All products work in an eager call, in a graph and under XLA, and inside a `tf.function`.

    Before the first product J u in each of these modes, both ways are tried with random vectors,
    and the first for which <r, J u> = <J^T r, u> is kept; see `check`. Under XLA no product is
    taken through TensorFlow's max pooling, whose second derivative XLA corrupts.

    Args:
        base: a built Keras model f.
        weights: in which to differentiate; the model's trainable ones if None.
        jvp: the way to J u: `forward`, `double_vjp`, or `auto` for the first of them that is right.
        check: whether to try before use. Without, `auto` looks at the operations of the model's
            graph instead.

    Raises:
        ValueError: if the base is not built or there are no weights, or for another `jvp`.
    """

    def __init__(
        self,
        base: keras.Model,
        weights: Sequence[keras.Variable] | None = None,
        jvp: str = "auto",
        check: bool = True,
    ):
        if not base.built:
            raise ValueError(
                f"a linearization needs a built model, and {base.name!r} is not: call it on data"
                " or give it an input shape first"
            )
        self.weights = list(base.trainable_weights if weights is None else weights)
        if not self.weights:
            raise ValueError(f"a linearization needs trainable weights, and {base.name!r} has none")
        known = {id(w) for w in base.weights}
        places = [id(w) for w in self.weights]
        if len(set(places)) != len(places) or not known.issuperset(places):
            raise ValueError(f"weights: must be different ones of {base.name!r}")
        if jvp not in WAYS:
            raise ValueError(f"jvp={jvp!r}: must be one of {', '.join(WAYS)}")
        self.base, self.way, self.checked = base, jvp, check
        # Taken here, outside any autocast scope, in which a variable's value is a rounded copy.
        self._point = [w.value for w in self.weights]
        self._found: dict[tuple, str] = {}

    def jvp(self, x, u: Sequence[tf.Tensor]) -> tuple[Any, Any]:
        """f(x) and J u, structures like the model's outputs.

        Raises:
            ValueError: if J u cannot be had, or would be wrong; see `check`.
        """
        way = self._way(x)
        return products.jvp(self._function(x), self._point, u, way)

    def vjp(self, x, r) -> list[tf.Tensor]:
        """J^T r, as many tensors as weights.

        Args:
            x: a batch of inputs.
            r: like the model's outputs; None for an output that does not count.
        """
        return products.vjp(self._function(x), self._point, persistent=False)[1](r)

    def linearize(
        self, x, u: Sequence[tf.Tensor], persistent: bool = True
    ) -> tuple[Any, Any, Callable]:
        """f(x), J u and the function that maps r to J^T r, all from one forward pass.

        In one graph, `pullback(jvp)` is J^T J u, for a training step or a solver.

        Args:
            x: a batch of inputs.
            u: a vector in the space of the weights.
            persistent: whether the function may be called more than once, as a `tf.GradientTape`;
                if not, there is less to trace.

        Raises:
            ValueError: if J u cannot be had, or would be wrong; see `check`.
        """
        way = self._way(x)
        return products.linearize(self._function(x), self._point, u, way, persistent)

    def vjp_in_batches(self, x, r: np.ndarray, batch_size: int = 100) -> list[tf.Tensor]:
        """J^T r for many examples, summed over batches.

        Args:
            x: inputs `[n, ...]`.
            r: `[n, L]`, for a model of one output.
            batch_size: examples a product.

        Returns:
            Tensors of the weights' shapes.

        Raises:
            ValueError: for no examples or a batch size below 1; and as `linearize`.
        """
        total = [tf.zeros_like(w) for w in self._point]
        for part in batch_ranges(len(x), batch_size):
            total = [t + g for t, g in zip(total, self.vjp(x[part], r[part]), strict=True)]
        return total

    def check(self, x, mode: str | None = None) -> None:
        """Compare <r, J u> with <J^T r, u> for random r and u in a mode in which products will run.

        The products do so themselves where they first run in a mode, in a graph while it is traced,
        and again for inputs of another shape (but for the number of examples) or type.
        Inputs have the shapes of x but random values, integers apart, which are those of x, or 0
        and 1 in a graph. A check traces one training step (and XLA compiles it) and takes the time
        of one.

        Args:
            x: a batch of inputs.
            mode: `eager`, `graph` or `xla`; that of the call if None.

        Raises:
            ValueError: if no allowed way is right. It names the layer, found by bisection. Or for
                another mode.
        """
        if mode not in (None, "eager", "graph", "xla"):
            raise ValueError(f"mode={mode!r}: must be eager, graph or xla")
        mode = mode or checks.current_mode()
        self._found[mode, *_kinds(x)] = checks.choose(
            checks.trial(self.base, self._point, x, mode), self._ways()
        )

    def survives_xla(self) -> bool:
        """Whether XLA can compile products, as far as can be told before there are inputs.

        TensorFlow's max pooling is what it cannot; it is looked for among the operations of the
        model's graph, if the model declares its inputs.
        """
        specs = checks.declared_inputs(self.base)
        if specs is None:
            return True
        return checks.survives_xla(checks.Trial(self.base, self._point, specs, specs, "xla"))

    def _function(self, x) -> Callable[[], Any]:
        return functools.partial(self.base, x, training=False)

    def _ways(self) -> tuple[str, ...]:
        return products.WAYS if self.way == "auto" else (self.way,)

    @tf.autograph.experimental.do_not_convert
    def _way(self, x) -> str:
        """How to find J u in the mode of this call, which is found out the first time.

        And for each kind of inputs: those of another size may go another way through the model.
        """
        mode = checks.current_mode()
        key = mode, *_kinds(x)
        if key not in self._found:
            trial = checks.trial(self.base, self._point, x, mode)
            find = checks.choose if self.checked else checks.by_operations
            self._found[key] = find(trial, self._ways()) if trial else self._ways()[0]
        return self._found[key]


def _kinds(x) -> list[tuple[str, str]]:
    """Shape, but for the examples' axis, and type of each of some inputs."""
    return [
        (str(tf.TensorShape(t.shape)[1:]), tf.as_dtype(t.dtype).name)
        for t in tf.nest.flatten(x)
        if hasattr(t, "shape")
    ]


def map_batches(function: Callable, x: np.ndarray, batch_size: int = 100) -> np.ndarray:
    """A function of a batch, applied to all inputs `[n, ...]`; float64 `[n, ...]`.

    Raises:
        ValueError: for no inputs or a batch size below 1.
    """
    parts = [np.asarray(function(x[part]), np.float64) for part in batch_ranges(len(x), batch_size)]
    return np.concatenate(parts)


def batch_ranges(count: int, size: int) -> list[slice]:
    """Slices of `size` examples that make up `count`; the last may be smaller.

    Raises:
        ValueError: for no examples, or no size.
    """
    if count < 1 or size < 1:
        raise ValueError(f"batch_size={size} of {count} examples: both must be at least 1")
    return [slice(start, start + size) for start in range(0, count, size)]
