"""Products and estimates without the Gram against the Gram itself."""

import keras
import numpy as np
import pytest
from keras import layers
from references import dense_jacobian
from scipy.sparse.linalg import aslinearoperator

from ntk_tf import models, ntk


def lenet(rng, n=40):
    model = models.build("lenet", 1, 5, (16, 16, 1), 0)
    return model, rng.standard_normal((n, 16, 16, 1)).astype(keras.config.floatx())


def around(layer, shape):
    inputs = keras.Input(shape)
    x = layers.Flatten()(layers.Activation("tanh")(layer(inputs)))
    return keras.Model(inputs, layers.Dense(3)(x))


def matrix(gram):
    return gram.reshape(gram.shape[0] * gram.shape[1], -1)


def test_products_are_the_grams(rng, float64):
    model, x = lenet(rng, 7)
    jacobian = dense_jacobian(model, x)
    gram, v = jacobian @ jacobian.T, rng.standard_normal((7, 5))
    truth = (gram @ v.ravel()).reshape(7, 5)
    for batch_size in (3, 7, 100):
        found = ntk.product(model, x, v, batch_size)
        assert found.shape == (7, 5)
        np.testing.assert_allclose(found, truth, rtol=0, atol=1e-12 * np.abs(truth).max())
        operator = ntk.KernelOperator(model, x, batch_size)
        np.testing.assert_allclose(operator @ np.eye(35), gram, rtol=0, atol=1e-12 * gram.max())
        np.testing.assert_array_equal(operator.T @ v.ravel(), operator @ v.ravel())


@pytest.mark.parametrize("name", ["recurrent", "grouped"])
def test_products_through_other_layers(name, rng, float64):
    layer = (
        layers.SimpleRNN(4, unroll=True) if name == "recurrent" else layers.Conv1D(4, 2, groups=2)
    )
    model, x = around(layer, (3, 2)), rng.standard_normal((4, 3, 2))
    jacobian, v = dense_jacobian(model, x), rng.standard_normal((4, 3))
    truth = (jacobian @ (jacobian.T @ v.ravel())).reshape(4, 3)
    np.testing.assert_allclose(ntk.product(model, x, v), truth, rtol=1e-10)


def test_an_operation_whose_forward_derivative_tensorflow_lacks(rng, float64):
    inputs = keras.Input((3, 3, 2))
    x = layers.UpSampling2D(2, interpolation="bilinear")(layers.Conv2D(3, 2)(inputs))
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    x, v = rng.standard_normal((4, 3, 3, 2)), rng.standard_normal((4, 3))
    jacobian = dense_jacobian(model, x)
    found = ntk.product(model, x, v)
    expected = jacobian @ (jacobian.T @ v.ravel())
    np.testing.assert_allclose(found.ravel(), expected, atol=1e-5 * np.abs(expected).max())


def test_follows_the_weights_and_any_scale(rng):
    model, x = lenet(rng, 6)
    operator, kernel = ntk.KernelOperator(model, x), ntk.GramFunction(model)
    for scale in (1.0, 1e-30, 1e30):
        for w in model.trainable_weights:
            w.assign(0.9 * w)
        truth = matrix(kernel(x)).sum(axis=1)
        found = operator @ np.full(30, scale) / scale
        np.testing.assert_allclose(found, truth, rtol=0, atol=1e-5 * np.abs(truth).max())
    np.testing.assert_array_equal(operator @ np.zeros(30), np.zeros(30))


def test_top_eigenvalues_are_the_dense_ones(rng, float64):
    model, x = lenet(rng)
    dense, vectors = np.linalg.eigh(matrix(ntk.gram(model, x, precision="float64")))
    values, found = ntk.top_eigenvalues(ntk.KernelOperator(model, x), 20)
    np.testing.assert_allclose(values, dense[::-1][:20], rtol=1e-6)
    assert abs(found[:, 0] @ vectors[:, -1]) > 1 - 1e-6


def test_stochastic_effective_rank_is_near_and_knows_how_near(rng):
    model, x = lenet(rng)
    spectrum = ntk.decompose(ntk.gram(model, x))
    operator = ntk.KernelOperator(model, x)
    found = ntk.estimate_spectrum(operator, probes=12, steps=30, deflate=12)
    assert found.effective_rank == pytest.approx(spectrum.effective_rank, rel=0.02)
    assert found.trace == pytest.approx(spectrum.trace, rel=0.05)
    assert found.products >= 12 * 30


@pytest.mark.parametrize("deflate", [0, 5])
def test_error_bars_are_honest(deflate, rng):
    """Over many seeds the errors are as large as they say."""
    factor = rng.standard_normal((60, 60)) * np.linspace(0.1, 2, 60)
    truth = ntk.decompose(kernel := factor @ factor.T)
    ranks, traces = [], []
    for seed in range(60):
        found = ntk.estimate_spectrum(aslinearoperator(kernel), 8, 60, deflate, seed)
        rank_miss = found.effective_rank - truth.effective_rank
        ranks.append(rank_miss / found.effective_rank_error)
        traces.append((found.trace - truth.trace) / found.trace_error)
    for errors in (ranks, traces):
        assert 0.75 < np.sqrt(np.mean(np.square(errors))) < 1.6
        assert abs(np.mean(errors)) < 0.6


def test_few_steps_know_what_they_miss(rng):
    """The eigenvalues fall by six powers of ten, most of them below what few steps see."""
    basis = np.linalg.qr(rng.standard_normal((200, 200)))[0]
    kernel = (basis * np.logspace(0, -6, 200)) @ basis.T
    truth = ntk.decompose(kernel).effective_rank
    misses, errors = [], []
    for steps in (4, 8, 16, 32):
        found = ntk.estimate_spectrum(aslinearoperator(kernel), 40, steps, deflate=5)
        misses.append(abs(found.effective_rank - truth))
        errors.append(found.effective_rank_error)
        assert misses[-1] < 2 * found.effective_rank_error
        assert found.quadrature_error < found.effective_rank_error
    assert misses[-1] < misses[0] / 5
    assert errors == sorted(errors, reverse=True)


def test_a_quadrature_s_error_is_half_of_what_the_rules_differ_by(rng):
    """Gauss' and Gauss-Radau's rule from an orthonormal basis of the Krylov space, and T in it."""
    basis, steps = np.linalg.qr(rng.standard_normal((20, 20)))[0], 3
    kernel = (basis * np.logspace(0, -4, 20)) @ basis.T
    found = ntk.estimate_spectrum(aslinearoperator(kernel), 2, steps, deflate=0, seed=7)
    sums, draws = [], np.random.default_rng(7)
    for start in (draws.choice([-1.0, 1.0], 20) for _ in range(2)):
        powers = [np.linalg.matrix_power(kernel, i) @ start for i in range(steps + 1)]
        q = np.linalg.qr(np.stack(powers, axis=1))[0]
        gauss, radau = q[:, :steps].T @ kernel @ q[:, :steps], q.T @ kernel @ q
        beside = radau[:-1, -1]
        radau[-1, -1] = beside @ np.linalg.solve(gauss, beside)  # makes 0 an eigenvalue
        for rule in (gauss, radau):
            values, vectors = np.linalg.eigh(rule)
            roots, weights = np.sqrt(np.maximum(values, 1e-300)), 20 * vectors[0] ** 2
            sums.append([weights @ roots, weights @ (roots * np.log(roots))])
    ranks = [np.exp(np.log(s) - h / s) for s, h in (np.mean(sums[i::2], axis=0) for i in (0, 1))]
    assert found.effective_rank == pytest.approx(ranks[0], rel=1e-6)
    assert found.quadrature_error == pytest.approx(abs(ranks[0] - ranks[1]) / 2, rel=1e-5)


def test_exact_for_kernels_of_low_rank(rng):
    factor = rng.standard_normal((30, 4))
    truth = ntk.decompose(factor @ factor.T)
    operator = aslinearoperator(factor @ factor.T)
    found = ntk.estimate_spectrum(operator, probes=200, steps=25, deflate=0)
    assert found.effective_rank == pytest.approx(truth.effective_rank, rel=0.05)
    taken = ntk.estimate_spectrum(operator, probes=2, deflate=4)
    assert taken.effective_rank == pytest.approx(truth.effective_rank, rel=1e-6)
    assert taken.trace == pytest.approx(truth.trace, rel=1e-9)


def test_refuses_bad_input(rng):
    model, x = lenet(rng, 3)
    with pytest.raises(ValueError, match="vectors of 15 numbers"):
        ntk.product(model, x, np.zeros(7))
    with pytest.raises(ValueError, match="batch_size=0"):
        ntk.KernelOperator(model, x, 0)
    operator = ntk.KernelOperator(model, x)
    with pytest.raises(ValueError, match="count=15: must be at least 1 and less than the 15"):
        ntk.top_eigenvalues(operator, 15)
    with pytest.raises(ValueError, match="probes=1"):
        ntk.estimate_spectrum(operator, probes=1)
    model.trainable = False
    with pytest.raises(ValueError, match="trainable weights"):
        ntk.KernelOperator(model, x)


@pytest.mark.parametrize("count", [2, 4, 8])
def test_equal_examples(count):
    """Probes may lie wholly in the one direction that is deflated."""
    kernel = np.full((count, count), 3.0)
    found = ntk.estimate_spectrum(aslinearoperator(kernel), 20, 5, deflate=1)
    assert found.trace == pytest.approx(3.0 * count)
    assert found.effective_rank == pytest.approx(1, abs=1e-6)


def test_the_largest_eigenvalues_are_not_those_of_largest_magnitude():
    """As of a difference of two kernels."""
    values, vectors = ntk.top_eigenvalues(aslinearoperator(np.diag([-10.0, 1, 2, 3, 0.5])), 2)
    np.testing.assert_allclose(values, [3, 2])
    np.testing.assert_allclose(np.abs(vectors), np.eye(5)[:, [3, 2]], atol=1e-7)


def test_a_kernel_that_is_zero():
    nothing = aslinearoperator(np.zeros((30, 30)))
    values, vectors = ntk.top_eigenvalues(nothing, 3)
    np.testing.assert_array_equal(values, 0)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3))
    for deflate in (0, 5):
        with pytest.raises(ValueError, match="the operator is zero, which has no effective rank"):
            ntk.estimate_spectrum(nothing, deflate=deflate)
