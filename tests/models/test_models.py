"""The architectures: exact parameter counts, initialization, pooling."""

import hashlib
import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from ntk_tf import models
from ntk_tf.catalogue import architectures
from ntk_tf.models.pooling import AdaptiveAveragePooling2D, max_of_slices

FIXTURES = pathlib.Path(__file__).parent.parent / "fixtures"


def lenet_parameters(k, side, channels, classes=10):
    """Counted by hand from the layer sizes."""
    flat = 16 * k * (((side - 4) // 2 - 4) // 2) ** 2
    return (
        (25 * channels + 1) * 6 * k
        + (25 * 6 * k + 1) * 16 * k
        + (flat + 1) * 120 * k
        + (120 * k + 1) * 84 * k
        + (84 * k + 1) * classes
    )


@pytest.mark.parametrize("arch", ["lenet", "resnet18", "cnn_gap"])
def test_channels_are_last_whatever_keras_is_configured_for(arch, monkeypatch):
    expected = models.build(arch, 0.1, 5, (32, 32, 3))
    keras.config.set_image_data_format("channels_first")
    try:
        found = models.build(arch, 0.1, 5, (32, 32, 3))
        assert keras.config.image_data_format() == "channels_first"
        x = np.ones((2, 32, 32, 3), "float32")
        np.testing.assert_array_equal(found(x), expected(x))
    finally:
        keras.config.set_image_data_format("channels_last")


def test_sizes_may_be_numpys():
    sides = np.array([28, 28, 1])
    model = models.build("lenet", np.float32(1), np.int64(10), sides, kernel_size=np.int64(3))
    assert model.count_params() == 60_074
    assert models.build("resnet18", 0.05, 2, (8, 8, 3), batch_norm=np.bool_(True)).built


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lenet", np.inf, 10, (28, 28, 1)), "width=inf: must be above 0, and finite"),
        ((len, 1, 10, (28, 28, 1)), "must be a name, or 'PACKAGE.MODULE:FUNCTION'"),
    ],
)
def test_what_is_no_architecture_or_width(arguments, message):
    with pytest.raises(ValueError, match=message):
        models.build(*arguments)


def test_an_activation_of_fewer_outputs_is_refused():
    with pytest.raises(models.ArchitectureError, match="activation='glu': must have an output for"):
        models.build("mlp", 1, 2, (6,), activation="glu")


def test_inputs_have_the_precision_of_the_policy(float64, rng):
    model = models.build("mlp", 1, 2, (6,), depth=2, units=3, activation="tanh")
    x = rng.standard_normal((4, 6))
    a, b, c, d = model.get_weights()
    np.testing.assert_allclose(model(x), np.tanh(x @ a + b) @ c + d, rtol=1e-13)


def test_a_linearization_is_loaded_by_another_process(tmp_path):
    """Which has imported nothing but the linearization."""
    from ntk_tf.linearization import LinearizedModel

    base = models.build("lenet", 0.2, 3, (16, 16, 1), parametrization="ntk")
    model = LinearizedModel(base)
    model.save(tmp_path / "model.keras")
    x = np.linspace(-1, 1, 512, dtype="float32").reshape(2, 16, 16, 1)
    np.save(tmp_path / "x.npy", x)
    code = (
        "import os, sys; os.environ['KERAS_BACKEND'] = 'tensorflow'\n"
        "import keras, numpy as np\nfrom ntk_tf.linearization import LinearizedModel\n"
        "model = keras.models.load_model(sys.argv[1] + '/model.keras')\n"
        "np.save(sys.argv[1] + '/y.npy', model(np.load(sys.argv[1] + '/x.npy')))\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), model(x), rtol=1e-5, atol=1e-7)


def alexnet_parameters(k, classes):
    convolutions = [(121, 3, 64), (25, 64, 192), (9, 192, 384), (9, 384, 256), (9, 256, 256)]
    count = 0
    for i, (area, inputs, outputs) in enumerate(convolutions):
        count += (area * inputs * (k if i else 1) + 1) * outputs * k
    units = 4096 * k
    return count + (36 * 256 * k + 1) * units + (units + 1) * units + (units + 1) * classes


@pytest.mark.parametrize(
    ("arch", "width", "classes", "shape", "count"),
    [
        ("lenet", 1, 10, (32, 32, 3), 62_006),
        ("lenet", 1, 10, (28, 28, 1), 44_426),
        ("lenet", 1, 10, (32, 32, 1), 61_706),
        ("lenet", 2, 10, (28, 28, 1), lenet_parameters(2, 28, 1)),
        ("lenet", 5, 10, (32, 32, 3), lenet_parameters(5, 32, 3)),
        ("lenet", 60, 10, (28, 28, 1), lenet_parameters(60, 28, 1)),
        ("alexnet", 1, 1000, (224, 224, 3), 61_100_840),
        ("alexnet", 1, 10, (224, 224, 3), 57_044_810),
        ("alexnet", 1, 10, (64, 64, 3), 57_044_810),
        ("alexnet", 2, 10, (224, 224, 3), alexnet_parameters(2, 10)),
        ("alexnet", 4, 10, (224, 224, 3), alexnet_parameters(4, 10)),
    ],
)
def test_parameter_counts(arch, width, classes, shape, count):
    with models.shapes_only():
        model = models.build(arch, width, classes, shape)
    assert model.count_params() == count
    assert model.output_shape == (None, classes)


@pytest.mark.parametrize("arch", ["lenet", "alexnet"])
def test_initialization_is_torchs_default(arch):
    model = models.build(arch, 1 if arch == "lenet" else 1 / 8, 10, (64, 64, 3), seed=3)
    for layer in model.layers:
        if not layer.weights:
            continue
        kernel, bias = (w.numpy() for w in layer.weights)
        fan_in = kernel[..., 0].size
        bound = fan_in**-0.5
        for values in (kernel, bias):
            assert np.abs(values).max() <= bound
        if kernel.size > 1000:
            assert np.abs(kernel).max() > 0.98 * bound
            assert abs(kernel.mean()) < 5 * bound / np.sqrt(3 * kernel.size)
            assert kernel.std() == pytest.approx(bound / np.sqrt(3), rel=0.1)
        # Kernel and bias come from different streams.
        assert not np.isin(np.round(bias / bound, 5), np.round(kernel / bound, 5)).all()


def test_seed_fixes_the_weights():
    one, same, other = (models.build("lenet", 1, 10, (16, 16, 1), seed) for seed in (1, 1, 2))
    for a, b, c in zip(one.weights, same.weights, other.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
        assert not np.array_equal(a.numpy(), c.numpy())


@pytest.mark.parametrize(("pool", "stride"), [(2, 2), (3, 2), (3, 1)])
@pytest.mark.parametrize("jit", [False, True])
def test_max_pooling_and_its_gradient(pool, stride, jit, rng):
    """Values, and the routing of gradients to the first of equal maxima, against a loop."""
    x = np.round(rng.standard_normal((2, 8, 9, 3)).astype("float32"))
    layer = models.MaxPooling2D(pool, stride)
    cotangent = rng.standard_normal(layer.compute_output_shape(x.shape)).astype("float32")

    @tf.function(jit_compile=jit)
    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
        return y, tape.gradient(y, x, output_gradients=cotangent)

    value, gradient = run(tf.constant(x))
    expected, routed = np.zeros(cotangent.shape), np.zeros(x.shape)
    for b, i, j, c in np.ndindex(*cotangent.shape):
        window = x[b, i * stride : i * stride + pool, j * stride : j * stride + pool, c]
        di, dj = np.unravel_index(window.argmax(), window.shape)
        expected[b, i, j, c] = window.max()
        routed[b, i * stride + di, j * stride + dj, c] += cotangent[b, i, j, c]
    np.testing.assert_array_equal(value, expected)
    np.testing.assert_allclose(gradient, routed, rtol=1e-6, atol=1e-6)


def test_slices_pool_as_the_native_op(rng):
    x = tf.constant(rng.standard_normal((2, 13, 13, 4)))
    np.testing.assert_array_equal(
        max_of_slices(x, (3, 3), (2, 2)), tf.nn.max_pool2d(x, 3, 2, "VALID")
    )


@pytest.mark.parametrize("side", [1, 4, 6, 7, 13])
def test_adaptive_average_pooling(side, rng):
    x = rng.standard_normal((2, side, side, 3))
    expected = np.empty((2, 6, 6, 3))
    for i, j in np.ndindex(6, 6):
        rows = slice(int(np.floor(i * side / 6)), int(np.ceil((i + 1) * side / 6)))
        columns = slice(int(np.floor(j * side / 6)), int(np.ceil((j + 1) * side / 6)))
        expected[:, i, j] = x[:, rows, columns].mean((1, 2))
    np.testing.assert_allclose(AdaptiveAveragePooling2D(6)(x), expected, rtol=1e-5, atol=1e-6)


def test_refusals():
    with pytest.raises(ValueError, match="lenett.*lenet, alexnet.*PACKAGE.MODULE:FUNCTION"):
        models.build("lenett", 1, 10, (28, 28, 1))
    with pytest.raises(ValueError, match="parametrization='mup': must be one of standard"):
        models.build("lenet", 1, 10, (28, 28, 1), parametrization="mup")
    with pytest.raises(ValueError, match="width=0"):
        models.build("lenet", 0, 10, (28, 28, 1))
    with pytest.raises(ValueError, match="same"):
        models.MaxPooling2D(2, padding="same")


def test_arguments_reach_the_architecture():
    assert models.build("lenet", 1, 10, (28, 28, 1), kernel_size=3).count_params() == 60_074
    assert models.build("lenet", 2, 10, (32, 32, 3), kernel_size=3).count_params() == 322_722
    pools = [type(layer) for layer in models.build("lenet", 1, 10, (28, 28, 1)).layers]
    averages = models.build("lenet", 1, 10, (28, 28, 1), pooling="average").layers
    assert pools.count(models.MaxPooling2D) == 2
    assert [type(layer) for layer in averages].count(keras.layers.AveragePooling2D) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel": 3}, "kernel=3: the architecture lenet takes kernel_size, pooling$"),
        ({"kernel_size": 29}, r"input_shape=\(28, 28, 1\) with kernel_size=29 .*29"),
        ({"kernel_size": "a"}, "kernel_size='a': must be a whole number of at least 1"),
        ({"kernel_size": 0}, "kernel_size=0: must be a whole number of at least 1"),
        ({"kernel_size": 2.5}, "kernel_size=2.5: must be a whole number of at least 1"),
        ({"kernel_size": True}, "kernel_size=True: must be a whole number of at least 1"),
        ({"gain": float("nan")}, "gain=nan: must be a finite number"),
        ({"pooling": "min"}, "pooling='min': must be one of max, average"),
    ],
)
def test_arguments_are_refused_in_one_line(arguments, message):
    with pytest.raises(models.ArchitectureError, match=message) as raised:
        models.build("lenet", 1, 10, (28, 28, 1), **arguments)
    assert "\n" not in str(raised.value)


def test_seeds_and_shapes_that_cannot_be():
    for seed in (None, -1, 0.5):
        with pytest.raises(ValueError, match=f"seed={seed}: must be a whole number of at least 0"):
            models.build("mlp", 1, 10, (4,), seed)
    for shape in ((), (0,), (28, 28, 0)):
        with pytest.raises(ValueError, match="input_shape=.*must be at least one number, each"):
            models.build("mlp", 1, 10, shape)


def test_biases_of_what_is_not_built_are_not_known():
    model = keras.Sequential([keras.layers.Dense(3)])
    with pytest.raises(ValueError, match="is not built"):
        models.freeze_biases(model)


def test_vectors_and_small_pictures_are_refused():
    with pytest.raises(ValueError, match=r"takes pictures .*not \(5,\)"):
        models.build("lenet", 1, 10, (5,))
    with pytest.raises(ValueError, match=r"'lenet': cannot be built for input_shape=\(8, 8, 1\)"):
        models.build("lenet", 1, 10, (8, 8, 1))


@pytest.mark.parametrize("arch", ["lenet", "alexnet"])
def test_smallest_sides_of_the_catalogue(arch):
    side = architectures.ARCHITECTURES[arch].smallest_side
    with models.shapes_only():
        models.build(arch, 1, 3, (side, side, 3))
    if side > 1:
        with pytest.raises(ValueError, match="cannot be built"), models.shapes_only():
            models.build(arch, 1, 3, (side - 1, side, 3))


def test_initial_weights_never_change():
    """Sums of the weights at commit 85aa464: old runs go on with the weights that they had."""
    frozen = json.loads((FIXTURES / "initial_weights.json").read_text())
    for case in frozen:
        model = models.build(case["arch"], case["width"], 10, case["shape"], case["seed"])
        digest = {w.path: hashlib.sha256(w.numpy().tobytes()).hexdigest() for w in model.weights}
        assert digest == case["weights"]


@pytest.mark.parametrize("arch", ["lenet", "alexnet"])
def test_models_can_be_saved(arch, rng, tmp_path):
    model = models.build(arch, 1 / 16, 3, (64, 64, 3))
    model.save(tmp_path / "model.keras")
    x = rng.standard_normal((2, 64, 64, 3)).astype("float32")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))
