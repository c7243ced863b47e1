"""Kernel regression against least squares in the explicit features."""

import numpy as np
import pytest

from ntk_tf import ntk


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
