"""What flows through a model's layers: their inputs, and the outputs' gradients behind them."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import keras
import tensorflow as tf


class Use(NamedTuple):
    """One call of a layer.

    Attributes:
        inputs: what it was called on.
        outputs: what it computed, before its activation.
    """

    inputs: tf.Tensor
    outputs: tf.Tensor


@contextlib.contextmanager
def recording(layers: Sequence[keras.Layer]) -> Iterator[list[list[Use]]]:
    """Note every call of some layers.

    Args:
        layers: called on one tensor.

    Yields:
        For each layer the uses noted so far.
    """
    uses: list[list[Use]] = [[] for _ in layers]
    with contextlib.ExitStack() as stack:
        for layer, noted in zip(layers, uses, strict=True):
            stack.enter_context(_record(layer, noted))
        yield uses


@contextlib.contextmanager
def _record(layer: keras.Layer, noted: list[Use]) -> Iterator[None]:
    """Replace a layer's `call` and `activation` by ones that note what they see."""
    call, activation = layer.call, getattr(layer, "activation", None)
    before_activation: list[tf.Tensor] = []

    def noting_activation(z):
        before_activation.append(z)
        return activation(z)

    def noting_call(inputs, *args, **kwargs):
        before_activation.clear()
        outputs = call(inputs, *args, **kwargs)
        noted.append(Use(inputs, before_activation[-1] if before_activation else outputs))
        return outputs

    layer.call = noting_call
    if activation is not None:
        layer.activation = noting_activation
    try:
        yield
    finally:
        del layer.call
        if activation is not None:
            layer.activation = activation


class Pass:
    """A forward pass of a batch, from which gradients of the outputs can be taken.

    Args:
        model: maps `[b, ...]` to one tensor `[b, ...]`.
        layers: those whose inputs and gradients are wanted.
        x: the batch.

    Attributes:
        uses: for each layer its calls.
        outputs: `[b, L]`, the model's, all but the batch axis flattened.
    """

    def __init__(self, model: keras.Model, layers: Sequence[keras.Layer], x):
        self.weights = [w.value for w in model.trainable_weights]
        self.tape = tf.GradientTape(persistent=True, watch_accessed_variables=False)
        with self.tape, recording(layers) as self.uses:
            self.tape.watch(self.weights)
            outputs = model(tf.convert_to_tensor(x), training=False)
            if not tf.is_tensor(outputs) or outputs.shape.rank < 2:
                raise ValueError("the NTK needs a model with one output tensor [b, ...]")
            self.outputs = tf.reshape(outputs, [-1, math.prod(outputs.shape[1:])])

    def gradients(self, cotangents: tf.Tensor, targets: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Gradients of sum(cotangents * outputs), cotangents `[b, L]`, in some tensors."""
        return self.tape.gradient(
            self.outputs,
            list(targets),
            output_gradients=cotangents,
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )


def example_jacobians(
    model: keras.Model, weights: Sequence[keras.Variable]
) -> Callable[[tf.Tensor], tf.Tensor]:
    """The general way: a function from x `[b, ...]` to all outputs' gradients `[b, L, q]`.

    Each example goes through the model alone, so that any layer will do.
    """
    variables = [w.value for w in weights]

    @tf.function(reduce_retracing=True)
    def jacobian(example):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            outputs = tf.reshape(model(example, training=False), [-1])
        parts = tape.jacobian(
            outputs,
            variables,
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
            experimental_use_pfor=False,
        )
        return tf.concat([tf.reshape(part, [tf.shape(outputs)[0], -1]) for part in parts], axis=1)

    def jacobians(x):
        return tf.stack([jacobian(x[i : i + 1]) for i in range(x.shape[0])])

    return jacobians
