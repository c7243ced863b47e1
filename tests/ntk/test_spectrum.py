"""Effective rank and spectrum against explicit matrices and closed forms."""

import keras
import numpy as np
import pytest
from references import dense_jacobian

from ntk_tf import models, ntk


def entropy_rank(values):
    """Roy and Vetterli's definition, term by term."""
    total = sum(values)
    return np.exp(-sum(v / total * np.log(v / total) for v in values if v > 0))


def test_effective_rank_of_known_values(rng):
    assert ntk.effective_rank(np.full(7, 0.3)) == pytest.approx(7, rel=1e-14)
    assert ntk.effective_rank(np.array([5.0, 0, 0])) == pytest.approx(1, rel=1e-14)
    # Entropy of (1/2, 1/4, 1/4) is 1.5 bits.
    assert ntk.effective_rank(np.array([2.0, 1, 1])) == pytest.approx(2**1.5, rel=1e-14)
    values = rng.exponential(size=50)
    assert ntk.effective_rank(values) == pytest.approx(entropy_rank(values), rel=1e-12)
    assert ntk.effective_rank(1e-200 * values) == pytest.approx(entropy_rank(values), rel=1e-12)


@pytest.mark.parametrize("values", [[], [0.0, 0], [1.0, -1], [np.nan, 1], [np.inf, 1]])
def test_effective_rank_refuses_what_has_none(values):
    with pytest.raises(ValueError, match="singular values must be"):
        ntk.effective_rank(np.array(values))


def test_spectrum_of_an_explicit_matrix(rng):
    features = rng.standard_normal((30, 200)) * rng.exponential(size=(30, 1))
    gram = features @ features.T
    truth = np.linalg.svd(features, compute_uv=False)
    found = ntk.decompose(gram.reshape(10, 3, 10, 3))
    np.testing.assert_allclose(found.singular_values, truth, rtol=1e-10)
    assert found.effective_rank == pytest.approx(entropy_rank(truth), rel=1e-10)
    assert found.trace == pytest.approx(np.sum(truth**2))
    assert found.largest_eigenvalue == pytest.approx(truth[0] ** 2)
    assert found.smallest_eigenvalue == pytest.approx(truth[-1] ** 2)
    assert found.condition == pytest.approx(truth[0] / truth[-1])
    before = gram.copy()
    ntk.decompose(gram)
    np.testing.assert_array_equal(gram, before)
    np.testing.assert_array_equal(
        ntk.decompose(before, overwrite=True).singular_values, found.singular_values
    )


def test_singular_gram(rng):
    features = rng.standard_normal((12, 5))
    found = ntk.decompose(features @ features.T)
    truth = np.linalg.svd(features, compute_uv=False)
    assert found.effective_rank == pytest.approx(entropy_rank(truth), rel=1e-5)
    assert found.condition > 1e6


@pytest.mark.parametrize("shape", [(3, 4), (4, 3, 3, 4), (8, 2)])
def test_refuses_what_is_not_square(shape):
    with pytest.raises(ValueError, match="Gram of one set"):
        ntk.decompose(np.zeros(shape))


def test_refuses_no_examples():
    with pytest.raises(ValueError, match="must be of at least one example"):
        ntk.decompose(np.zeros((0, 0)))


def test_lenet_against_svd_of_its_jacobian(rng):
    """LeNet x1 at 8 inputs, 80 x 44,426, by float32 and by the explicit matrix in float64."""
    model = models.build("lenet", 1, 10, (28, 28, 1))
    x = rng.standard_normal((8, 28, 28, 1)).astype("float32")
    found = ntk.decompose(ntk.gram(model, x))
    before = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_dtype_policy("float64")
    keras.config.set_floatx("float64")
    try:
        precise = models.build("lenet", 1, 10, (28, 28, 1))
        for w, source in zip(precise.weights, model.weights, strict=True):
            w.assign(source.numpy().astype("float64"))
        jacobian = dense_jacobian(precise, x.astype("float64"))
    finally:
        keras.config.set_dtype_policy(before[0])
        keras.config.set_floatx(before[1])
    truth = np.linalg.svd(jacobian, compute_uv=False)
    assert found.effective_rank == pytest.approx(entropy_rank(truth), rel=1e-6)
    np.testing.assert_allclose(found.singular_values, truth, rtol=1e-4)
