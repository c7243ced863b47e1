"""The Gram of a model around each kind of layer against dense Jacobians, in both precisions.

A row says which layer, on inputs of which shape, and whether its weights have a rule.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from references import dense_jacobian, surveyed

from ntk_tf import ntk
from ntk_tf.models.ntk_scaled import NTKConv2D, NTKDense

L = 2
NORMAL = {"bias_initializer": "normal"}
SCALES = {"kernel_scale": 0.3, "bias_scale": 1.7}


def attend(inputs):
    return layers.MultiHeadAttention(2, 3, value_dim=2, bias_initializer="normal")(inputs, inputs)


def embed(inputs):
    ids = layers.Lambda(lambda x: tf.cast(tf.round(3 * tf.abs(x)), "int32") - 1)(inputs)
    return layers.Embedding(12, 3)(ids)


def grouped_einsum(inputs):
    return layers.EinsumDense("bthc,hcd->bthd", (4, 2, 5), bias_axes="hd")(inputs)


def time_distributed(inputs):
    return layers.TimeDistributed(layers.Dense(3, activation="tanh"))(inputs)


#: name: (layer or function, shape of inputs, has a rule).
TABLE = {
    "Dense": (lambda: layers.Dense(4, **NORMAL), (3,), True),
    "Dense softsign": (lambda: layers.Dense(4, activation="softsign"), (3,), True),
    "Dense no bias": (lambda: layers.Dense(4, use_bias=False), (5, 3), True),
    "EinsumDense": (lambda: layers.EinsumDense("btc,cd->btd", (5, 4)), (5, 3), True),
    "EinsumDense ...": (
        lambda: layers.EinsumDense("...c,cd->...d", 4, bias_axes="d"), (5, 3), True,
    ),
    "EinsumDense sums": (lambda: layers.EinsumDense("btc,tcd->bd", 4, bias_axes="d"), (5, 3), True),
    "EinsumDense groups": (lambda: grouped_einsum, (4, 2, 3), True),
    "EinsumDense odd bias": (
        lambda: layers.EinsumDense("btc,cd->btd", (5, 4), bias_axes="td"), (5, 3), False,
    ),
    "EinsumDense sums inputs": (
        lambda: layers.EinsumDense("btc,cd->bd", 4, bias_axes="d"), (5, 3), False,
    ),
    "Conv1D": (lambda: layers.Conv1D(4, 3, **NORMAL), (9, 2), True),
    "Conv1D same": (lambda: layers.Conv1D(4, 4, strides=2, padding="same"), (9, 2), True),
    "Conv1D causal": (lambda: layers.Conv1D(4, 3, padding="causal", dilation_rate=2), (9, 2), True),
    "Conv1D wide": (lambda: layers.Conv1D(4, 3, dilation_rate=2, groups=2), (9, 40), True),
    "Conv1D wide same": (lambda: layers.Conv1D(3, 4, strides=2, padding="same"), (9, 40), True),
    "Conv2D": (lambda: layers.Conv2D(4, 3, **NORMAL), (6, 5, 2), True),
    "Conv2D groups": (lambda: layers.Conv2D(4, 3, groups=2, **NORMAL), (5, 5, 4), True),
    "Conv3D": (lambda: layers.Conv3D(3, 2, **NORMAL), (4, 3, 5, 2), True),
    "Conv3D wide": (lambda: layers.Conv3D(2, 3, strides=2, padding="same"), (4, 3, 5, 3), True),
    "Conv1DTranspose": (lambda: layers.Conv1DTranspose(3, 3, strides=2), (5, 2), True),
    "Conv2DTranspose": (lambda: layers.Conv2DTranspose(3, 3, **NORMAL), (4, 3, 2), True),
    "Conv2DTranspose same": (
        lambda: layers.Conv2DTranspose(3, 3, strides=2, padding="same"), (4, 3, 2), True,
    ),
    "Conv2DTranspose padded": (
        lambda: layers.Conv2DTranspose(3, 3, strides=2, output_padding=1), (4, 3, 2), True,
    ),
    "Conv2DTranspose gaps": (lambda: layers.Conv2DTranspose(3, 2, strides=3), (4, 3, 2), True),
    "Conv3DTranspose": (lambda: layers.Conv3DTranspose(2, 2, strides=2), (2, 3, 2, 2), True),
    "DepthwiseConv1D": (lambda: layers.DepthwiseConv1D(3, depth_multiplier=2), (7, 3), True),
    "DepthwiseConv2D": (lambda: layers.DepthwiseConv2D(3, **NORMAL), (5, 5, 3), True),
    "SeparableConv1D": (lambda: layers.SeparableConv1D(3, 3), (7, 2), False),
    "BatchNormalization": (lambda: layers.BatchNormalization(), (4, 4, 3), True),
    "BatchNormalization axis": (lambda: layers.BatchNormalization(axis=1), (3, 4, 2), True),
    "LayerNormalization": (lambda: layers.LayerNormalization(), (5, 4), True),
    "LayerNormalization axes": (lambda: layers.LayerNormalization(axis=[1, 2]), (3, 4, 2), True),
    "LayerNormalization scale": (lambda: layers.LayerNormalization(center=False), (6,), True),
    "GroupNormalization": (lambda: layers.GroupNormalization(2), (4, 4, 4), True),
    "GroupNormalization axis": (lambda: layers.GroupNormalization(2, axis=1), (4, 3, 2), True),
    "RMSNormalization": (lambda: layers.RMSNormalization(), (5, 4), True),
    "Embedding": (lambda: embed, (6,), True),
    "Embedding one": (lambda: embed, (1,), True),
    "MultiHeadAttention": (lambda: attend, (5, 4), True),
    "TimeDistributed": (lambda: time_distributed, (4, 3), True),
    "PReLU": (lambda: layers.PReLU("uniform"), (5,), False),
    "LSTM": (lambda: layers.LSTM(3), (4, 2), False),
    "GRU": (lambda: layers.GRU(3, return_sequences=True, unroll=True), (3, 2), False),
    "NTKDense": (lambda: NTKDense(4, "tanh", **SCALES), (3,), True),
    "NTKDense positions": (lambda: NTKDense(4, **SCALES), (5, 3), True),
    "NTKDense no bias": (lambda: NTKDense(4, use_bias=False, kernel_scale=0.3), (3,), True),
    "NTKConv2D": (lambda: NTKConv2D(4, 3, activation="relu", **SCALES), (6, 5, 2), True),
    "NTKConv2D same": (lambda: NTKConv2D(3, 3, 2, padding="same", **SCALES), (6, 5, 2), True),
    "NTKConv2D no bias": (lambda: NTKConv2D(3, 2, use_bias=False, **SCALES), (4, 4, 2), True),
    "Bidirectional": (
        lambda: layers.Bidirectional(layers.SimpleRNN(2, unroll=True)), (3, 2), False,
    ),
}  # fmt: skip


RECURRENT = ("LSTM", "GRU", "Bidirectional")


def around(name):
    """The layer between two nonlinearities, then a smooth map to L outputs; its weights random."""
    make, shape, _ = TABLE[name]
    keras.utils.set_random_seed(3)
    inputs = keras.Input(shape)
    x = layers.Activation("tanh")(make()(layers.Activation("elu")(inputs)))
    outputs = layers.Dense(L, use_bias=False)(layers.Flatten()(x))
    model = keras.Model(inputs, outputs)
    rng = np.random.default_rng(4)
    for w in model.weights:
        low, high = (0.5, 1.5) if "variance" in w.path else (-0.7, 0.7)
        w.assign(rng.uniform(low, high, w.shape))
    return model, rng.standard_normal((4, *shape))


def error(found, truth):
    return np.linalg.norm(found - truth) / np.linalg.norm(truth)


@pytest.mark.parametrize("name", TABLE)
def test_gram_of_each_layer(name, float64):
    model, x = around(name)
    rows = dense_jacobian(model, x)
    kernel = ntk.GramFunction(model, "float64")
    found = kernel(x).reshape(len(rows), -1)
    assert error(found, rows @ rows.T) < 1e-10
    assert any(piece.layer is None for piece in surveyed(kernel).pieces) != TABLE[name][2]


# Of layers without a rule, which go the same way, some are enough.
@pytest.mark.parametrize("name", [name for name in TABLE if name not in RECURRENT])
def test_gram_of_each_layer_in_float32(name):
    model, x = around(name)
    rows = dense_jacobian(model, x.astype("float32")).astype("float64")
    found = ntk.gram(model, x.astype("float32")).reshape(len(rows), -1)
    assert error(found, rows @ rows.T) < 1e-5


@pytest.mark.parametrize(
    "name", ["Embedding", "Conv2DTranspose same", "MultiHeadAttention", "SeparableConv1D"]
)
def test_trace_of_each_layer(name, float64):
    model, x = around(name)
    rows = dense_jacobian(model, x)
    truth = np.einsum("iljl->ij", (rows @ rows.T).reshape(4, L, 4, L)) / L
    assert error(ntk.gram(model, x, outputs="trace", precision="float64"), truth) < 1e-10
