"""Kernel regression against least squares in the explicit features."""

import numpy as np
import pytest
import tensorflow as tf

from ntk_tf import ntk
from ntk_tf.ntk.leave_one_out import leave_one_out


def problem(rng, rows=12, weights=40):
    features = rng.standard_normal((rows, weights))
    targets, offset = rng.standard_normal((2, rows // 3, 3))
    return features, (features @ features.T).reshape(rows // 3, 3, rows // 3, 3), targets, offset


@pytest.mark.parametrize("weights", [7, 40])
@pytest.mark.parametrize("ridge", [1e-3, 1.0])
def test_ridge_minimizes_the_loss(ridge, weights, rng):
    """The gradient of |f + A u - y|^2 / rows + ridge/2 |u|^2 is 0 at u = A^T alpha."""
    features, gram, targets, offset = problem(rng, weights=weights)
    found = ntk.kernel_regression(gram, targets, offset, ridge)
    u = features.T @ found.dual.ravel()
    fitted = offset.ravel() + features @ u
    gradient = 2 / 12 * features.T @ (fitted - targets.ravel()) + ridge * u
    np.testing.assert_allclose(gradient, 0, atol=1e-12)
    np.testing.assert_allclose(found.fitted.ravel(), fitted, atol=1e-10)


def test_without_ridge_interpolates(rng):
    _, gram, targets, offset = problem(rng)
    np.testing.assert_allclose(
        ntk.kernel_regression(gram, targets, offset).fitted, targets, atol=1e-9
    )


def test_without_ridge_and_full_rank_is_least_squares(rng):
    features, gram, targets, offset = problem(rng, weights=7)
    found = ntk.kernel_regression(gram, targets, offset)
    u = np.linalg.lstsq(features, (targets - offset).ravel(), rcond=None)[0]
    np.testing.assert_allclose(features.T @ found.dual.ravel(), u, rtol=1e-6)
    np.testing.assert_allclose(found.fitted.ravel(), offset.ravel() + features @ u, atol=1e-8)


def test_refuses_bad_input(rng):
    _, gram, targets, offset = problem(rng)
    with pytest.raises(ValueError, match="ridge=-1"):
        ntk.kernel_regression(gram, targets, offset, -1)
    with pytest.raises(ValueError, match="do not belong"):
        ntk.kernel_regression(gram, targets[:-1], offset[:-1])
    kernel = np.eye(6)
    for regression in (ntk.kernel_regression, leave_one_out):
        with pytest.raises(ValueError, match="integers 0 to 2: numbers of classes have no size"):
            regression(kernel, np.arange(6) % 3)
        with pytest.raises(ValueError, match="must be of at least one example"):
            regression(np.zeros((0, 0)), np.zeros((0, 2)))
    with pytest.raises(ValueError, match="relative_shifts=.*at least one"):
        leave_one_out(kernel, np.ones((6, 1)), [])


@pytest.mark.parametrize("weights", [7, 11])
@pytest.mark.parametrize("noise", [np.finfo(np.float32).eps, 0])
def test_singular_kernels_with_rounding_are_least_squares(weights, noise, rng):
    """As by float32 products: entries wrong by eps |g_i| |g_j|."""
    features, gram, targets, offset = problem(rng, 60, weights)
    wrong = np.triu(rng.standard_normal((60, 60))) / 2
    size = np.linalg.norm(features, axis=1)
    matrix = gram.reshape(60, 60) + noise * np.outer(size, size) * (wrong + wrong.T)
    found = ntk.kernel_regression(matrix.reshape(gram.shape), targets, offset)
    u = np.linalg.lstsq(features, (targets - offset).ravel(), rcond=None)[0]
    np.testing.assert_allclose(found.fitted.ravel(), offset.ravel() + features @ u, atol=1e-3)
    np.testing.assert_allclose(features.T @ found.dual.ravel(), u, atol=1e-3)


@pytest.mark.parametrize("ratio", [1e-6, 1e-12])
def test_the_cut_off_is_that_of_the_precision(ratio, rng):
    """An eigenvalue of 1e-12 counts in float64 and not in float32; one of 1e-6 in both."""
    vectors = np.linalg.qr(rng.standard_normal((12, 12)))[0]
    values = np.r_[np.ones(11), ratio]
    targets, offset = np.ones((4, 3)), np.zeros((4, 3))
    gram = (vectors * values) @ vectors.T
    single, double = (
        ntk.kernel_regression(gram, targets, offset, precision=p).fitted.ravel()
        for p in ("float32", "float64")
    )
    np.testing.assert_allclose(double, 1, atol=1e-3)
    kept = vectors[:, : 12 if ratio == 1e-6 else 11]
    np.testing.assert_allclose(single, kept @ (kept.T @ np.ones(12)), atol=1e-6)


@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_one_kernel_for_each_output(ridge, rng):
    factor = rng.standard_normal((9, 20))
    kernel = factor @ factor.T
    targets, offset = rng.standard_normal((2, 9, 4))
    full = np.einsum("ij,lm->iljm", kernel, np.eye(4))
    one = ntk.kernel_regression(kernel, targets, offset, ridge)
    all_of_them = ntk.kernel_regression(full, targets, offset, ridge)
    np.testing.assert_allclose(one.dual, all_of_them.dual, rtol=1e-8)
    np.testing.assert_allclose(one.fitted, all_of_them.fitted, rtol=1e-8)


def test_predictions_elsewhere_are_those_of_the_features(rng):
    features, gram, targets, offset = problem(rng)
    others, f = rng.standard_normal((6, 40)), rng.standard_normal((2, 3))
    found = ntk.kernel_regression(gram, targets, offset, 0.1)
    truth = f + (others @ features.T @ found.dual.ravel()).reshape(2, 3)
    cross = (others @ features.T).reshape(2, 3, 4, 3)
    np.testing.assert_allclose(found.predict(cross, f), truth, rtol=1e-12)
    kernel, across = features[:4] @ features[:4].T, others[:2] @ features[:4].T
    one = ntk.kernel_regression(kernel, targets, offset, 0.1)
    np.testing.assert_allclose(one.predict(across, f), f + across @ one.dual, rtol=1e-12)


def test_arguments_may_be_of_other_kinds(rng):
    """Lists and TensorFlow's tensors, such as a model's outputs."""
    features = rng.standard_normal((6, 20))
    kernel, y, f = features @ features.T, rng.standard_normal((6, 1)), rng.standard_normal((6, 1))
    expected = ntk.kernel_regression(kernel, y, f, 0.1)
    found = ntk.kernel_regression(kernel.tolist(), y.tolist(), tf.constant(f), 0.1)
    np.testing.assert_array_equal(found.dual, expected.dual)
    np.testing.assert_array_equal(
        found.predict(kernel[:3], tf.constant(f[:3])), expected.predict(kernel[:3], f[:3])
    )
    two = ntk.kernel_regression(np.kron(kernel, np.eye(2)), np.hstack([y, f]), np.hstack([f, y]))
    cross, offset = np.kron(kernel[:3], np.eye(2)), np.hstack([f, y])[:3]
    np.testing.assert_array_equal(
        two.predict(cross, offset), two.predict(cross.reshape(3, 2, 6, 2), offset)
    )
    for offset in (f[:3, 0], f[:2], np.zeros((3, 2))):
        with pytest.raises(ValueError, match="do not belong to a regression of targets"):
            found.predict(kernel[:3], offset)


def test_modules_are_there():
    for name in ("compare", "infinite", "leave_one_out"):
        assert getattr(ntk, name).__name__ == f"ntk_tf.ntk.{name}"
