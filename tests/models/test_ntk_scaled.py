"""The NTK parametrization: what it computes, and its kernel at initialization."""

import gold_kernels
import keras
import numpy as np
import pytest
from gold_kernels import GOLD

from ntk_tf import models
from ntk_tf.catalogue import architectures
from ntk_tf.models.ntk_scaled import NTKConv2D, NTKDense

SHAPE = (16, 16, 3)
ARCHS = [name for name in architectures.ARCHITECTURES if name != "alexnet"]


def scaled(arch, seed=0, **arguments):
    return models.build(arch, 1 / 32, 3, SHAPE, seed, parametrization="ntk", **arguments)


@pytest.mark.parametrize("arch", ARCHS)
def test_equals_the_standard_network_with_scaled_weights(arch, rng, float64):
    """z = sigma_w / sqrt(fan_in) W x + sigma_b b, layer by layer."""
    sigma_w, sigma_b = 1.3, 0.7
    model = scaled(arch, sigma_w=sigma_w, sigma_b=sigma_b)
    standard = models.build(arch, 1 / 32, 3, SHAPE)
    for weight, target in zip(model.weights, standard.weights, strict=True):
        assert weight.path == target.path
        fan_in = np.prod(weight.shape[:-1])
        if arch.startswith("cnn") and weight.path == "conv1/kernel":
            factor = 1.0  # as Arora et al. have it
        else:
            factor = sigma_w / np.sqrt(fan_in) if weight.name == "kernel" else sigma_b
        target.assign(factor * weight.numpy())
    x = rng.standard_normal((2, *SHAPE))
    np.testing.assert_allclose(model(x), standard(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("arch", ["lenet", "mlp"])
def test_weights_are_standard_normal_and_seeded(arch):
    one, same, other = (
        models.build(arch, 1, 10, (28, 28, 1), seed, parametrization="ntk", sigma_b=0.5)
        for seed in (1, 1, 2)
    )
    for a, b, c in zip(one.weights, same.weights, other.weights, strict=True):
        values = a.numpy()
        np.testing.assert_array_equal(values, b.numpy())
        assert not np.array_equal(values, c.numpy())
        if values.size > 1000:
            assert abs(values.mean()) < 5 / values.size**0.5
            assert values.std() == pytest.approx(1, abs=5 / (2 * values.size) ** 0.5)


def test_no_biases_without_sigma_b():
    names = {weight.name for weight in scaled("lenet", sigma_b=0.0).weights}
    assert names == {"kernel"}
    assert {weight.name for weight in scaled("lenet", sigma_b=0.1).weights} == {"kernel", "bias"}
    # CNN-V has none whatever sigma_b is, and the normalization's shifts stay.
    assert {weight.name for weight in scaled("cnn_v", sigma_b=0.1).weights} == {"kernel"}
    names = [weight.name for weight in scaled("resnet18", batch_norm=True).trainable_weights]
    assert sorted(set(names)) == ["beta", "gamma", "kernel"]


@pytest.mark.parametrize("arch", architectures.ARCHITECTURES)
def test_defaults_are_the_catalogues(arch):
    row = architectures.ARCHITECTURES[arch]
    side = max(row.smallest_side, 8)
    model = models.build(arch, 1 / 64, 3, (side, side, 3), parametrization="ntk")
    layers = [x for x in model.layers if isinstance(x, NTKDense | NTKConv2D)]
    assert len(layers) == sum(bool(x.weights) for x in model.layers)
    for layer in layers[1:]:
        fan_in = np.prod(layer.kernel.shape[:-1])
        assert layer.kernel_scale == pytest.approx(row.sigma_w / np.sqrt(fan_in))
        assert layer.bias_scale == row.sigma_b
        assert layer.use_bias == (row.sigma_b > 0)


def test_refusals():
    with pytest.raises(ValueError, match="channels_first"):
        NTKConv2D(1, 1, data_format="channels_first")
    with pytest.raises(ValueError, match="gain=2.0: the architecture vgg11 takes sigma_w, sigma_b"):
        scaled("vgg11", gain=2.0)


@pytest.mark.parametrize("gold", GOLD, ids=lambda gold: gold.name)
def test_kernel_approaches_infinite_width(gold):
    """The mean over seeds is the infinite network's kernel, and the spread falls as 1/sqrt(width).

    `tests/gold_kernels.py` shows it for more widths and seeds.
    """
    seeds = 24
    narrow, wide = (gold_kernels.kernels(gold, channels, seeds) for channels in (32, 128))
    error = wide.std(0, ddof=1) / np.sqrt(seeds)
    assert np.all(np.abs(gold_kernels.deviation(gold, wide)) < 4 * error)
    assert error.max() < 0.08  # or the test would see little
    spreads = [np.sqrt(entries.var(0, ddof=1).mean()) for entries in (narrow, wide)]
    assert 1.3 < spreads[0] / spreads[1] < 4  # 2, if both were wide


def test_other_sigmas_are_told_apart():
    """The test above fails for a network without its sigmas."""
    gold = next(gold for gold in GOLD if gold.name == "LeNet, average pooling")
    wrong = gold_kernels.dataclasses.replace(gold, arguments=gold.arguments | {"sigma_w": 1.2})
    entries = gold_kernels.kernels(wrong, 128, 24)
    error = entries.std(0, ddof=1) / np.sqrt(24)
    assert np.all(np.abs(gold_kernels.deviation(gold, entries)) > 4 * error)


def test_layers_can_be_saved_with_their_scales(rng, tmp_path):
    inputs = keras.Input((6, 6, 2))
    x = NTKConv2D(3, 3, 2, kernel_scale=0.3, bias_scale=0.2, activation="relu")(inputs)
    x = keras.layers.Flatten()(x)
    model = keras.Model(inputs, NTKDense(2, kernel_scale=0.5, bias_scale=0.1)(x))
    model.save(tmp_path / "model.keras")
    x = rng.standard_normal((2, 6, 6, 2)).astype("float32")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))
    assert (loaded.layers[1].kernel_scale, loaded.layers[-1].bias_scale) == (0.3, 0.1)
