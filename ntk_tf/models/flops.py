"""Arithmetic of a training step, counted from the shapes of the layers."""

import math

import keras


def layer_flops(model: keras.Model) -> list[int]:
    """Floating-point operations of each convolution and dense layer at one example, in order.

    A multiplication and its addition count as two. Biases, activations and pooling, together about
    one percent, are not counted.

    Args:
        model: a built network of layers in a row; one built in `shapes_only` will do.

    Returns:
        2 * (outputs of the layer) * (inputs that each of them depends on), layer by layer.
    """
    return [
        2 * math.prod(layer.output.shape[1:]) * math.prod(layer.kernel.shape[:-1])
        for layer in model.layers
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense))
    ]


def step_flops(model: keras.Model, linearized: bool) -> int:
    """Floating-point operations that a training step needs for one example.

    With F_i those of layer i, a step of the network takes

        2 F_1 + 3 sum_{i > 1} F_i        forward, gradient in weights, gradient in inputs

    and one of its linearization also the Jacobian-vector product W dx + dW x of each layer,

        F_1 + 2 sum_{i > 1} F_i

    The gradient in the network's own input is not needed, and the input's tangent dx is 0.

    Args:
        model: the network f, also where its linearization is trained; see `layer_flops`.
        linearized: whether it is.

    Returns:
        The number for one example; that of a batch is so many times as large.
    """
    first, *others = layer_flops(model)
    return (3 * first + 5 * sum(others)) if linearized else (2 * first + 3 * sum(others))
