"""Floating-point operations, counted from shapes."""

import math

import keras


def forward_flops(model: keras.Model) -> int:
    """Operations of the convolutions and dense layers of a forward pass of one example.

    A multiplication and an addition count as two; everything else is left out.
    """
    return sum(_products(layer) for layer in model.layers)


def step_flops(model: keras.Model, linearized: bool = False) -> int:
    """Operations of an update, for one example.

    A network takes its forward pass and the gradients with respect to weights and inputs; its
    linearization a JVP besides, which has two products where the pass has one. The first layer's
    input has neither gradient nor tangent.

    Args:
        model: the network f; its layers follow one another.
        linearized: whether f's linearization is trained, in place of f.
    """
    products = [_products(layer) for layer in model.layers if _products(layer)]
    total, first = sum(products), products[0] if products else 0
    return (5 if linearized else 3) * total - (2 if linearized else 1) * first


def _products(layer: keras.Layer) -> int:
    """Operations of one layer's forward pass for one example."""
    kinds = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D, keras.layers.Dense)
    if not isinstance(layer, kinds):
        return 0
    outputs = math.prod(layer.output.shape[1:])
    return 2 * outputs * math.prod(layer.kernel.shape[:-1])
