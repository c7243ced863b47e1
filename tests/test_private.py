"""What the package uses of TensorFlow and Keras that is not public still does what it did."""

import importlib.metadata
import random

import keras
import numpy as np
import pytest
import tensorflow as tf

from ntk_tf import private


@pytest.mark.parametrize("package", private.TRIED)
def test_installed_versions_were_tried(package):
    installed = ".".join(importlib.metadata.version(package).split(".")[:2])
    assert installed in private.TRIED[package], (
        f"{package} {installed} is new here: if all else in this file passes, add it to"
        " ntk_tf.private.TRIED"
    )


@pytest.mark.parametrize("jit", [False, True])
def test_a_function_knows_whether_xla_compiles_it(jit):
    found = []

    @tf.function
    def inner(x):
        found.append(private.will_be_compiled_by_xla(tf.compat.v1.get_default_graph()))
        return x

    tf.function(lambda x: inner(x) + 1, jit_compile=jit)(tf.constant(1.0))
    assert found == [jit]


def test_derivatives_of_ones_own():
    def square(x):
        with private.unrecorded():
            y = x**2
        private.record_derivatives("Square", x, y, lambda g: [7 * g], lambda t: [5 * t])
        return y

    x = tf.Variable(3.0)
    with (
        tf.GradientTape() as tape,
        tf.autodiff.ForwardAccumulator(x, tf.constant(1.0)) as accumulator,
    ):
        y = square(tf.convert_to_tensor(x))
    assert (float(y), float(accumulator.jvp(y)), float(tape.gradient(y, x))) == (9, 5, 7)


def test_forgotten_variables_get_no_values():
    drawn = []

    def initializer(shape, dtype=None):
        drawn.append(shape)
        return tf.zeros(shape, dtype)

    for forget in (True, False):
        with keras.StatelessScope():
            keras.Variable(initializer, shape=(3,))
            if forget:
                private.forget_uninitialized_variables()
        assert bool(drawn) is not forget


class Block(keras.layers.Layer):
    """A layer that holds others."""

    def __init__(self):
        super().__init__()
        self.parts = [keras.layers.Dense(2), keras.Sequential([keras.layers.Dense(3)])]

    def call(self, x):
        for part in self.parts:
            x = part(x)
        return x


def test_layers_at_every_depth():
    model = keras.Sequential([keras.Input((4,)), Block(), keras.layers.ReLU()])
    kinds = [type(layer).__name__ for layer in private.all_layers(model)]
    inner = [kind for kind in kinds if kind != "InputLayer"]
    assert sorted(inner) == ["Block", "Dense", "Dense", "ReLU", "Sequential"]


def test_names_start_again():
    before = keras.layers.Dense(1).name
    for _ in range(2):
        with private.fresh_names():
            assert [keras.layers.Dense(1).name for _ in range(2)] == ["dense", "dense_1"]
    number = int(before.partition("_")[2] or 0)
    assert keras.layers.Dense(1).name == f"dense_{number + 1}"


def draws():
    """From every generator that Keras' seed sets."""
    return [
        random.random(),
        np.random.random(),
        float(tf.random.uniform(())),
        float(keras.random.uniform(())),
        float(keras.initializers.RandomUniform()((1,))[0]),
    ]


def test_seed_is_of_the_inside_only():
    keras.utils.set_random_seed(1)
    expected = draws() + draws()
    keras.utils.set_random_seed(1)
    first = draws()
    inside = []
    for seed in (5, 5, 6):
        with private.random_seed(seed):
            inside.append(draws())
    assert first + draws() == expected
    assert inside[0] == inside[1]
    assert not set(inside[0]) & (set(inside[2]) | set(expected))
