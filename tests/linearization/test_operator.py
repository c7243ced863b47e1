"""Jacobian: products in batches, its two ways, what the check finds and what it leaves alone."""

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from references import dense_jacobian, flat

from ntk_tf.linearization import Jacobian, LinearizedModel, map_batches
from ntk_tf.training import TorchSGD

K = keras.layers


@tf.custom_gradient
def doubled(x):
    """The identity, with twice its gradient."""
    return tf.identity(x), lambda g: 2 * g


class Doubled(K.Layer):
    def call(self, x):
        return doubled(x)


class Branching(K.Layer):
    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], shape[-1]), name="kernel")

    def call(self, x):
        @tf.function
        def inner(x):
            return tf.tanh(x @ tf.convert_to_tensor(self.kernel))

        return inner(x)


def small(*layers):
    return keras.Sequential([keras.Input((4,)), K.Dense(5, "tanh"), *layers, K.Dense(2)])


def directions(model, rng):
    return [tf.constant(rng.standard_normal(w.shape), w.dtype) for w in model.trainable_weights]


@pytest.mark.parametrize("jvp", ["forward", "double_vjp", "auto"])
@pytest.mark.parametrize("graph", [False, True])
def test_products_of_each_way_against_the_dense_jacobian(jvp, graph, rng, float64):
    model = small()
    x, u, r = rng.standard_normal((3, 4)), directions(model, rng), rng.standard_normal((3, 2))
    jacobian = Jacobian(model, jvp=jvp)

    def both(x):
        outputs, tangent, pullback = jacobian.linearize(x, u)
        return outputs, tangent, pullback(r), pullback(tangent)

    outputs, tangent, gradient, normal = (tf.function(both) if graph else both)(tf.constant(x))
    dense = dense_jacobian(model, x)
    np.testing.assert_allclose(outputs, model(x), rtol=1e-12)
    np.testing.assert_allclose(np.ravel(tangent), dense @ flat(u), rtol=1e-9)
    np.testing.assert_allclose(flat(gradient), dense.T @ r.ravel(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(flat(normal), dense.T @ (dense @ flat(u)), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(flat(jacobian.vjp(x, r)), dense.T @ r.ravel(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(jacobian.jvp(x, u)[1], tangent, rtol=1e-12)


def test_one_pullback_traces_no_derivatives_of_tangents(rng, float64):
    """They were most of what a training step traced; a tape for several pullbacks has them."""
    model = small()
    x, u = tf.constant(rng.standard_normal((3, 4))), directions(model, rng)
    jacobian, dense = Jacobian(model, jvp="forward"), dense_jacobian(model, x)
    names = {}
    for persistent in (False, True):

        @tf.function
        def normal(x):
            _, tangent, pullback = jacobian.linearize(x, u, persistent)  # noqa: B023
            return pullback(tangent)

        np.testing.assert_allclose(flat(normal(x)), dense.T @ (dense @ flat(u)), rtol=1e-9)
        graph = normal.get_concrete_function(x).graph.as_graph_def()
        names[persistent] = [f.signature.name for f in graph.library.function]
    assert names[False]
    assert not [name for name in names[False] if name.startswith("__forward")]
    assert [name for name in names[True] if name.startswith("__forward")]


def test_in_batches(rng, float64):
    model = small()
    x, r = rng.standard_normal((7, 4)), rng.standard_normal((7, 2))
    summed = Jacobian(model).vjp_in_batches(x, r, batch_size=3)
    np.testing.assert_allclose(flat(summed), dense_jacobian(model, x).T @ r.ravel(), rtol=1e-9)
    np.testing.assert_allclose(map_batches(model, x, batch_size=3), model(x), rtol=1e-12)


def test_some_of_the_weights(rng, float64):
    model = small()
    last = model.layers[-1].trainable_weights
    linear = LinearizedModel(model, weights=last)
    assert [u.shape for u in linear.trainable_weights] == [w.shape for w in last]
    for u in linear.trainable_weights:
        u.assign(rng.standard_normal(u.shape))
    x = rng.standard_normal((3, 4))
    columns = sum(int(np.prod(w.shape)) for w in last)
    tangent = dense_jacobian(model, x)[:, -columns:] @ flat(linear.trainable_weights)
    np.testing.assert_allclose(np.ravel(linear(x) - model(x)), tangent, rtol=1e-9)


def test_auto_takes_the_second_way_only_where_the_first_is_wrong():
    found = {}
    for layer in (K.Dense(3), Doubled(), Branching()):
        jacobian = Jacobian(small(layer))
        jacobian.check(np.zeros((2, 4), "float32"), "graph")
        (found[type(layer).__name__],) = jacobian._found.values()
    assert found == {"Dense": "forward", "Doubled": "double_vjp", "Branching": "double_vjp"}


class ByLength(K.Layer):
    """Long inputs go through a function whose tangents a graph loses."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 3), name="kernel")

    @tf.function
    def inner(self, x):
        return tf.reduce_sum(tf.tanh(x @ tf.convert_to_tensor(self.kernel)), axis=1)

    def call(self, x):
        if x.shape[1] is None or x.shape[1] > 4:
            return self.inner(x)
        return tf.reduce_sum(tf.tanh(x @ tf.convert_to_tensor(self.kernel)), axis=1)


@pytest.mark.parametrize("lengths", [(3, 6, 3), (6, 3)])
def test_inputs_of_another_size_are_checked_by_themselves(lengths, rng):
    model = keras.Sequential([keras.Input((None, 3)), ByLength(), K.Dense(2)])
    linear = LinearizedModel(model)
    linear.compile("sgd", "mse")
    for u in linear.trainable_variables:
        u.assign(rng.standard_normal(u.shape))
    for length in lengths:
        x = rng.standard_normal((4, length, 3)).astype("float32")
        expected = dense_jacobian(model, x) @ flat(linear.trainable_variables)
        found = linear.predict(x, verbose=0) - model(x)
        np.testing.assert_allclose(np.ravel(found), expected, atol=1e-5)


@pytest.mark.parametrize("layer", [Doubled, Branching])
def test_a_wrong_way_is_an_error_that_names_the_layer(layer, rng):
    model = small(layer(name="culprit"))
    x = rng.standard_normal((3, 4)).astype("float32")
    jacobian = Jacobian(model, jvp="forward")
    with pytest.raises(ValueError, match=rf"'culprit' \({layer.__name__}\).*jvp='auto'"):
        jacobian.check(x, "graph")
    linear = LinearizedModel(model, jvp="forward")
    with pytest.raises(ValueError, match="culprit"):
        linear.predict(x, verbose=0)
    with pytest.raises(ValueError, match="culprit"):
        linear.check(x)


def test_without_a_check(rng, float64):
    """`forward` is taken at its word, and `auto` goes by the operations of the graph."""
    model = small(Doubled())
    x, u = rng.standard_normal((3, 4)), directions(model, rng)
    expected = dense_jacobian(model, x) @ flat(u)
    right = tf.function(Jacobian(model, check=False).jvp)(tf.constant(x), u)[1]
    wrong = tf.function(Jacobian(model, jvp="forward", check=False).jvp)(tf.constant(x), u)[1]
    np.testing.assert_allclose(np.ravel(right), expected, rtol=1e-9)
    assert np.abs(np.ravel(wrong) - expected).max() > 0.1 * np.abs(expected).max()


def test_the_check_changes_no_weight_and_no_random_stream(rng):
    model = small(K.Dropout(0.5))
    unused = K.Dense(3)
    unused.build((None, 2))  # a weight without gradient, which the check moves to see
    model.unused = unused
    model = keras.Model(model.inputs, model.outputs)
    before = flat(model.weights)
    tf.random.set_seed(3)
    expected = tf.random.uniform((4,))
    tf.random.set_seed(3)
    Jacobian(model).check(np.zeros((2, 4), "float32"), "graph")
    np.testing.assert_array_equal(tf.random.uniform((4,)), expected)
    np.testing.assert_array_equal(flat(model.weights), before)


def test_a_weight_behind_a_dead_unit_is_no_fault(rng):
    model = small(K.Dense(3, "relu", bias_initializer=keras.initializers.Constant(-100.0)))
    Jacobian(model).check(rng.standard_normal((3, 4)), "graph")


def test_refuses_an_unknown_way():
    with pytest.raises(ValueError, match="backward.*auto, forward, double_vjp"):
        Jacobian(small(), jvp="backward")


@pytest.mark.parametrize("outer_kind", ["functional", "sequential", "subclassed"])
def test_inside_a_larger_model(outer_kind, rng, float64):
    """The larger model trains u and its own weights, by the right gradient, and not w0."""
    base = small()
    linear, last = LinearizedModel(base), K.Dense(1)
    if outer_kind == "sequential":
        outer = keras.Sequential([keras.Input((4,)), linear, last])
    elif outer_kind == "functional":
        inputs = keras.Input((4,))
        outer = keras.Model(inputs, last(linear(inputs)))
    else:

        class Outer(keras.Model):
            def __init__(self):
                super().__init__()
                self.first, self.last = linear, last

            def call(self, x):
                return self.last(self.first(x))

        outer = Outer()
    x, y = rng.standard_normal((6, 4)), rng.standard_normal((6, 1))
    outer(x)
    assert len(outer.trainable_weights) == 6
    before = flat(base.weights)
    dense, kernel, f = dense_jacobian(base, x), np.array(last.kernel), np.array(base(x))
    residual = 2 / 6 * (f @ kernel + np.array(last.bias) - y) @ kernel.T
    outer.compile(TorchSGD(1.0), loss="mse")
    outer.fit(x, y, batch_size=6, verbose=0)
    np.testing.assert_array_equal(flat(base.weights), before)
    found = flat(linear.trainable_weights)
    np.testing.assert_allclose(found, -dense.T @ residual.ravel(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("outer_kind", ["itself", "functional"])
def test_a_linearization_of_a_linearization(outer_kind, rng, float64):
    """T_f is linear in u: its Jacobian is f's at w0. In a thread, for the checks could wait."""
    base, x = small(), rng.standard_normal((6, 4))
    linear = LinearizedModel(base)
    inputs = keras.Input((4,))
    outer = linear if outer_kind == "itself" else keras.Model(inputs, K.Dense(2)(linear(inputs)))
    found = []

    def multiply():
        jacobian = Jacobian(outer)
        u = [tf.constant(rng.standard_normal(w.shape)) for w in jacobian.weights]
        tangent = tf.function(lambda x: jacobian.jvp(x, u)[1], autograph=False)(tf.constant(x))
        again = LinearizedModel(outer)
        again.compile(TorchSGD(0.1), loss="mse")
        found.extend([flat(u), np.ravel(tangent), again.predict(x, verbose=0), outer(x)])

    thread = threading.Thread(target=multiply, daemon=True)
    thread.start()
    thread.join(120)
    assert found
    u, tangent, predicted, outputs = found
    np.testing.assert_allclose(tangent, dense_jacobian(outer, x) @ u, rtol=1e-9)
    np.testing.assert_allclose(predicted, outputs, rtol=1e-12)


@pytest.mark.parametrize("nested", [False, True])
def test_masked_steps_do_not_count(nested, rng):
    inputs = keras.Input((5,), dtype="int32")
    embedding = K.Embedding(9, 4, mask_zero=True)
    if nested:
        embedding = keras.Sequential([keras.Input((5,), dtype="int32"), embedding])
    base = keras.Model(inputs, K.Dense(2)(K.Dense(3, "tanh")(embedding(inputs))))
    x = np.array([[1, 2, 3, 0, 0], [4, 0, 0, 0, 0]])
    y = rng.standard_normal((2, 5, 2)).astype("float32")
    kept = np.repeat((x != 0)[..., None], 2, axis=2)
    linear = LinearizedModel(base)
    linear.compile(TorchSGD(0.1), loss="mse", metrics=["mae"])
    loss, error = linear.evaluate(x, y, verbose=0)
    difference = np.array(base(x)) - y
    assert loss == pytest.approx(np.mean(difference[kept] ** 2), rel=1e-5)
    assert error == pytest.approx(np.mean(np.abs(difference[kept])), rel=1e-5)
    assert linear.train_on_batch(x, y)[0] == pytest.approx(loss, rel=1e-5)


def test_loss_and_metrics_by_output_and_for_one_output_only(rng, float64):
    inputs = keras.Input((4,))
    hidden = K.Dense(3, "tanh")(inputs)
    base = keras.Model(inputs, {"a": K.Dense(1)(hidden), "b": K.Dense(2)(hidden)})
    x = rng.standard_normal((6, 4))
    y = {"a": rng.standard_normal((6, 1)), "b": rng.standard_normal((6, 2))}
    linear = LinearizedModel(base)
    linear.compile(TorchSGD(1.0), loss={"a": "mse"}, metrics={"a": ["mae"]})
    before = np.array(base(x)["a"]) - y["a"]
    only = keras.Model(inputs, base.output["a"])
    logs = linear.train_on_batch(x, y, return_dict=True)
    assert logs["a_mae"] == pytest.approx(np.mean(np.abs(before)))
    chosen = {id(w) for w in only.trainable_weights}
    pairs = list(zip(linear.jacobian.weights, linear.trainable_weights, strict=True))
    assert all(np.any(np.array(u)) == (id(w) in chosen) for w, u in pairs)
    moved = flat(u for w, u in pairs if id(w) in chosen)
    expected = -dense_jacobian(only, x).T @ before.ravel() * 2 / 6
    np.testing.assert_allclose(moved, expected, rtol=1e-9, atol=1e-12)


def test_frozen_base_is_saved_and_loaded(rng, tmp_path):
    base = small()
    linear = LinearizedModel(base, weights=base.layers[0].trainable_weights, jvp="double_vjp")
    base.trainable = False
    linear.compile(TorchSGD(0.1), loss="mse")
    x = rng.standard_normal((6, 4)).astype("float32")
    linear.fit(x, x[:, :2], verbose=0)
    linear.save(tmp_path / "linear.keras")
    again = keras.saving.load_model(tmp_path / "linear.keras")
    assert again.jacobian.way == "double_vjp"
    assert [u.shape for u in again.trainable_weights] == [u.shape for u in linear.trainable_weights]
    np.testing.assert_array_equal(again.predict(x, verbose=0), linear.predict(x, verbose=0))


def test_export(rng, tmp_path):
    linear = LinearizedModel(small())
    for u in linear.trainable_weights:
        u.assign(rng.standard_normal(u.shape))
    linear.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(tmp_path / "served")
    x = rng.standard_normal((3, 4)).astype("float32")
    np.testing.assert_allclose(served.serve(x), linear.predict(x, verbose=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_rounds_alike_in_call_and_training(policy, rng):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    keras.utils.set_random_seed(0)
    try:
        inputs = keras.Input((6,))
        hidden = K.LayerNormalization()(K.Dense(16, "gelu")(inputs))
        base = keras.Model(inputs, K.Dense(3, dtype="float32")(hidden))
        linear = LinearizedModel(base)
        linear.compile(TorchSGD(0.1), loss="mse")
    finally:
        keras.config.set_dtype_policy(before)
    x = rng.standard_normal((8, 6)).astype("float32")
    y = rng.standard_normal((8, 3)).astype("float32")
    assert all(u.dtype == "float32" for u in linear.trainable_weights)
    # Rounding inputs to 10 bits in one of the two would differ by 1e-3.
    assert linear.evaluate(x, y, verbose=0) == pytest.approx(linear.train_on_batch(x, y), rel=1e-5)
    first = flat(linear.trainable_weights)
    assert np.abs(first).max() > 0
    tangent = np.array(linear(x)) - np.array(base(x))
    expected = dense_jacobian(base, x).astype("float64") @ first
    error = np.linalg.norm(tangent.ravel() - expected) / np.linalg.norm(expected)
    assert error < (0.02 if policy == "mixed_float16" else 0.1)
