"""What flows through a model's layers: their inputs, and the outputs' gradients behind them."""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from ntk_tf import private
from ntk_tf.ntk.inputs import Inputs, length, take


class Use(NamedTuple):
    """One call of a layer.

    Attributes:
        inputs: what it was called on.
        outputs: what it computed, before its activation.
    """

    inputs: tf.Tensor
    outputs: tf.Tensor


@contextlib.contextmanager
def recording(layers: Sequence[keras.Layer], tape: tf.GradientTape) -> Iterator[list[list[Use]]]:
    """Note every call of some layers, and have a tape watch its output.

    Args:
        layers: called on one tensor.
        tape: that records the model.

    Yields:
        For each layer the uses noted so far.
    """
    uses: list[list[Use]] = [[] for _ in layers]
    with contextlib.ExitStack() as stack:
        for layer, noted in zip(layers, uses, strict=True):
            stack.enter_context(_record(layer, noted, tape))
        yield uses


@contextlib.contextmanager
def _record(layer: keras.Layer, noted: list[Use], tape: tf.GradientTape) -> Iterator[None]:
    """Replace a layer's `call` and `activation` by ones that note what they see.

    Within the call its weights are constants: what gradient they still get comes from elsewhere.
    A call with other values in their place is none of theirs, and is left alone. Nor are they
    constants within an inner graph (a loop, a branch, a `tf.function` of the model's own), which
    may be kept and used again, and must remain as it is.
    """
    call, activation = layer.call, getattr(layer, "activation", None)
    before_activation: list[tf.Tensor] = []
    home = _graph()

    def noting_activation(z):
        if _graph() is home:
            tape.watch(z)
            before_activation.append(z)
        return activation(z)

    def noting_call(inputs, *args, **kwargs):
        if any(map(private.is_replaced, layer.trainable_weights)):
            return call(inputs, *args, **kwargs)
        if _graph() is not home:
            outputs = call(inputs, *args, **kwargs)
            noted.append(Use(inputs, outputs))
            return outputs
        before_activation.clear()
        constants = [(w, tf.stop_gradient(w.value)) for w in layer.trainable_weights]
        with keras.StatelessScope(constants):
            outputs = call(inputs, *args, **kwargs)
        if not before_activation:
            tape.watch(outputs)
        noted.append(Use(inputs, before_activation[-1] if before_activation else outputs))
        return outputs

    own = vars(layer).get("call")  # a user's, on this layer alone
    layer.call = noting_call
    if activation is not None:
        layer.activation = noting_activation
    try:
        yield
    finally:
        del layer.call
        if own is not None:
            layer.call = own
        if activation is not None:
            layer.activation = activation


def _graph() -> tf.Graph | None:
    """The graph that is being traced, None where there is none."""
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


def outputs_of(model: keras.Model, x: Inputs) -> tf.Tensor:
    """A model's outputs `[b, L]` in inference mode, all but the batch axis flattened.

    Raises:
        ValueError: if it has not one output tensor with the examples on its first axis.
    """
    outputs = model(x, training=False)
    if not isinstance(outputs, tf.Tensor) or outputs.shape.rank in (None, 0):
        kind = type(outputs).__name__
        raise ValueError(
            f"outputs of {model.name!r}, a {kind}: the NTK needs a model with one output tensor [b]"
            " or [b, ...]; of several, choose one, or concatenate them in a keras.Model"
        )
    return tf.reshape(outputs, [-1, math.prod(outputs.shape[1:])])


class Pass:
    """A forward pass of a batch, from which gradients of the outputs can be taken.

    Args:
        model: maps `[b, ...]` to one tensor `[b, ...]`.
        layers: those whose inputs and gradients are wanted.
        x: the batch, tensors.

    Attributes:
        uses: for each layer its calls.
        outputs: `[b, L]`, the model's, all but the batch axis flattened.
    """

    def __init__(self, model: keras.Model, layers: Sequence[keras.Layer], x: Inputs):
        self.weights = model.trainable_weights
        self.tape = tf.GradientTape(persistent=True, watch_accessed_variables=False)
        with self.tape, recording(layers, self.tape) as self.uses:
            self.tape.watch([w.value for w in self.weights])
            self.outputs = outputs_of(model, x)

    def gradients(self, cotangents: tf.Tensor, targets: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Gradients of sum(cotangents * outputs), cotangents `[b, L]`, in some tensors."""
        return self.tape.gradient(
            self.outputs,
            list(targets),
            output_gradients=cotangents,
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )

    def reached(self) -> set[int]:
        """Ids of the trainable weights that the outputs depend on but by calls of the layers.

        By the graph of operations, whatever the values: a weight times 0 counts.
        """
        found = self.tape.gradient(self.outputs, [w.value for w in self.weights])
        return {
            id(w) for w, gradient in zip(self.weights, found, strict=True) if gradient is not None
        }


def example_gradients(
    model: keras.Model,
    wanted: Sequence[tuple[Sequence[keras.Variable], slice | None]],
    cotangents: np.ndarray,
    eager: bool = False,
) -> Callable[[Inputs], list[tf.Tensor]]:
    """The general way: from a batch to the gradients `[b, R, q]` of R functions of its outputs.

    Each example goes through the model alone, so that any layer will do.

    Args:
        model: any.
        wanted: weights, and which of their numbers, one after the other; None for all.
        cotangents: coefficients of the functions, `[R, L]`.
        eager: without a graph, which some models do not have.
    """
    weights = {id(w): w.value for some, _ in wanted for w in some}
    dtypes = [_widest(w.dtype for w in some) for some, _ in wanted]

    def of_example(example):
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(list(weights.values()))
            outputs = outputs_of(model, example)

        def of_function(cotangent):
            found = tape.gradient(
                outputs,
                weights,
                output_gradients=cotangent[None],
                unconnected_gradients=tf.UnconnectedGradients.ZERO,
            )
            flat = {name: tf.reshape(tf.convert_to_tensor(g), [-1]) for name, g in found.items()}
            joined = [
                tf.concat([tf.cast(flat[id(w)], dtype) for w in some], axis=0)
                for (some, _), dtype in zip(wanted, dtypes, strict=True)
            ]
            return [
                g if part is None else g[part] for g, (_, part) in zip(joined, wanted, strict=True)
            ]

        return tf.map_fn(
            of_function,
            tf.constant(cotangents, outputs.dtype),
            fn_output_signature=dtypes,
        )

    if not eager:  # of each shape a graph of its own: a layer may need to know it
        of_example = tf.function(of_example, autograph=False)

    def of_batch(x):
        rows = [slice(i, i + 1) for i in range(length(x))]
        found = [of_example(take(x, row)) for row in rows]
        return [tf.stack(parts) for parts in zip(*found, strict=True)]

    return of_batch


def _widest(dtypes: Iterable[str]) -> str:
    """What holds numbers of several precisions."""
    return "float64" if "float64" in set(dtypes) else "float32"
