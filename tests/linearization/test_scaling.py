"""Centered networks and the scaled loss, against gradient descent written out in NumPy."""

import keras
import numpy as np
import pytest
from references import dense_jacobian, flat
from scipy.special import log_softmax, softmax

from ntk_tf.linearization import CenteredModel, LazyLoss, LinearizedModel
from ntk_tf.training import TorchSGD
from ntk_tf.training.metrics import loss_function

RATE, MOMENTUM, N, D, H, L = 0.125, 0.5, 6, 4, 5, 3


@pytest.fixture
def data(rng, float64):
    return rng.standard_normal((N, D)), np.eye(L)[rng.integers(0, L, N)]


def network():
    keras.utils.set_random_seed(5)
    inputs = keras.Input((D,))
    x = keras.layers.Dense(H, "tanh", bias_initializer="normal")(inputs)
    return keras.Model(inputs, keras.layers.Dense(L, bias_initializer="normal")(x))


def trained(model, alpha, data, steps, loss="cross_entropy"):
    loss = LazyLoss(loss_function(loss, "float64"), alpha)
    model.compile(TorchSGD(RATE, MOMENTUM), loss)
    for _ in range(steps):
        model.train_on_batch(*data)
    return model


def residual(outputs, y, loss):
    """The gradient of the loss in the outputs."""
    if loss == "l2":
        return 2 * (outputs - y) / y.size
    return (softmax(outputs, axis=1) - y) / len(y)


def descent(weights, alpha, data, steps, loss):
    """alpha h of a tanh network after some updates, by its derivatives written out."""
    x, y = data

    def outputs(w):
        return np.tanh(x @ w[0] + w[1]) @ w[2] + w[3]

    start, velocity = outputs(weights), [np.zeros_like(w) for w in weights]
    for _ in range(steps):
        r = residual(alpha * (outputs(weights) - start), y, loss) / alpha
        hidden = np.tanh(x @ weights[0] + weights[1])
        back = r @ weights[2].T * (1 - hidden**2)
        gradients = x.T @ back, back.sum(0), hidden.T @ r, r.sum(0)
        velocity = [MOMENTUM * v + g for v, g in zip(velocity, gradients, strict=True)]
        weights = [w - RATE * v for w, v in zip(weights, velocity, strict=True)]
    return alpha * (outputs(weights) - start)


def limit(jacobian, data, steps):
    """J u after some updates of u by the same loss."""
    u = velocity = np.zeros(jacobian.shape[1])
    for _ in range(steps):
        outputs = (jacobian @ u).reshape(N, L)
        velocity = (
            MOMENTUM * velocity + jacobian.T @ residual(outputs, data[1], "cross_entropy").ravel()
        )
        u = u - RATE * velocity
    return (jacobian @ u).reshape(N, L)


@pytest.mark.parametrize("loss", ["l2", "cross_entropy"])
@pytest.mark.parametrize("alpha", [1.0, 0.1, 30.0])
def test_training_is_that_of_the_scaled_difference(alpha, loss, data):
    base = network()
    truth = descent([w.numpy() for w in base.weights], alpha, data, 4, loss)
    found = alpha * trained(CenteredModel(base), alpha, data, 4, loss)(data[0]).numpy()
    assert np.linalg.norm(truth) > 0.01
    np.testing.assert_allclose(found, truth, atol=1e-12 * max(1, np.abs(truth).max()))


@pytest.mark.parametrize("alpha", [1.0, 10.0, 1e7])
def test_loss_at_the_start(alpha, data):
    model = trained(CenteredModel(network()), alpha, data, 0)
    loss = model.evaluate(*data, verbose=0)
    many = LazyLoss(loss_function("cross_entropy", "float64"), alpha)
    assert loss == pytest.approx(np.log(L) / alpha**2, rel=1e-6)
    ten = many(np.eye(10)[:4], np.zeros((4, 10)))
    assert float(ten) == pytest.approx(np.log(10) / alpha**2, rel=1e-12)


def test_distance_to_the_centered_linearization_falls_as_one_over_alpha(data):
    steps = 20
    base = network()
    truth = limit(dense_jacobian(base, data[0]), data, steps)
    linearized = trained(LinearizedModel(base, centered=True), 1.0, data, steps)
    np.testing.assert_allclose(linearized(data[0]), truth, atol=1e-12)
    distances = []
    for alpha in (1e3, 1e4, 1e5):
        outputs = alpha * trained(CenteredModel(network()), alpha, data, steps)(data[0]).numpy()
        distances.append(np.linalg.norm(outputs - truth))
    assert distances[0] < 0.1 * np.linalg.norm(truth)
    ratios = np.divide(distances[:-1], distances[1:])
    assert np.all((ratios > 8) & (ratios < 12)), ratios


def test_a_centered_linearization_has_no_offset(data, rng, tmp_path):
    base = network()
    u = rng.standard_normal(base.count_params())
    models = [LinearizedModel(base, centered=centered) for centered in (True, False)]
    for model in models:
        position = 0
        for weight in model.trainable_weights:
            size = int(np.prod(weight.shape))
            weight.assign(u[position : position + size].reshape(weight.shape))
            position += size
    tangent = (dense_jacobian(base, data[0]) @ u).reshape(N, L)
    np.testing.assert_allclose(models[0](data[0]), tangent, atol=1e-12)
    np.testing.assert_allclose(models[1](data[0]), base(data[0]) + tangent, atol=1e-12)
    models[0].save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(data[0]), tangent, atol=1e-12)


def test_the_start_and_frozen_weights_stay(data):
    base = network()
    base.layers[1].bias.trainable = False
    start = [w.numpy() for w in base.weights]
    model = CenteredModel(base)
    assert np.all(model(data[0]).numpy() == 0)
    trained(model, 1.0, data, 2)
    moved = [bool(np.any(a != b)) for a, b in zip(start, base.weights, strict=True)]
    assert moved == [True, False, True, True]
    np.testing.assert_array_equal(flat(model.start), flat([start[0], start[2], start[3]]))
    assert [w.path for w in model.trainable_weights] == [w.path for w in base.trainable_weights]


def test_a_centered_network_is_a_fixed_function(rng):
    """Batch normalization and dropout are as in inference: h starts at 0 and no state changes."""
    layers = [keras.Input((4,)), keras.layers.BatchNormalization(), keras.layers.Dropout(0.5)]
    base = keras.Sequential([*layers, keras.layers.Dense(2)])
    model = CenteredModel(base)
    x = rng.standard_normal((5, 4)).astype("float32")
    assert np.all(model(x, training=True).numpy() == 0)
    model.compile(TorchSGD(0.1), "mse")
    mean = base.layers[0].moving_mean.numpy()
    model.fit(x, np.ones((5, 2)), verbose=0)
    np.testing.assert_array_equal(base.layers[0].moving_mean, mean)
    assert np.abs(model(x)).max() > 0


def test_the_loss_is_that_of_the_scaled_outputs(rng, float64):
    y, h = np.eye(L)[[0, 2]], rng.standard_normal((2, L))
    loss = LazyLoss(loss_function("cross_entropy", "float64"), 3.0)
    truth = -np.mean(np.sum(y * log_softmax(3 * h, axis=1), axis=1)) / 9
    assert float(loss(y, h)) == pytest.approx(truth, rel=1e-12)


def test_refusals():
    with pytest.raises(ValueError, match=r"alpha=0: must be above 0"):
        LazyLoss(loss_function("l2"), 0)
    with pytest.raises(ValueError, match="must be built and have trainable weights"):
        CenteredModel(keras.Sequential([keras.layers.Dense(2)], name="unbuilt"))


class Own(keras.Model):
    """A network with a weight of its own, whose call takes inputs alone."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 2))
        self.built = True

    def call(self, x):
        return keras.ops.tanh(keras.ops.matmul(x, self.kernel))


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_networks_of_ones_own_start_at_zero(dtype, rng):
    x = rng.standard_normal((5, 4)).astype("float32")
    base = Own(dtype=dtype)
    base(x)
    assert not np.any(np.asarray(CenteredModel(base)(x), "float32"))


def test_a_linearization_with_a_lazy_loss_is_loaded(rng, tmp_path):
    x, y = rng.standard_normal((6, 3)).astype("float32"), rng.standard_normal((6, 2))
    base = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    linear = LinearizedModel(base, centered=True)
    linear.compile(optimizer=TorchSGD(0.1), loss=LazyLoss(keras.losses.MeanSquaredError(), 10.0))
    linear.fit(x, y, verbose=0)
    linear.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.evaluate(x, y, verbose=0) == linear.evaluate(x, y, verbose=0)


def test_the_loss_keeps_its_reduction(rng):
    y, f = rng.standard_normal((2, 6, 2))
    for reduction in ("sum", "sum_over_batch_size"):
        loss = keras.losses.MeanSquaredError(reduction=reduction)
        assert float(LazyLoss(loss, 1.0)(y, f)) == pytest.approx(float(loss(y, f)))
    with pytest.raises(ValueError, match="loss='mse': must be a keras.losses.Loss"):
        LazyLoss("mse", 2.0)
