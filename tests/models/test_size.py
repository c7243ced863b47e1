import math

import keras
import numpy as np
import pytest

from ntk_tf import models
from ntk_tf.models import size


def counts(model, shape=None):
    return size.count(model, shape or model.input_shape[1:])


def layer_flops(model, shape=None):
    return counts(model, shape).flops


def step_flops(model, linearized, shape=None):
    return counts(model, shape).step_flops(linearized)


def network(arch, width, shape, outputs=10):
    with models.shapes_only():
        return models.build(arch, width, outputs, shape)


def test_lenet_by_hand():
    model = network("lenet", 1, (28, 28, 1))
    layers = [24 * 24 * 25 * 6, 8 * 8 * 150 * 16, 256 * 120, 120 * 84, 84 * 10]
    assert layer_flops(model) == [2 * macs for macs in layers]
    assert step_flops(model, linearized=False) == 2 * (3 * sum(layers) - layers[0])
    jvp = 2 * sum(layers) - layers[0]
    assert step_flops(model, linearized=True) == 2 * (3 * sum(layers) - layers[0] + jvp)


def test_alexnet_as_in_torchvision():
    # torchvision's documentation gives 0.71 billion multiply-adds, with 1,000 outputs.
    forward = sum(layer_flops(network("alexnet", 1, (224, 224, 3), 1000)))
    assert forward / 2e9 == pytest.approx(0.71, abs=0.005)


@pytest.mark.parametrize("linearized", [False, True])
def test_outputs_add_only_their_layer(linearized):
    ten, hundred = (
        step_flops(network("lenet", 1, (28, 28, 1), outputs), linearized) for outputs in (10, 100)
    )
    assert hundred - ten == (5 if linearized else 3) * 2 * 84 * 90


def test_activations_of_lenet_by_hand():
    layers = [6 * 24 * 24, 6 * 12 * 12, 16 * 8 * 8, 16 * 4 * 4, 256, 120, 84, 10]
    model = network("lenet", 1, (28, 28, 1))
    assert counts(model).activations == 28 * 28 + sum(layers)
    assert size.parameters(model) == 44_426


K = keras.layers


def one_hot_products(layer, shape):
    """Multiplications of a linear layer, counted from its effect.

    With every weight 1 an output is the sum of the inputs that it depends on; over all outputs of
    an input of ones that is the number of products, if the layer is one contraction.
    """
    layer.set_weights([np.ones(w.shape) for w in layer.weights])
    return float(np.sum(layer(np.ones((1, *shape), "float32"))))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (K.Dense(5, use_bias=False), (4,)),
        (K.Dense(5, use_bias=False), (3, 4)),
        (K.EinsumDense("abc,cde->abde", (3, 2, 5)), (3, 4)),
        (K.EinsumDense("...c,cd->...d", (3, 5)), (3, 4)),
        (K.EinsumDense("abc,bcd->ad", (5,)), (3, 4)),
        (K.Conv1D(5, 3, 2, use_bias=False), (9, 4)),
        (K.Conv2D(6, 3, use_bias=False), (8, 7, 4)),
        (K.Conv2D(6, 3, dilation_rate=2, use_bias=False), (8, 7, 4)),
        (K.Conv2D(6, (1, 3), groups=2, use_bias=False), (8, 7, 4)),
        (K.Conv3D(3, 2, use_bias=False), (4, 5, 6, 2)),
        (K.DepthwiseConv1D(3, depth_multiplier=2, use_bias=False), (8, 4)),
        (K.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False), (8, 7, 4)),
        (K.Conv1DTranspose(3, 2, 2, use_bias=False), (8, 4)),
        (K.Conv2DTranspose(3, 2, 2, use_bias=False), (5, 6, 4)),
        (K.Conv2DTranspose(3, 3, use_bias=False), (5, 6, 4)),
    ],
    ids=lambda value: value.name if isinstance(value, keras.Layer) else None,
)
def test_every_kind_of_layer(layer, shape):
    model = keras.Sequential([keras.Input(shape), layer])
    assert layer_flops(model) == [2 * one_hot_products(layer, shape)]


@pytest.mark.parametrize(
    ("separable", "shape", "depthwise"),
    [
        (
            K.SeparableConv1D(5, 3, 2, depth_multiplier=2),
            (9, 4),
            K.DepthwiseConv1D(3, 2, depth_multiplier=2),
        ),
        (
            K.SeparableConv2D(5, 3, depth_multiplier=2),
            (8, 7, 4),
            K.DepthwiseConv2D(3, depth_multiplier=2),
        ),
    ],
)
def test_separable_is_depthwise_and_dense(separable, shape, depthwise):
    one = keras.Sequential([keras.Input(shape), separable])
    two = keras.Sequential([keras.Input(shape), depthwise, K.Dense(5)])
    assert layer_flops(one) == [sum(layer_flops(two))]


class Residual(keras.layers.Layer):
    """A block that keeps its layers as attributes."""

    def __init__(self, filters, **kwargs):
        super().__init__(**kwargs)
        self.conv = K.Conv2D(filters, 3, padding="same")
        self.inner = keras.Sequential([K.Conv2D(filters, 1), K.BatchNormalization(), K.ReLU()])

    def call(self, x):
        return x + self.inner(self.conv(x))


class Subclassed(keras.Model):
    """A network without a graph of its layers."""

    def __init__(self):
        super().__init__()
        self.blocks = [Residual(3), Residual(3)]
        self.head = K.Dense(7)

    def call(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(K.Flatten()(x))


def flat_sequence():
    """The layers of `Subclassed`, without its sums, in a row."""
    rows = [(K.Conv2D(3, 3, padding="same"), K.Conv2D(3, 1), K.ReLU()) for _ in range(2)]
    layers = [layer for row in rows for layer in row]
    return keras.Sequential([keras.Input((6, 6, 3)), *layers, K.Flatten(), K.Dense(7)])


def subclassed():
    model = Subclassed()
    model(np.zeros((1, 6, 6, 3), "float32"))
    return model


def functional():
    inputs = keras.Input((6, 6, 3))
    inner = keras.Sequential([keras.Input((6, 6, 3)), Residual(3), Residual(3)])
    return keras.Model(inputs, K.Dense(7)(K.Flatten()(inner(inputs))))


@pytest.mark.parametrize("make", [subclassed, functional])
def test_nested_layers_count(make):
    model, flat = make(), flat_sequence()
    assert layer_flops(model, (6, 6, 3)) == layer_flops(flat)
    for linearized in (False, True):
        assert step_flops(model, linearized, (6, 6, 3)) == step_flops(flat, linearized)
    # Besides the layers in a row, two normalizations and two sums.
    assert counts(model, (6, 6, 3)).activations == counts(flat).activations + 4 * 6 * 6 * 3 - (
        # `Subclassed` makes its Flatten anew with every call: no layer of the model.
        6 * 6 * 3 if make is subclassed else 0
    )
    assert size.parameters(model) == sum(math.prod(w.shape) for w in flat.weights) + 2 * 2 * 3


def test_shared_layers_count_every_time():
    dense, inputs = K.Dense(4), keras.Input((4,))
    assert layer_flops(keras.Model(inputs, dense(dense(inputs)))) == [32, 32]


def test_counting_leaves_the_model_as_it_was(rng):
    model = subclassed()
    x = rng.standard_normal((2, 6, 6, 3)).astype("float32")
    before = model(x)
    layer_flops(model, (6, 6, 3))
    assert all("call" not in vars(layer) for layer in model.blocks + [model.head])
    np.testing.assert_array_equal(model(x), before)


@pytest.mark.parametrize("make", [subclassed, functional])
def test_biases_freeze_at_every_depth(make):
    model = make()
    models.freeze_biases(model)
    names = sorted(weight.name for weight in model.trainable_weights)
    assert names == ["beta"] * 2 + ["gamma"] * 2 + ["kernel"] * 5
