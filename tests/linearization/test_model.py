"""LinearizedModel against finite differences, dense Jacobians and the adjoint identity."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from references import assign_flat, dense_jacobian, flat

from ntk_tf import models
from ntk_tf.linearization import LinearizedModel
from ntk_tf.models.pooling import AdaptiveAveragePooling2D
from ntk_tf.training import TorchSGD

#: Every architecture at a size whose dense Jacobian fits: (arch, width, input shape).
SMALL = [("lenet", 0.5, (16, 16, 1)), ("alexnet", 1 / 64, (63, 63, 3))]
L = 4


def build(arch, width, shape, seed=0):
    return models.build(arch, width, L, shape, seed)


def overlapping(shape=(9, 9, 1)):
    """What AlexNet has besides LeNet's layers: pooling windows that overlap, an adaptive mean."""
    inputs = keras.Input(shape, dtype=keras.config.dtype_policy().variable_dtype)
    x = keras.layers.Conv2D(3, 3, activation="relu")(inputs)
    x = AdaptiveAveragePooling2D(2)(models.MaxPooling2D(3, 2)(x))
    return keras.Model(inputs, keras.layers.Dense(L)(keras.layers.Flatten()(x)))


def perturb(variables, rng, scale=0.05):
    for variable in variables:
        variable.assign(scale * rng.standard_normal(variable.shape))


def one_hot(rng, n):
    return np.eye(L)[rng.integers(0, L, n)]


@pytest.mark.parametrize(("arch", "width", "shape"), SMALL)
def test_jvp_equals_central_finite_differences(arch, width, shape, rng, float64):
    base = build(arch, width, shape)
    linear = LinearizedModel(base)
    perturb(linear.trainable_weights, rng)
    x = rng.standard_normal((3, *shape))
    w0, u = flat(base.trainable_weights), flat(linear.trainable_weights)
    jvp = linear(x) - base(x)
    h = 1e-6
    assign_flat(base.trainable_weights, w0 + h * u)
    above = base(x)
    assign_flat(base.trainable_weights, w0 - h * u)
    below = base(x)
    np.testing.assert_allclose(jvp, (above - below) / (2 * h), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("arch", "loss"),
    [
        ("lenet", "mean_squared_error"),
        ("lenet", "cross_entropy"),
        ("lenet", "huber"),
        ("alexnet", "mean_squared_error"),
    ],
)
def test_gradient_equals_dense_jacobian(arch, loss, rng, float64):
    (width, shape) = next(rest for name, *rest in SMALL if name == arch)
    base = build(arch, width, shape)
    linear = LinearizedModel(base)
    perturb(linear.trainable_weights, rng)
    u = flat(linear.trainable_weights)
    x, y = rng.standard_normal((3, *shape)), one_hot(rng, 3)
    losses = {
        "mean_squared_error": keras.losses.MeanSquaredError(),
        "cross_entropy": keras.losses.CategoricalCrossentropy(from_logits=True),
        "huber": keras.losses.Huber(delta=0.1),
    }
    linear.compile(optimizer=TorchSGD(1.0), loss=losses[loss])
    prediction_before = linear.predict(x, verbose=0)
    linear.train_on_batch(x, y)
    gradient = u - flat(linear.trainable_weights)

    jacobian = dense_jacobian(base, x)
    outputs = np.reshape(base(x), -1) + jacobian @ u
    with tf.GradientTape() as tape:
        prediction = tf.Variable(outputs.reshape(3, L))
        value = losses[loss](y, prediction)
    residual = np.ravel(tape.gradient(value, prediction))
    np.testing.assert_allclose(gradient, jacobian.T @ residual, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(prediction_before, outputs.reshape(3, L), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["lenet", "overlapping"])
def test_adjoint_identity(name, dtype, jit, rng):
    """<r, J u> = <J^T r, u>, the identity that XLA breaks for the native max pooling."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    base = overlapping() if name == "overlapping" else build(*SMALL[0])
    keras.config.set_dtype_policy(before)
    shape = base.input_shape[1:]
    weights = [w.value for w in base.trainable_weights]
    smooth = rng.standard_normal((4, *shape))
    with_ties = np.round(smooth.clip(0, 1))
    u = [tf.constant(0.1 * rng.standard_normal(w.shape), dtype) for w in weights]
    r = tf.constant(rng.standard_normal((4, L)), dtype)

    @tf.function(jit_compile=jit)
    def both(x, r, *u):
        with (
            tf.GradientTape() as tape,
            tf.autodiff.ForwardAccumulator(weights, list(u)) as accumulator,
        ):
            f = base(x, training=False)
        return accumulator.jvp(f), tape.gradient(f, weights, output_gradients=r)

    for x in (smooth, with_ties):
        jvp, vjp = both(tf.constant(x, dtype), r, *u)
        left = np.sum(np.float64(r) * np.float64(jvp))
        right = np.dot(np.float64(flat(vjp)), np.float64(flat(u)))
        scale = np.linalg.norm(r) * np.linalg.norm(jvp)
        assert abs(left - right) < (1e-6 if dtype == "float32" else 1e-14) * scale


@pytest.mark.parametrize("jit", [False, True])
def test_training_with_and_without_xla_agrees(jit, rng):
    """Three steps of float32 training, jitted or not, against float64 dense algebra."""
    base = overlapping()
    linear = LinearizedModel(base)
    linear.compile(optimizer=TorchSGD(0.1, 0.9), loss="mse", jit_compile=jit)
    x = rng.standard_normal((8, 9, 9, 1)).astype("float32")
    y = one_hot(rng, 8).astype("float32")
    jacobian, f0 = dense_jacobian(base, x).astype("float64"), np.ravel(base(x)).astype("float64")
    u = velocity = np.zeros(jacobian.shape[1])
    for _ in range(3):
        linear.train_on_batch(x, y)
        velocity = 0.9 * velocity + jacobian.T @ (f0 + jacobian @ u - y.ravel()) * 2 / y.size
        u = u - 0.1 * velocity
    # Under XLA equal maxima of a window may be told apart by rounding; smooth inputs have none.
    np.testing.assert_allclose(flat(linear.trainable_weights), u, atol=1e-5 * np.abs(u).max())


def test_xla_refuses_native_max_pooling(rng):
    def pooled():
        inputs = keras.Input((8, 8, 1))
        x = keras.layers.Conv2D(3, 3)(inputs)
        x = keras.layers.MaxPooling2D(2)(x)
        return keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(x)))

    linear = LinearizedModel(pooled())
    linear.compile(optimizer=TorchSGD(0.1), loss="mse")
    assert not linear.jit_compile
    with pytest.warns(UserWarning, match="jit_compile=False"):
        linear.compile(optimizer=TorchSGD(0.1), loss="mse", jit_compile=True)
    assert not linear.jit_compile
    with pytest.raises(ValueError, match=r"max_pooling2d.*ntk_tf\.models\.MaxPooling2D"):
        tf.function(linear, jit_compile=True)(tf.zeros((1, 8, 8, 1)))


def test_starts_at_the_base_and_keeps_it(rng):
    base = build("lenet", 1, (16, 16, 1))
    linear = LinearizedModel(base)
    x = rng.standard_normal((5, 16, 16, 1)).astype("float32")
    np.testing.assert_array_equal(linear(x), base(x))
    assert [tuple(u.shape) for u in linear.trainable_weights] == [
        tuple(w.shape) for w in base.trainable_weights
    ]
    before = flat(base.weights)
    linear.compile(optimizer=TorchSGD(0.1), loss="mse")
    linear.fit(x, one_hot(rng, 5), epochs=2, verbose=0)
    np.testing.assert_array_equal(flat(base.weights), before)
    assert base.trainable_weights
    assert np.abs(flat(linear.trainable_weights)).max() > 0


def test_keras_interface(rng, tmp_path):
    """fit with validation, weights, metrics, callbacks and long executions; evaluate; saving."""
    linear = LinearizedModel(models.build("mlp", 1, L, (16, 16, 1), depth=2))
    linear.compile(
        optimizer=TorchSGD(0.005, 0.9, 1e-4),
        loss="mse",
        metrics=["accuracy"],
        weighted_metrics=["mse"],
        steps_per_execution=3,
    )
    x = rng.standard_normal((20, 16, 16, 1)).astype("float32")
    y = one_hot(rng, 20).astype("float32")
    seen = []
    history = linear.fit(
        x,
        y,
        sample_weight=np.linspace(0.5, 1.5, 20),
        batch_size=3,
        epochs=8,
        validation_data=(x, y),
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=lambda e, logs: seen.append(logs))],
        verbose=0,
    )
    assert history.history["loss"][-1] < history.history["loss"][0]
    assert len(seen) == 8
    assert "val_accuracy" in seen[-1]
    evaluated = linear.evaluate(x, y, verbose=0, return_dict=True)
    prediction = linear.predict(x, verbose=0)
    assert evaluated["loss"] == pytest.approx(np.mean((prediction - y) ** 2), rel=1e-5)
    accuracy = np.mean(prediction.argmax(1) == y.argmax(1))
    assert evaluated["accuracy"] == pytest.approx(accuracy)

    linear.save(tmp_path / "linear.keras")
    loaded = keras.saving.load_model(tmp_path / "linear.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), prediction)
    for one, other in ((linear, loaded), (loaded, linear)):
        assert len(one.trainable_weights) == len(other.trainable_weights)
        one.fit(x, y, batch_size=4, shuffle=False, verbose=0)
    np.testing.assert_allclose(
        flat(loaded.trainable_weights), flat(linear.trainable_weights), rtol=1e-6
    )


def test_saving_keeps_which_weight_a_tangent_belongs_to(rng, tmp_path):
    """Also where they are in another order than the base's, and of equal shapes."""
    inputs = keras.Input((3,))
    base = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Dense(3)(inputs)))
    linear = LinearizedModel(base, [base.weights[2], base.weights[0]])
    for u in linear.trainable_weights:
        u.assign(rng.standard_normal(u.shape))
    x = rng.standard_normal((4, 3)).astype("float32")
    linear.save(tmp_path / "linear.keras")
    loaded = keras.saving.load_model(tmp_path / "linear.keras")
    np.testing.assert_array_equal(loaded(x), linear(x))


def test_sample_weights_and_loss_metric(rng):
    """The reported loss and the step are those of the weighted loss."""
    base = build("lenet", 1, (16, 16, 1))
    linear = LinearizedModel(base)
    linear.compile(optimizer=TorchSGD(1.0), loss="mse")
    x = rng.standard_normal((4, 16, 16, 1)).astype("float32")
    y, weight = one_hot(rng, 4), np.array([0.0, 1, 2, 3])
    loss = linear.train_on_batch(x, y, sample_weight=weight)
    errors = np.asarray(base(x), "float64") - y
    assert loss == pytest.approx(np.mean(weight * np.mean(errors**2, axis=1)), rel=1e-5)
    residual = (2 / L / 4) * weight[:, None] * errors
    expected = -dense_jacobian(base, x).T.astype("float64") @ residual.ravel()
    np.testing.assert_allclose(flat(linear.trainable_weights), expected, atol=1e-6)


def test_base_with_state_is_linearized_in_inference_mode(rng, float64):
    """Batch normalization and dropout: the base is a fixed function and keeps its state."""
    inputs = keras.Input((6,))
    x = keras.layers.Dense(5, activation="tanh")(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Dropout(0.5)(x)
    base = keras.Model(inputs, keras.layers.Dense(L)(x))
    base.layers[2].moving_mean.assign(rng.standard_normal(5))
    base.layers[2].moving_variance.assign(rng.uniform(0.5, 2, 5))
    state = flat(base.non_trainable_weights)
    linear = LinearizedModel(base)
    data, y = rng.standard_normal((7, 6)), one_hot(rng, 7)
    linear.compile(optimizer=TorchSGD(1.0), loss="mse")
    linear.train_on_batch(data, y)
    jacobian = dense_jacobian(base, data)
    expected = -jacobian.T @ (np.ravel(base(data)) - y.ravel()) * 2 / y.size
    np.testing.assert_allclose(flat(linear.trainable_weights), expected, rtol=1e-9, atol=1e-14)
    np.testing.assert_array_equal(flat(base.non_trainable_weights), state)


def test_several_outputs_and_unused_weights(rng, float64):
    inputs = keras.Input((3,))
    hidden = keras.layers.Dense(4, activation="tanh")(inputs)
    dead = keras.layers.Dense(4, activation="relu", name="unused")(inputs) * 0.0
    outputs = [keras.layers.Dense(2)(hidden + dead), keras.layers.Dense(1)(hidden)]
    base = keras.Model(inputs, outputs)
    linear = LinearizedModel(base)
    linear.compile(optimizer=TorchSGD(0.1), loss=["mse", "mse"])
    x = rng.standard_normal((5, 3))
    targets = [rng.standard_normal((5, 2)), rng.standard_normal((5, 1))]
    before = linear.evaluate(x, targets, verbose=0)[0]
    linear.fit(x, targets, epochs=20, verbose=0)
    assert linear.evaluate(x, targets, verbose=0)[0] < before
    for weight, u in zip(base.trainable_weights, linear.trainable_weights, strict=True):
        assert np.any(u.numpy()) != ("unused" in weight.path)


def test_summary_shows_the_base_and_counts_u(capsys):
    base = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="hidden")])
    model = LinearizedModel(base, weights=base.weights[:1], name="lin")
    model.summary()
    first, *rest = capsys.readouterr().out.splitlines()
    assert '"lin"' in first
    assert "12 parameters" in first
    assert any("hidden" in line for line in rest)
    lines = []
    model.summary(print_fn=lambda line, **_: lines.append(line), show_trainable=True)
    assert lines[0] == first
    assert "hidden" in "".join(lines)
    assert not capsys.readouterr().out


def test_frozen_biases_have_no_tangent(rng, float64):
    """T = f + J_kernels u, with all of J from backward passes; biases never change."""
    arch, width, shape = SMALL[0]
    base = build(arch, width, shape)
    x = rng.standard_normal((3, *shape))
    columns = np.cumsum([0] + [np.prod(w.shape) for w in base.weights])
    kernels = [i for i, w in enumerate(base.weights) if w.path.endswith("kernel")]
    chosen = np.concatenate([np.arange(columns[i], columns[i + 1]) for i in kernels])
    jacobian = dense_jacobian(base, x)[:, chosen]
    models.freeze_biases(base)
    linear = LinearizedModel(base)
    assert [tuple(u.shape) for u in linear.trainable_weights] == [
        tuple(base.weights[i].shape) for i in kernels
    ]
    perturb(linear.trainable_weights, rng)
    u = flat(linear.trainable_weights)
    outputs = np.ravel(base(x)) + jacobian @ u
    np.testing.assert_allclose(np.ravel(linear(x)), outputs, rtol=1e-9, atol=1e-12)
    linear.compile(optimizer=TorchSGD(1.0), loss="mse")
    before = flat(base.weights)
    y = one_hot(rng, 3)
    linear.train_on_batch(x, y)
    expected = u - jacobian.T @ (outputs - y.ravel()) * 2 / y.size
    np.testing.assert_allclose(flat(linear.trainable_weights), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(flat(base.weights), before)


def test_refuses_models_it_cannot_linearize():
    with pytest.raises(ValueError, match="built"):
        LinearizedModel(keras.Sequential([keras.layers.Dense(2)]))
    frozen = build("lenet", 1, (16, 16, 1))
    frozen.trainable = False
    with pytest.raises(ValueError, match="trainable weights"):
        LinearizedModel(frozen)
