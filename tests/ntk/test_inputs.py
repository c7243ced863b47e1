"""Inputs of every form give the Gram of their arrays; outputs may be one number an example."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from references import dense_jacobian

from ntk_tf import ntk


def pooled():
    """Takes pictures of any size."""
    inputs = keras.Input((None, None, 2))
    x = layers.Conv2D(5, 3, activation="tanh")(inputs)
    x = layers.Conv2D(40, 3, activation="tanh")(x)
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


def two_inputs():
    a, b = keras.Input((3,), name="a"), keras.Input((4, 2), name="b")
    both = layers.Concatenate()([layers.Dense(3, "tanh")(a), layers.Flatten()(b)])
    return keras.Model({"a": a, "b": b}, layers.Dense(2)(layers.Dense(4, "tanh")(both)))


def error(found, rows, cols):
    truth = rows @ cols.T
    return np.linalg.norm(found.reshape(truth.shape) - truth) / np.linalg.norm(truth)


@pytest.mark.parametrize("side", [5, 6, 9])
@pytest.mark.parametrize("outputs", ["full", "trace"])
def test_second_set_of_another_size(side, outputs, rng, float64):
    model = pooled()
    x, x2 = rng.standard_normal((4, 5, 5, 2)), rng.standard_normal((3, side, side, 2))
    rows, cols = dense_jacobian(model, x), dense_jacobian(model, x2)
    found = ntk.gram(model, x, x2, outputs, precision="float64")
    if outputs == "trace":
        rows, cols = rows.reshape(4, -1) / 3**0.5, cols.reshape(3, -1) / 3**0.5
    assert error(found, rows, cols) < 1e-13


def test_second_set_of_another_size_without_rules(rng, float64):
    """Layers that need to know the size."""
    inputs = keras.Input((None, None, 2))
    x = layers.SeparableConv2D(3, 2, activation="tanh")(inputs)
    x = layers.AdaptiveAveragePooling2D(2)(x)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    x, x2 = rng.standard_normal((3, 5, 5, 2)), rng.standard_normal((2, 6, 7, 2))
    rows, cols = dense_jacobian(model, x), dense_jacobian(model, x2)
    assert error(ntk.gram(model, x, x2), rows, cols) < 1e-13


def test_second_set_of_another_precision(rng):
    model = pooled()
    x = rng.standard_normal((3, 6, 6, 2))
    same = ntk.gram(model, x.astype("float32"), x)
    np.testing.assert_allclose(same, ntk.gram(model, x.astype("float32")), rtol=1e-5, atol=1e-6)
    pictures = rng.integers(0, 255, (3, 6, 6, 2)).astype("uint8")
    again = ntk.gram(model, pictures, pictures.astype("float32"))
    np.testing.assert_array_equal(again, ntk.gram(model, *[pictures.astype("float32")] * 2))


def test_structures_and_datasets(rng, float64):
    model = two_inputs()
    x = {"a": rng.standard_normal((5, 3)), "b": rng.standard_normal((5, 4, 2))}
    rows = dense_jacobian(model, x)
    arrays = ntk.gram(model, x, precision="float64")
    assert error(arrays, rows, rows) < 1e-13
    labelled = tf.data.Dataset.from_tensor_slices((x, np.arange(5))).batch(2)
    alone = tf.data.Dataset.from_tensor_slices(x).batch(5)
    tensors = {name: tf.constant(array) for name, array in x.items()}
    for same in (labelled, alone, tensors):
        np.testing.assert_array_equal(ntk.gram(model, same, precision="float64"), arrays)
    listed = keras.Model(model.inputs, model.outputs[0])
    for pair in ([x["a"], x["b"]], (x["a"], x["b"])):
        np.testing.assert_array_equal(ntk.gram(listed, pair, precision="float64"), arrays)


def test_one_number_an_example(rng, float64):
    inputs = keras.Input((4,))
    hidden = layers.Dense(3, "tanh")(inputs)
    model = keras.Model(inputs, layers.Reshape(())(layers.Dense(1)(hidden)))
    x = rng.standard_normal((5, 4))
    assert model(x).shape == (5,)
    rows = dense_jacobian(model, x)
    found = ntk.gram(model, x, precision="float64")
    assert found.shape == (5, 1, 5, 1)
    assert error(found, rows, rows) < 1e-13


def test_refuses_inputs_that_do_not_belong_together(rng):
    model = two_inputs()
    x = {"a": rng.standard_normal((5, 3)), "b": rng.standard_normal((4, 4, 2))}
    with pytest.raises(ValueError, match="arrays of .*4.*5.* examples"):
        ntk.gram(model, x)
    with pytest.raises(ValueError, match="at least one example"):
        ntk.gram(model, tf.data.Dataset.from_tensor_slices(np.zeros((0, 3))).batch(2))
