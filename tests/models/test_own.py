"""Networks of the user's own: what works, and one clear line where something does not."""

import random
import textwrap

import keras
import numpy as np
import pytest

from ntk_tf import models

SHAPE, CLASSES = (20, 20, 3), 7
HEAD = """
import random
import numpy as np
import tensorflow as tf
import keras
from keras import layers as K

def row(shape, outputs, *inner):
    return keras.Sequential([keras.Input(shape), *inner, K.Flatten(), K.Dense(outputs)])
"""
_count = iter(range(1000))


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module into the current directory and tell its name."""
    monkeypatch.chdir(tmp_path)

    def write(code):
        name = f"mynet{next(_count)}"
        (tmp_path / f"{name}.py").write_text(HEAD + textwrap.dedent(code))
        return name

    return write


def build(name, width=1, seed=0, **arguments):
    return models.build(f"{name}:net", width, CLASSES, SHAPE, seed, **arguments)


RESIDUAL = """
    def net(input_shape, num_classes, width, seed, kernel_size=3):
        inputs = keras.Input(input_shape)
        x = K.Conv2D(int(4 * width), kernel_size, padding="same")(inputs)
        y = K.ReLU()(K.BatchNormalization()(x))
        x = K.Add()([x, K.Conv2D(int(4 * width), kernel_size, padding="same")(y)])
        return keras.Model(inputs, K.Dense(num_classes)(K.GlobalAveragePooling2D()(x)))
"""


def test_residual_network(module, rng):
    name = module(RESIDUAL)
    model = build(name, width=2, kernel_size=5)
    assert model.output_shape == (None, 7)
    assert model.layers[1].kernel.shape == (5, 5, 3, 8)


def test_a_seed_that_the_function_ignores_fixes_all_draws(module, rng):
    name = module(RESIDUAL)
    x = rng.standard_normal((2, *SHAPE)).astype("float32")
    random.seed(3)
    expected = random.random(), random.random()
    random.seed(3)
    first = random.random()
    one, same, other = (build(name, seed=seed) for seed in (1, 1, 2))
    assert (first, random.random()) == expected
    np.testing.assert_array_equal(one(x), same(x))
    assert np.abs(one(x) - other(x)).max() > 1e-3
    # Checkpoints are restored by these.
    assert [w.path for w in one.weights] == [w.path for w in same.weights]


def test_subclassed_models_in_packages(module, tmp_path):
    package = f"package{next(_count)}"
    (tmp_path / package).mkdir()
    (tmp_path / package / "helper.py").write_text("UNITS = 5\n")
    (tmp_path / package / "net.py").write_text(
        HEAD
        + textwrap.dedent("""
            class Net(keras.Model):
                def __init__(self, outputs):
                    super().__init__()
                    from .helper import UNITS
                    self.inner, self.outer = K.Dense(UNITS), K.Dense(outputs)

                def call(self, x):
                    return self.outer(self.inner(tf.reshape(x, [tf.shape(x)[0], -1])))

            def net(input_shape, num_classes, width, seed, **rest):
                model = Net(num_classes)
                model(np.zeros((1, *input_shape), "float32"))
                return model
        """)
    )
    model = build(f"{package}.net", anything=True)
    assert model.inner.kernel.shape == (1200, 5)


def test_shapes_only(module):
    name = module("""
        def net(input_shape, num_classes, width, seed):
            return row(input_shape, num_classes, K.Flatten(), K.Dense(int(width)), K.Dropout(0.5))
    """)
    with models.shapes_only():
        model = build(name, width=1e9)
    assert model.count_params() == 1201 * 10**9 + (10**9 + 1) * 7


def test_vectors(module):
    name = module("""
        def net(input_shape, num_classes, width, seed):
            return row(input_shape, num_classes)
    """)
    assert models.build(f"{name}:net", 1, 3, (5,)).count_params() == 18


ACCEPTS = "def net(input_shape, num_classes, width, seed):\n    "
BAD = {
    "raises": (
        ACCEPTS + "x = [1]\n    return x[7]",
        r"it raised IndexError: list index out of range at .*mynet\d+.py:13$",
    ),
    "raises in Keras": (
        ACCEPTS + "return keras.Sequential([keras.Input((4,)), K.Conv2D(3, 3)])",
        r"it raised ValueError: .* at .*mynet\d+.py:12$",
    ),
    "no model": (ACCEPTS + "return 5", "must return a keras.Model, not int"),
    "nothing": (ACCEPTS + "pass", "must return a keras.Model, not NoneType"),
    "outputs": (
        ACCEPTS + "return row(input_shape, 10)",
        r"outputs \[b, 10\]; must be \[b, 7\], as the data has 7 classes",
    ),
    "pictures": (
        ACCEPTS + "return keras.Sequential([keras.Input(input_shape), K.Conv2D(7, 1)])",
        r"outputs \[b, 20, 20, 7\]; must be \[b, 7\]",
    ),
    "inputs": (
        ACCEPTS + "return row((32, 32, 3), num_classes)",
        r"takes inputs \[b, 32, 32, 3\], and the data has \[b, 20, 20, 3\]",
    ),
    "inputs of a subclass": (
        """
        class Net(keras.Model):
            def __init__(self):
                super().__init__()
                self.dense = K.Dense(7)

            def call(self, x):
                return self.dense(x)

        def net(input_shape, num_classes, width, seed):
            model = Net()
            model(np.zeros((1, 5), "float32"))
            return model
        """,
        r"does not take inputs \[b, 20, 20, 3\]: ValueError: .*mynet\d+.py:18$",
    ),
    "several inputs": (
        ACCEPTS
        + "a, b = keras.Input((3,)), keras.Input((3,))\n"
        + "    return keras.Model([a, b], K.Dense(7)(K.Add()([a, b])))",
        "has 2 inputs; must have one",
    ),
    "several outputs": (
        ACCEPTS
        + "x = keras.Input(input_shape)\n"
        + "    y = K.Flatten()(x)\n"
        + "    return keras.Model(x, {'a': K.Dense(7)(y), 'b': K.Dense(7)(y)})",
        "has 2 outputs; must have one",
    ),
    "not built": (ACCEPTS + "return keras.Sequential([K.Dense(7)])", "is not built; call it on"),
    "no weights": (
        ACCEPTS + "return keras.Sequential([keras.Input(input_shape), K.Flatten()])",
        "no trainable weights",
    ),
    "no function": ("pass", r"mynet\d+.py has no function net"),
    "no callable": ("net = 5", r"net in .*mynet\d+.py is no function, but of type int"),
    "arguments lacking": (
        "def net(input_shape, num_classes):\n    pass",
        "must take input_shape, num_classes, width, seed, and lacks width, seed",
    ),
    "import of another": ("import nosuchmodule", r"importing .* raised ModuleNotFound.*\.py:11$"),
    "error at import": ("1 / 0", r"importing .* raised ZeroDivisionError.*mynet\d+.py:11$"),
    "exit at import": ("import sys; sys.exit(0)", r"importing .* raised SystemExit: 0 at .*:11$"),
    "exit": (ACCEPTS + "raise SystemExit", r"it raised SystemExit at .*mynet\d+.py:12$"),
    "policy": (
        ACCEPTS
        + "keras.config.set_dtype_policy('mixed_bfloat16')\n"
        + "    return row(input_shape, num_classes)",
        "sets Keras' dtype policy to mixed_bfloat16; must leave it at float32",
    ),
    "image data format at import": (
        "keras.config.set_image_data_format('channels_first')\n"
        + ACCEPTS
        + "return row(input_shape, num_classes)",
        "sets Keras' image data format to channels_first; must leave it at channels_last",
    ),
    "integers": (
        ACCEPTS
        + "x = keras.Input(input_shape, dtype='uint8')\n"
        + "    return keras.Model(x, K.Dense(7)(K.Flatten()(K.Rescaling(1 / 255)(x))))",
        "takes uint8 inputs; must take floating-point numbers",
    ),
    "a dictionary": (
        ACCEPTS
        + "x = keras.Input(input_shape)\n"
        + "    return keras.Model(x, {'a': K.Dense(7)(K.Flatten()(x))})",
        "outputs a dict of one tensor; must be the tensor",
    ),
    "syntax": ("def net(:", r"importing .* raised SyntaxError: .*mynet\d+.py, line 11"),
}


@pytest.mark.parametrize("case", BAD)
def test_one_clear_line(case, module):
    code, message = BAD[case]
    name = module("\n" + textwrap.dedent(code))
    with pytest.raises(models.ArchitectureError, match=message) as raised:
        build(name)
    assert str(raised.value).startswith(f"arch='{name}:net': ")
    assert "\n" not in str(raised.value)
    assert keras.config.dtype_policy().name == "float32"
    assert keras.config.image_data_format() == "channels_last"


def test_a_model_that_was_made_before_is_refused(module):
    """Training it would move the weights that its linearization is around."""
    name = module("""
        import functools

        @functools.cache
        def kept():
            return row((20, 20, 3), 7)

        def net(input_shape, num_classes, width, seed):
            return keras.Model(kept().inputs, kept().outputs)
    """)
    first = build(name)
    with pytest.raises(models.ArchitectureError, match="must make a new model at each call"):
        build(name)
    assert first.count_params() == 1201 * 7


def test_frozen_layers_may_be_shared(module):
    name = module("""
        features = K.Dense(5, trainable=False, name="features")

        def net(input_shape, num_classes, width, seed):
            return row(input_shape, num_classes, K.Flatten(), features)
    """)
    first, second = build(name), build(name)
    assert first.layers[1] is second.layers[1]
    assert first.layers[-1].kernel is not second.layers[-1].kernel


def test_missing_modules_and_arguments(module):
    with pytest.raises(models.ArchitectureError, match="there is no module nosuchnet in /"):
        build("nosuchnet")
    with pytest.raises(models.ArchitectureError, match=r"no module keras.nosuchnet in /"):
        build("keras.nosuchnet")
    name = module(RESIDUAL)
    with pytest.raises(models.ArchitectureError, match=f"depth=3: .*{name}:net takes kernel_size"):
        build(name, depth=3)
    with pytest.raises(ValueError, match="parametrization='ntk': must be 'standard'"):
        build(name, parametrization="ntk")


def test_auto_names_do_not_depend_on_other_models(module):
    name = module(RESIDUAL)
    paths = [w.path for w in build(name).weights]
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    assert [w.path for w in build(name).weights] == paths
    assert paths[0] == "conv2d/kernel"
