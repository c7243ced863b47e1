"""J u and J^T r of one layer or operation a row, in three modes, against dense Jacobians.

A row is a small model around the layer. Its products are right, to rounding, or refused with an
error that names the layer. What the check of a mode computes by the way that it chooses is what is
compared: to trace the same products again would take as long as all the rest.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from references import dense_jacobian

from ntk_tf.linearization import Jacobian, check
from ntk_tf.models import MaxPooling2D

K = keras.layers
TOLERANCE = {"float64": 1e-9, "float32": 1e-5}


class Own(K.Layer):
    """A layer of a user's that calls a function."""

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def call(self, x):
        return self.function(x)


class Weighted(K.Layer):
    """A layer of a user's whose function has a weight."""

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], shape[-1]), name="kernel")

    def call(self, x):
        return self.function(x, tf.convert_to_tensor(self.kernel))


class InnerFunction(Weighted):
    """A weight that an inner `tf.function` captures."""

    @tf.function
    def inner(self, x):
        return tf.tanh(x @ tf.convert_to_tensor(self.kernel))

    def call(self, x):
        return self.inner(x)


@tf.custom_gradient
def straight_through(x):
    return tf.sign(x), lambda g: 2 * g


def scanned(x, k):
    return tf.scan(lambda state, row: tf.tanh(state @ k + row), tf.transpose(x, (1, 0, 2)))[-1]


def two_branches(x, k):
    return tf.cond(tf.reduce_sum(x) > 0, lambda: tf.tanh(x @ k), lambda: tf.sin(x @ k))


def on_sequence(*layers, shape=(4, 3)):
    return lambda: keras.Sequential([keras.Input(shape), *[make() for make in layers]])


def on_images(*layers, shape=(6, 6, 2), channels=2):
    """A convolution, so that the layers' inputs depend on weights, and a sum over positions."""

    def build():
        conv = K.Conv2D(channels, 2, padding="same", activation="tanh")
        return keras.Sequential([keras.Input(shape), conv, *[make() for make in layers]])

    return build


def on_vector(*layers):
    return lambda: keras.Sequential([keras.Input((4,)), K.Dense(3), *[make() for make in layers]])


def attention(layer):
    def build():
        inputs = keras.Input((4, 3))
        query, value = K.Dense(4)(inputs), K.Dense(4)(inputs)
        return keras.Model(inputs, layer()(query, value))

    return build


def merged(layer):
    def build():
        inputs = keras.Input((4,))
        parts = [K.Dense(3, "tanh")(inputs), K.Dense(3)(inputs)]
        return keras.Model(inputs, layer()(parts))

    return build


def several():
    """Two inputs by name, two outputs by name."""
    inputs = {"a": keras.Input((4,), name="a"), "b": keras.Input((3,), name="b")}
    hidden = K.Dense(3, "tanh")(inputs["a"]) * K.Dense(3)(inputs["b"])
    outputs = {"sum": K.Dense(1)(hidden)[:, 0], "rest": K.Dense(2)(hidden)}
    return keras.Model(inputs, outputs)


def embedded(*layers, **kwargs):
    def build():
        first = [keras.Input((5,), dtype="int32"), K.Embedding(7, 3, **kwargs)]
        return keras.Sequential([*first, *[make() for make in layers]])

    return build


def own(function, **kwargs):
    return lambda: Own(function, name="own", **kwargs)


def resizing(interpolation):
    return lambda: K.Resizing(4, 7, interpolation=interpolation, name="resized")


def activations(names):
    """Dense layers side by side, each with another activation."""

    def build():
        inputs = keras.Input((4,))
        parts = [K.Activation(name)(K.Dense(3)(inputs)) for name in names.split()]
        return keras.Model(inputs, K.Concatenate()(parts))

    return build


ACTIVATIONS = """
relu relu6 leaky_relu elu selu celu gelu silu mish
softplus softmax log_softmax sigmoid log_sigmoid hard_sigmoid hard_silu hard_tanh hard_shrink
soft_shrink tanh tanh_shrink squareplus sparse_plus sparse_sigmoid sparsemax exponential linear
"""

RIGHT = {
    "LSTM": on_sequence(lambda: K.LSTM(2)),
    "GRU": on_sequence(lambda: K.GRU(2, return_sequences=True, unroll=True), shape=(3, 3)),
    "SimpleRNN": on_sequence(lambda: K.SimpleRNN(2)),
    "ConvLSTM2D": on_sequence(lambda: K.ConvLSTM2D(1, 2), shape=(2, 3, 3, 2)),
    "TimeDistributed": on_sequence(lambda: K.TimeDistributed(K.Dense(2, "tanh"))),
    "masked SimpleRNN": embedded(lambda: K.SimpleRNN(2), mask_zero=True),
    "Embedding": embedded(lambda: K.Dense(2, "tanh")),
    "map_fn": on_sequence(
        lambda: Weighted(lambda x, k: tf.map_fn(lambda row: tf.tanh(row @ k), x)),
    ),
    "scan": on_sequence(lambda: Weighted(scanned)),
    "cond": on_vector(lambda: Weighted(two_branches)),
    "inner function": on_vector(lambda: InnerFunction(None)),
    "custom gradient": on_vector(own(straight_through)),
    "custom gradient in a function": on_vector(own(tf.function(straight_through))),
    "grouped Conv2D": on_images(lambda: K.Conv2D(2, 3, groups=2)),
    "Conv1D": on_sequence(lambda: K.Conv1D(2, 2, dilation_rate=2)),
    "Conv3D": on_sequence(lambda: K.Conv3D(2, 2), shape=(3, 3, 3, 1)),
    "Conv2DTranspose": on_images(lambda: K.Conv2DTranspose(1, 2, strides=2), shape=(2, 2, 1)),
    "DepthwiseConv2D": on_images(lambda: K.DepthwiseConv2D(3, strides=2)),
    "SeparableConv2D": on_images(lambda: K.SeparableConv2D(2, 3, strides=2)),
    "MaxPooling1D": on_sequence(lambda: K.Dense(2), lambda: K.MaxPooling1D(2)),
    "MaxPooling2D": on_images(lambda: K.MaxPooling2D(3, 2)),
    "MaxPooling2D of ntk_tf": on_images(lambda: MaxPooling2D(3, 2)),
    "nn.max_pool": on_images(own(lambda x: tf.nn.max_pool(x, 2, 3, "SAME"))),
    "AveragePooling2D": on_images(lambda: K.AveragePooling2D(3, 2, padding="same")),
    "AdaptiveMaxPooling2D": on_images(lambda: K.AdaptiveMaxPooling2D(2)),
    "AdaptiveAveragePooling2D": on_images(lambda: K.AdaptiveAveragePooling2D(2)),
    "GlobalMaxPooling2D": on_images(lambda: K.GlobalMaxPooling2D()),
    "GlobalAveragePooling2D": on_images(lambda: K.GlobalAveragePooling2D()),
    "BatchNormalization": on_vector(lambda: K.BatchNormalization()),
    "LayerNormalization": on_vector(lambda: K.LayerNormalization()),
    "RMSNormalization": on_vector(lambda: K.RMSNormalization()),
    "GroupNormalization": on_images(lambda: K.GroupNormalization(1), shape=(2, 2, 1)),
    "UnitNormalization": on_vector(lambda: K.UnitNormalization()),
    "SpectralNormalization": on_vector(lambda: K.SpectralNormalization(K.Dense(2))),
    "MultiHeadAttention": attention(lambda: K.MultiHeadAttention(2, 2)),
    "GroupQueryAttention": attention(lambda: K.GroupQueryAttention(2, 4, 2)),
    "Attention": attention(lambda: _Attend(K.Attention())),
    "AdditiveAttention": attention(lambda: _Attend(K.AdditiveAttention())),
    "EinsumDense": on_sequence(lambda: K.EinsumDense("abc,cd->abd", (None, 2), bias_axes="d")),
    "PReLU": on_vector(lambda: K.PReLU("random_normal")),
    "Dropout": on_vector(lambda: K.Dropout(0.5)),
    "Maximum": merged(K.Maximum),
    "Multiply": merged(K.Multiply),
    "Dot": merged(lambda: K.Dot(1)),
    "Concatenate": merged(K.Concatenate),
    "sort": on_vector(own(lambda x: tf.sort(x, axis=1))),
    "stop_gradient": on_vector(own(lambda x: x * tf.stop_gradient(x))),
    "several inputs and outputs": several,
    "outputs of shape [b]": on_vector(own(lambda x: tf.reduce_sum(tf.sin(x), axis=1))),
    "softsign": on_vector(lambda: K.Activation("softsign")),
} | {names: activations(names) for names in ACTIVATIONS.strip().split("\n")}

#: TensorFlow computes these in float32 only, whatever comes in.
SINGLE = {
    "MaxPooling3D": on_sequence(lambda: K.Dense(2), lambda: K.MaxPooling3D(2), shape=(2, 2, 4, 1)),
    "bilinear UpSampling2D": on_images(
        lambda: K.UpSampling2D(2, interpolation="bilinear"), shape=(2, 2, 2)
    ),
    "local_response_normalization": on_images(
        own(lambda x: tf.nn.local_response_normalization(x, 1, 1.0, 0.3, 0.7)),
        shape=(2, 2, 2),
        channels=4,
    ),
} | {
    f"{name} Resizing": on_images(resizing(name), shape=(3, 3, 2))
    for name in ("nearest", "bilinear", "bicubic", "lanczos3", "lanczos5")
}

REFUSED = {
    "numpy_function": on_vector(
        own(lambda x: tf.ensure_shape(tf.numpy_function(np.sin, [x], x.dtype), x.shape))
    ),
    "max_pool_with_argmax": on_images(
        own(lambda x: tf.nn.max_pool_with_argmax(x, 2, 2, "VALID")[0])
    ),
    "fractional_max_pool": on_images(
        own(lambda x: tf.nn.fractional_max_pool(x, [1, 1.5, 1.5, 1], seed=1)[0])
    ),
    "dilation2d": on_images(
        own(
            lambda x: tf.nn.dilation2d(
                x, tf.ones((2, 2, 2), x.dtype), (1, 1, 1, 1), "VALID", "NHWC", (1, 1, 1, 1)
            )
        )
    ),
    "area Resizing": on_images(resizing("area")),
}


class _Attend(K.Layer):
    """Attention layers take a list."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def call(self, query, value):
        return self.layer([query, value])


#: Where an eager call differs from a graph in more than its speed.
BOTH = ("masked SimpleRNN", "map_fn", "scan", "cond", "inner function", "custom gradient")
BOTH += ("custom gradient in a function", "several inputs and outputs", "softsign", "Dropout")


def inputs_of(model, rng):
    def draw(spec):
        shape = (2, *spec.shape[1:])
        if "int" in spec.dtype:
            return tf.constant(np.array([[1, 2, 3, 0, 0], [4, 5, 6, 1, 2]]))
        return tf.constant(rng.standard_normal(shape), spec.dtype)

    given = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    return keras.tree.map_structure(draw, given)


def flat(tensors) -> np.ndarray:
    return np.concatenate([np.ravel(tf.convert_to_tensor(t)) for t in tensors]).astype("float64")


def products(jacobian, x, rng, mode):
    """J u and J^T r for random u and r, as vectors, in a mode."""
    u = [tf.constant(rng.standard_normal(w.shape), w.dtype) for w in jacobian.weights]
    outputs = jacobian.base(x, training=False)
    r = tf.nest.map_structure(lambda f: tf.constant(rng.standard_normal(f.shape), f.dtype), outputs)

    def both(x):
        _, tangent, pullback = jacobian.linearize(x, u)
        return tangent, pullback(r)

    if mode != "eager":
        both = tf.function(both, jit_compile=mode == "xla", autograph=False)
    tangent, gradient = both(x)
    flat_r = flat(tf.nest.flatten(r))
    return flat(u), flat(tf.nest.flatten(tangent)), flat_r, flat(gradient)


def checked(jacobian, x, mode, monkeypatch):
    """J u and J^T r for random u and r, as vectors, as the check of a mode computes them at x."""
    computed, compared = [], check._compared

    def compare(*found):
        computed.append([flat(tensors) for tensors in found])
        return compared(*found)

    with monkeypatch.context() as patch:
        patch.setattr(check, "sample", lambda leaf: leaf)
        patch.setattr(check, "_compared", compare)
        jacobian.check(x, mode)
    u, r, tangent, gradient = computed[-1]
    return u, tangent, r, gradient


def assert_right(build, rng, modes, dtype, monkeypatch):
    keras.utils.set_random_seed(1)
    model = build()
    x = inputs_of(model, rng)
    matrix = dense_jacobian(model, x).astype("float64")
    for mode in modes:
        u, tangent, r, gradient = checked(Jacobian(model), x, mode, monkeypatch)
        for found, expected in ((tangent, matrix @ u), (gradient, matrix.T @ r)):
            error = np.abs(found - expected).max()
            assert error <= TOLERANCE[dtype] * max(np.abs(expected).max(), 1e-2), mode


@pytest.mark.parametrize("name", RIGHT)
def test_float64(name, rng, float64, monkeypatch):
    modes = ("eager", "graph") if name in BOTH else ("graph",)
    assert_right(RIGHT[name], rng, modes, "float64", monkeypatch)


@pytest.mark.parametrize("name", ["SimpleRNN", "custom gradient", "softsign", *SINGLE])
def test_float32(name, rng, monkeypatch):
    assert_right((RIGHT | SINGLE)[name], rng, ("graph",), "float32", monkeypatch)


@pytest.mark.parametrize(
    "name",
    [
        "inner function",
        "custom gradient",
        "softsign",
        "MaxPooling2D of ntk_tf",
        "bilinear Resizing",
    ],
)
def test_xla(name, rng, monkeypatch):
    assert_right((RIGHT | SINGLE)[name], rng, ("xla",), "float32", monkeypatch)


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_refused(name, mode, rng):
    model = REFUSED[name]()
    with pytest.raises(ValueError, match=r"cannot be linearized here.*'(own|resized)'"):
        products(Jacobian(model), inputs_of(model, rng), rng, mode)


@pytest.mark.parametrize("name", ["MaxPooling3D", "nn.max_pool", "AdaptiveMaxPooling2D"])
def test_xla_refuses_max_pooling(name, rng):
    """Before anything is compiled, naming the layer; and it says so beforehand."""
    model = (RIGHT | SINGLE)[name]()
    jacobian = Jacobian(model)
    assert not jacobian.survives_xla()
    with pytest.raises(ValueError, match=r"(own|pool).*max pooling.*jit_compile=False"):
        products(jacobian, inputs_of(model, rng), rng, "xla")


def grouped(shift):
    """A convolution that TensorFlow loses the tangents of in a graph, and a layer beside it."""
    bias = keras.initializers.Constant(shift)
    conv = K.Conv2D(4, 3, groups=2, activation="relu", bias_initializer=bias, name="grouped")
    return keras.Sequential([keras.Input((4, 4, 2)), conv, K.Flatten(), K.Dense(2)])


def test_layers_that_the_check_finds_dead(rng):
    """On its random inputs in (0, 1) all units are off, so that no derivative tells a thing."""
    model = grouped(-2.0)
    assert not np.any(model.layers[0](np.random.default_rng(0).random((50, 4, 4, 2))))
    x = tf.constant(2 * rng.standard_normal((6, 4, 4, 2)), "float32")
    matrix = dense_jacobian(model, x).astype("float64")
    u, tangent, r, gradient = products(Jacobian(model), x, rng, "graph")
    np.testing.assert_allclose(tangent, matrix @ u, atol=1e-5 * np.abs(matrix @ u).max())
    np.testing.assert_allclose(gradient, matrix.T @ r, atol=1e-5 * np.abs(matrix.T @ r).max())


def test_small_derivatives_do_not_drown_in_the_check(rng):
    """The convolution's are a hundred thousandth of the dense layer's, and much else is not."""
    model = grouped(0.5)
    kernel = model.layers[-1].kernel
    kernel.assign(1e-5 * kernel)
    x = tf.constant(rng.random((6, 4, 4, 2)), "float32")
    matrix = dense_jacobian(model, x).astype("float64")
    few = 4 * 9 + 4  # of the convolution
    jacobian = Jacobian(model)
    u = [tf.zeros(w.shape) for w in jacobian.weights]
    u[:2] = [tf.constant(rng.standard_normal(w.shape), w.dtype) for w in jacobian.weights[:2]]
    tangent = tf.function(lambda x: jacobian.jvp(x, u)[1])(x)
    expected = matrix[:, :few] @ flat(u)[:few]
    np.testing.assert_allclose(np.ravel(tangent), expected, atol=1e-5 * np.abs(expected).max())
    with pytest.raises(ValueError, match="at 'grouped'.*jvp='forward'"):
        Jacobian(model, jvp="forward").check(x, mode="graph")


def test_weights_at_a_kink_are_no_hidden_ones(rng):
    """All of a ReLU's inputs are 0, where its gradient is 0 by convention."""
    dead = K.Dense(4, "relu", kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((6,)), dead, K.Dense(2)])
    x = tf.constant(rng.standard_normal((5, 6)), "float32")
    u, tangent, _, _ = products(Jacobian(model), x, rng, "graph")
    np.testing.assert_allclose(tangent, dense_jacobian(model, x) @ u, atol=1e-6)
