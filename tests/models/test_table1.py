"""The other systems of Table 1: exact sizes, initialization, PyTorch's outputs."""

import pathlib

import keras
import numpy as np
import pytest
from references import assign_flat, dense_jacobian, surveyed

from ntk_tf import models, ntk
from ntk_tf.catalogue import architectures
from ntk_tf.experiments.pretrained.torch_weights import to_keras
from ntk_tf.linearization import LinearizedModel
from ntk_tf.models import size

FIXTURE = pathlib.Path(__file__).parent.parent / "fixtures/torch_small_pictures.npz"
CIFAR, MNIST = (32, 32, 3), (28, 28, 1)
ARCHS = ("mlp", "vgg11", "resnet18", "cnn_v", "cnn_gap", "wrn")


def shapes(arch, width=1, shape=CIFAR, classes=10, **arguments):
    with models.shapes_only():
        return models.build(arch, width, classes, shape, **arguments)


def cnn_parameters(k, depth, channels, pixels):
    """Counted by hand from the layer sizes."""
    c = 1024 * k
    return 9 * channels * c + (depth - 2) * 9 * c * c + pixels * c * 10


def wrn_parameters(k, blocks, channels):
    c = 1024 * k
    convolution = (9 * c + 1) * c
    # A group has two convolutions a block, and one in its first shortcut.
    return (9 * channels + 1) * c + 3 * (2 * blocks + 1) * convolution + (c + 1) * 10


def mlp_parameters(sizes):
    return sum((a + 1) * b for a, b in zip(sizes, sizes[1:], strict=False))


@pytest.mark.parametrize(
    ("arch", "width", "shape", "arguments", "count"),
    [
        # Computed for the layer lists of Chizat et al.
        ("vgg11", 1, CIFAR, {}, 9_225_610),
        ("vgg11", 2, CIFAR, {}, 36_883_210),
        ("vgg11", 8, CIFAR, {}, 589_900_810),
        ("vgg11", 1, MNIST, {}, 9_225_610 - 2 * 9 * 64),
        ("resnet18", 1, CIFAR, {}, 11_169_162),
        ("resnet18", 2, CIFAR, {}, 44_653_322),
        ("resnet18", 7, CIFAR, {}, 546_799_242),
        ("resnet18", 1, MNIST, {}, 11_169_162 - 2 * 9 * 64),
        # github.com/kuangliu/pytorch-cifar, whose outputs layer is the same.
        ("resnet18", 1, CIFAR, {"batch_norm": True}, 11_173_962),
        ("cnn_v", 1, CIFAR, {"depth": 3}, cnn_parameters(1, 3, 3, 1024)),
        ("cnn_v", 2, CIFAR, {"depth": 21}, cnn_parameters(2, 21, 3, 1024)),
        ("cnn_v", 1, MNIST, {}, cnn_parameters(1, 4, 1, 784)),
        ("cnn_gap", 1, CIFAR, {"depth": 3}, cnn_parameters(1, 3, 3, 1)),
        ("cnn_gap", 0.5, MNIST, {"depth": 11}, cnn_parameters(0.5, 11, 1, 1)),
        ("cnn_gap", 2, CIFAR, {"channels": 64}, cnn_parameters(1 / 8, 4, 3, 1)),
        ("wrn", 1, CIFAR, {}, wrn_parameters(1, 1, 3)),
        ("wrn", 1, CIFAR, {"channels": 256}, wrn_parameters(1 / 4, 1, 3)),
        ("wrn", 0.25, CIFAR, {"blocks": 4}, wrn_parameters(0.25, 4, 3)),
        ("mlp", 1, MNIST, {}, mlp_parameters([784, 100, 100, 100, 10])),
        ("mlp", 100, MNIST, {}, mlp_parameters([784, 10_000, 10_000, 10_000, 10])),
        ("mlp", 1, (5,), {"depth": 2, "units": 512}, mlp_parameters([5, 512, 10])),
        ("mlp", 1, (5,), {"depth": 1}, 60),
    ],
)
def test_parameter_counts(arch, width, shape, arguments, count):
    model = shapes(arch, width, shape, **arguments)
    assert size.parameters(model) == count
    assert model.output_shape == (None, 10)


@pytest.mark.parametrize(
    ("arch", "width", "macs"), [("vgg11", 1, 152_769_536), ("vgg11", 8, 9_677_873_152)]
)
def test_products_of_a_picture(arch, width, macs):
    """153 million at width 1 and 9.68 billion at width 8, counted from the layer list."""
    assert sum(size.count(shapes(arch, width), CIFAR).flops) == 2 * macs


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 5, 1), (8, 8, 1), (33, 20, 3), (64, 64, 3)])
@pytest.mark.parametrize("parametrization", ["standard", "ntk"])
def test_any_picture_fits(arch, shape, parametrization):
    assert architectures.find(arch).smallest_side == 1
    model = shapes(arch, 1 / 64, shape, classes=3, parametrization=parametrization)
    assert model.output_shape == (None, 3)


@pytest.mark.parametrize(
    ("arch", "arguments", "message"),
    [
        ("mlp", {"depth": 0}, "depth=0: must be a whole number of at least 1"),
        ("cnn_v", {"depth": 1}, "depth=1: must be at least 2"),
        ("cnn_gap", {"depth": 1}, "depth=1: must be at least 2"),
        ("wrn", {"blocks": 0}, "blocks=0: must be a whole number of at least 1"),
        ("vgg11", {"depth": 3}, "depth=3: the architecture vgg11 takes no arguments"),
        ("vgg11", {"gain": 1.0, "parametrization": "ntk"}, "vgg11 takes sigma_w, sigma_b"),
        ("mlp", {"sigma_w": 1.0}, "mlp takes depth, units, activation$"),
    ],
)
def test_refusals(arch, arguments, message):
    with pytest.raises(models.ArchitectureError, match=message):
        shapes(arch, **arguments)


@pytest.mark.parametrize("arch", ["vgg11", "resnet18", "lenet"])
@pytest.mark.parametrize("gain", [None, 1.0, 2.0])
def test_xavier_initialization(arch, gain):
    """Chizat et al.: N(0, 2 gain^2 / (fan_in + fan_out)) and no biases at first."""
    default = {} if gain == architectures.find(arch).gain else {"gain": gain}
    model = models.build(arch, 1 if arch == "lenet" else 1 / 4, 10, CIFAR, seed=2, **default)
    kernels = [w.numpy() for w in model.weights if w.name == "kernel"]
    biases = [w.numpy() for w in model.weights if w.name == "bias"]
    assert all(np.any(bias) == (gain is None) for bias in biases)
    for kernel in kernels:
        taps = np.prod(kernel.shape[:-2])
        fan_in, fan_out = taps * kernel.shape[-2], taps * kernel.shape[-1]
        variance = 1 / (3 * fan_in) if gain is None else 2 * gain**2 / (fan_in + fan_out)
        assert np.mean(kernel**2) == pytest.approx(variance, abs=6 * variance / kernel.size**0.5)


def torch_name(weight):
    """What the fixture calls a weight of a Keras model."""
    layer, kind = weight.path.split("/")
    kinds = {
        "kernel": "weight",
        "gamma": "weight",
        "bias": "bias",
        "beta": "bias",
        "moving_mean": "running_mean",
        "moving_variance": "running_var",
    }
    positions = ["1_1", "2_1", "3_1", "3_2", "4_1", "4_2", "5_1", "5_2"]
    numbers = dict(zip(positions, (0, 3, 6, 8, 11, 13, 16, 18), strict=True))
    if layer.startswith("stage"):
        stage, conv = layer.removeprefix("stage").split("_conv")
        layer = f"features.{numbers[f'{stage}_{conv}']}"
    for part in ("conv1", "conv2", "shortcut"):
        layer = layer.replace(f"_{part}", f".{part}")
    return f"{layer}.{kinds[kind]}"


@pytest.mark.parametrize(
    ("name", "arch", "arguments"),
    [
        ("vgg11", "vgg11", {}),
        ("resnet18", "resnet18", {}),
        ("resnet18_norm", "resnet18", {"batch_norm": True}),
    ],
)
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_outputs_are_pytorchs(name, arch, arguments, precision, request):
    if precision == "float64":
        request.getfixturevalue("float64")
    with np.load(FIXTURE) as file:
        frozen = {key.removeprefix(f"{name}/"): file[key] for key in file if f"{name}/" in key}
    model = models.build(arch, 1 / 32, 10, CIFAR, **arguments)
    for weight in model.weights:
        weight.assign(to_keras(frozen[torch_name(weight)]))
    outputs = model(frozen["inputs"].astype(precision) / 64, training=False)
    tolerance = 1e-5 if precision == "float32" else 1e-10
    largest = np.abs(frozen["outputs"]).max()
    np.testing.assert_allclose(outputs, frozen["outputs"], rtol=0, atol=tolerance * largest)
    # A stranger's outputs differ by far more.
    assert np.abs(np.diff(frozen["outputs"], axis=0)).max() > 0.01 * largest


@pytest.mark.parametrize("arch", [*ARCHS, "lenet", "alexnet"])
@pytest.mark.parametrize("parametrization", ["standard", "ntk"])
def test_models_can_be_saved(arch, parametrization, rng, tmp_path):
    side = max(architectures.find(arch).smallest_side, 4)
    shape = (side, side, 3)
    model = models.build(arch, 1 / 64, 3, shape, parametrization=parametrization)
    model.save(tmp_path / "model.keras")
    x = rng.standard_normal((2, *shape)).astype("float32")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("parametrization", ["standard", "ntk"])
def test_kernel_and_linearization_equal_dense_jacobians(arch, parametrization, rng, float64):
    width = 1 / 8 if arch == "mlp" else 1 / 64  # two ReLUs a layer are dead on these pictures
    model = models.build(arch, width, 2, (9, 8, 2), parametrization=parametrization)
    x = rng.standard_normal((2, 9, 8, 2))
    jacobian = dense_jacobian(model, x)
    kernel = ntk.GramFunction(model, "float64")
    gram = kernel(x).reshape(4, 4)
    assert np.abs(gram).max() > 1e-6
    np.testing.assert_allclose(gram, jacobian @ jacobian.T, atol=1e-10 * np.abs(gram).max())
    if parametrization == "ntk":
        assert all(piece.layer is not None for piece in surveyed(kernel).pieces)
    else:
        rounded = ntk.gram(model, x, precision="float32").reshape(4, 4)
        assert 0 < np.abs(rounded - gram).max() < 1e-5 * np.abs(gram).max()
    linearized = LinearizedModel(model)
    direction = rng.standard_normal(jacobian.shape[1])
    assign_flat(linearized.trainable_weights, direction)
    expected = np.asarray(model(x)) + (jacobian @ direction).reshape(2, 2)
    np.testing.assert_allclose(linearized(x), expected, atol=1e-10 * np.abs(expected).max())
