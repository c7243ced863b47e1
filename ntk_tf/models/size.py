"""How large a model is, from shapes alone: parameters, activations, arithmetic of a training step.

All of it counts layers at every depth, each as often as it is called; models that were built in
`models.shapes_only` will do.
"""

import contextlib
import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import keras
import tensorflow as tf

from ntk_tf import private
from ntk_tf.models.shapes import Counts


class Call(NamedTuple):
    """One use of a layer.

    Attributes:
        layer: that was called.
        inputs: the tensor `[1, ...]` that it was called on.
        outputs: what it returned.
    """

    layer: keras.Layer
    inputs: object
    outputs: object


def count(model: keras.Model, input_shape: tuple[int, ...]) -> Counts:
    """How large a model is; nothing is computed.

    Counted as layers that apply a kernel are Keras' `Dense` and `EinsumDense` and its convolutions,
    also transposed, depthwise and separable ones, call by call. Biases, activations, pooling and
    normalization, together about one percent of the operations, are not counted.

    Args:
        model: a built network.
        input_shape: of an example.
    """
    called = calls(model, input_shape)
    outputs = [t for call in called for t in keras.tree.flatten(call.outputs)]
    # A block returns the very tensor that its last layer does.
    distinct = {id(tensor): math.prod(tensor.shape[1:]) for tensor in outputs}
    return Counts(
        parameters(model),
        math.prod(input_shape) + sum(distinct.values()),
        [_factors(call) for call in called if _products(call)],
    )


def parameters(model: keras.Model) -> int:
    """Number of trainable parameters p."""
    return sum(math.prod(w.shape) for w in model.trainable_weights)


def calls(model: keras.Model, input_shape: tuple[int, ...]) -> list[Call]:
    """What each layer inside a model maps an example to; nothing is computed.

    Args:
        model: a built network.
        input_shape: of an example.

    Returns:
        The calls in their order, those inside a layer before its own.
    """
    noted: list[Call] = []
    with contextlib.ExitStack() as stack:
        for layer in private.all_layers(model):
            stack.enter_context(_noting(layer, noted))
        example = tf.TensorSpec((1, *input_shape), keras.config.floatx())
        with keras.StatelessScope():  # a model of `shapes_only` has no values to read
            tf.function(lambda x: model(x, training=False), autograph=False).get_concrete_function(
                example
            )
    return noted


@contextlib.contextmanager
def _noting(layer: keras.Layer, noted: list[Call]) -> Iterator[None]:
    call = layer.call

    @functools.wraps(call)
    def noting_call(*args, **kwargs):
        outputs = call(*args, **kwargs)
        inputs = keras.tree.flatten((args, kwargs))
        noted.append(Call(layer, inputs[0] if inputs else None, outputs))
        return outputs

    layer.call = noting_call
    try:
        yield
    finally:
        del layer.call


_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
_SEPARABLE = (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)
_TRANSPOSED = (
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)
_PLAIN = (
    keras.layers.Dense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
)


def _products(call: Call) -> int:
    """Multiplications of a kernel's entries with inputs."""
    layer = call.layer
    if isinstance(layer, _TRANSPOSED):  # every input goes to the kernel's positions and channels
        return _numbers(call.inputs) * math.prod(layer.kernel.shape[:-1])
    if isinstance(layer, _SEPARABLE):
        between = layer.pointwise_kernel.shape[-2]
        places = _numbers(call.outputs) // layer.filters
        return between * (places * math.prod(layer.kernel_size) + _numbers(call.outputs))
    if isinstance(layer, _DEPTHWISE):
        return _numbers(call.outputs) * math.prod(layer.kernel_size)
    if isinstance(layer, _PLAIN):  # a grouped convolution's kernel has a group's inputs only
        return _numbers(call.outputs) * math.prod(layer.kernel.shape[:-1])
    if isinstance(layer, keras.layers.EinsumDense):
        return _numbers(call.outputs) * _contracted(layer)
    return 0


def _factors(call: Call) -> tuple[int, float, int]:
    """Places, inputs of an output, and outputs a place, whose product is `_products`."""
    units = call.outputs.shape[-1]
    return _numbers(call.outputs) // units, _products(call) / _numbers(call.outputs), units


def _contracted(layer: keras.layers.EinsumDense) -> int:
    """Number of inputs that an output of an einsum layer depends on."""
    operands, result = layer.equation.split("->")
    kernel = operands.split(",")[1]
    sizes = zip(kernel.strip(), layer.kernel.shape, strict=True)
    return math.prod(size for index, size in sizes if index not in result)


def _numbers(tensor) -> int:
    return math.prod(tensor.shape[1:])
