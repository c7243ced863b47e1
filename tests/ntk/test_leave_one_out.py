"""The ridge by leave-one-out, against leaving out one example after the other."""

import numpy as np
import pytest

from ntk_tf import ntk
from ntk_tf.ntk.leave_one_out import leave_one_out


def test_closed_form(rng):
    features = rng.standard_normal((9, 5))
    gram = features @ features.T
    y = rng.standard_normal((9, 2)) + features[:, :2]
    errors, shifts = [], [0.001, 0.1, 10.0]
    for part in shifts:
        shift, left_out = part * np.trace(gram) / 9, []
        for i in range(9):
            rest = np.delete(np.arange(9), i)
            dual = np.linalg.solve(gram[np.ix_(rest, rest)] + shift * np.eye(8), y[rest])
            left_out.append(y[i] - gram[i, rest] @ dual)
        errors.append(np.mean(np.square(left_out)))
    found = leave_one_out(gram, y, shifts)
    best = int(np.argmin(errors))
    assert found.error == pytest.approx(errors[best])
    assert found.ridge * y.size / 2 == pytest.approx(shifts[best] * np.trace(gram) / 9)
    same = ntk.kernel_regression(gram, y, np.zeros_like(y), found.ridge, "float64")
    np.testing.assert_allclose(found.regression.dual, same.dual, rtol=1e-8)
    np.testing.assert_allclose(found.regression.fitted, same.fitted, rtol=1e-8)
    np.testing.assert_allclose(found.eigenvalues, np.linalg.eigvalsh(gram)[::-1], atol=1e-10)


def test_all_rows_of_an_example_are_left_out(rng):
    features = rng.standard_normal((7, 2, 9))
    gram = np.einsum("ilp,jmp->iljm", features, features)
    y = rng.standard_normal((7, 2))
    shift, left_out = 0.3 * np.einsum("ilil->", gram) / 14, []
    for i in range(7):
        rest = np.delete(np.arange(7), i)
        matrix = gram[rest][:, :, rest].reshape(12, 12) + shift * np.eye(12)
        dual = np.linalg.solve(matrix, y[rest].ravel())
        left_out.append(y[i] - gram[i][:, rest].reshape(2, 12) @ dual)
    found = leave_one_out(gram, y, [0.3])
    assert found.error == pytest.approx(np.mean(np.square(left_out)))
    same = ntk.kernel_regression(gram, y, np.zeros_like(y), found.ridge, "float64")
    np.testing.assert_allclose(found.regression.dual, same.dual, rtol=1e-8)
    np.testing.assert_allclose(found.regression.fitted, same.fitted, rtol=1e-8)


def test_noise_needs_a_larger_ridge(rng):
    features = rng.standard_normal((40, 40))
    gram, signal = features @ features.T, features[:, :1]
    clean = leave_one_out(gram, signal)
    noisy = leave_one_out(gram, signal + 5 * rng.standard_normal((40, 1)))
    assert noisy.ridge > 10 * clean.ridge


def test_the_largest_ridge_is_far_above_the_kernel(rng):
    """Where nothing can be learnt, more than the mean on the diagonal is best."""
    features = rng.standard_normal((20, 200))
    gram = features @ features.T
    targets = rng.standard_normal((20, 1))
    targets -= gram @ (gram @ targets) / np.linalg.norm(gram @ gram, 2)
    found = leave_one_out(gram, targets - targets.mean())
    assert found.ridge * targets.size / 2 > np.trace(gram) / 20


def test_shapes_must_fit():
    with pytest.raises(ValueError, match="do not belong"):
        leave_one_out(np.eye(3), np.zeros((2, 1)))


def test_no_shift_or_target_that_can_be_used(rng):
    features = rng.standard_normal((6, 2))
    with pytest.raises(ValueError, match=r"relative_shifts=\(0\.0,\): none makes"):
        leave_one_out(features @ features.T - 1e-6 * np.eye(6), np.ones((6, 1)), [0.0])
    with pytest.raises(ValueError, match="the targets are not finite"):
        leave_one_out(features @ features.T, np.full((6, 1), np.nan))
