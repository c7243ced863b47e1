"""Kernels at infinite width: against published code's values, finite networks, and each other."""

import functools
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from gold_kernels import CNTK, GOLD, circle, sines
from references import dense_jacobian

from ntk_tf import models, ntk
from ntk_tf.models.ntk_scaled import NTKScaled
from ntk_tf.ntk import infinite
from ntk_tf.ntk.infinite import channels as random_channels
from ntk_tf.ntk.infinite import evaluate, nodes, pairings
from ntk_tf.ntk.infinite.limits import NTKLimit
from ntk_tf.ntk.infinite.nodes import Input

LENET = next(gold for gold in GOLD if gold.name == "LeNet, average pooling")
PICTURES = sines(3, 1, 16)


def assert_approached(found, expected):
    """The mean of finite kernels: within its error, and what falls as 1 / width."""
    error = np.std(found, axis=0, ddof=1) / np.sqrt(len(found))
    assert error.max() < 0.1 * expected.max()
    assert np.all(np.abs(np.mean(found, axis=0) - expected) < 4 * error + 0.02 * expected.max())


def entries(kernel, pairs):
    return np.array([kernel[pair] for pair in pairs])


@pytest.mark.parametrize("gold", GOLD, ids=lambda gold: gold.name)
def test_gold(gold):
    arguments = {k: v for k, v in gold.arguments.items() if k != "output_factor"}  # 1 anyway
    function = infinite.KernelFunction(gold.arch, gold.inputs.shape[1:], "ntk", arguments)
    found = function(gold.inputs)
    for kernel, values in ((found.ntk, gold.ntk), (found.nngp, gold.nngp)):
        np.testing.assert_allclose(entries(kernel, values), list(values.values()), rtol=1e-6)
        assert kernel.dtype == np.float64
        np.testing.assert_array_equal(kernel, kernel.T)


@pytest.mark.parametrize(("channels", "side", "depth"), CNTK)
def test_arora(channels, side, depth):
    x, values = sines(3, channels, side), np.array(CNTK[channels, side, depth])
    arguments = {"depth": depth}
    found = infinite.kernel("cnn_v", x, arch_args=arguments)
    pairs = [(0, 0), (0, 1), (0, 2), (1, 2)]
    np.testing.assert_allclose(entries(found, pairs), values[:4], rtol=1e-6)
    if depth > 6:  # seconds
        found = infinite.kernel("cnn_gap", x[:2], arch_args=arguments)
        np.testing.assert_allclose(found[0], values[4:6], rtol=1e-6)
        return
    function = infinite.KernelFunction("cnn_gap", x.shape[1:], arch_args=arguments, per_layer=True)
    found = function(x[:1], x)
    np.testing.assert_allclose(found.ntk[0, :2], values[4:6], rtol=1e-6)
    parts = dict(found.parts)
    assert len(parts) == depth
    np.testing.assert_allclose(sum(parts.values()), found.ntk)
    del parts["conv1"], parts["outputs"]
    np.testing.assert_allclose(sum(parts.values())[0, :2], 9 * values[6:], rtol=1e-6)


@pytest.mark.parametrize(
    ("arch", "x", "width", "arguments"),
    [("mlp", circle(), 16, {"depth": 3}), ("lenet", PICTURES, 16, {"pooling": "average"})],
)
def test_standard_parametrization_is_what_finite_kernels_approach(arch, x, width, arguments):
    """The kernel of one output divided by the width, from gradients of networks as Keras has."""
    expected = infinite.kernel(arch, x, arch_args=arguments, parametrization="standard")
    found = []
    for seed in range(12):
        model = models.build(arch, width, 1, x.shape[1:], seed, **arguments)
        # What biases do falls as 1 / width, from far above the rest, but behind the inputs.
        models.freeze_biases(model)
        for bias in [w for w in model.non_trainable_weights if w.name == "bias"][1:]:
            bias.assign(0 * bias)
        jacobian = dense_jacobian(model, x.astype("float32")).astype("float64")
        found.append(jacobian @ jacobian.T / width)
    assert_approached(found, expected)
    other = infinite.kernel(arch, x, arch_args=arguments | {"sigma_b": 0.0})
    assert cosine(np.mean(found, axis=0), expected) > cosine(np.mean(found, axis=0), other)


@pytest.mark.parametrize(
    ("arch", "x", "arguments"),
    [("mlp", circle(), {"depth": 3}), ("lenet", PICTURES, {"pooling": "average"})],
)
def test_xavier_s_limit_is_what_finite_kernels_approach(arch, x, arguments):
    """Not divided by the width, and with the biases', which are as large as the weights'."""
    arguments = arguments | {"gain": 1.2}
    expected = infinite.kernel(arch, x, arch_args=arguments, parametrization="standard")
    found = []
    for seed in range(6):
        model = models.build(arch, 16, 1, x.shape[1:], seed, **arguments)
        jacobian = dense_jacobian(model, x.astype("float32")).astype("float64")
        found.append(jacobian @ jacobian.T)
    assert_approached(found, expected)


def test_sums_are_what_finite_networks_give(monkeypatch):
    """Behind a sum of convolutions an activation has a kernel; see the refusals for others."""
    x = PICTURES[:, :6, :6]

    def build(layers, x):
        x = layers.conv(x, 96, 3, padding=1, name="conv")
        for i in range(2):
            y = layers.activation(x, "relu", name=f"relu{i}")
            x = layers.add(x, layers.conv(y, 96, 3, padding=1, name=f"conv{i}"), name=f"add{i}")
        x = layers.activation(x, "relu", name="relu")
        return layers.outputs(layers.global_average_pool(x, name="pool"), 1)

    expected = of_layers(monkeypatch, build, (6, 6, 1))(x).ntk
    found = []
    for seed in range(8):
        inputs = keras.Input((6, 6, 1))
        layers = NTKScaled(1, seed, sigma_w=2**0.5, sigma_b=0.3)
        model = keras.Model(inputs, build(layers, inputs))
        jacobian = dense_jacobian(model, x.astype("float32")).astype("float64")
        found.append(jacobian @ jacobian.T)
    assert_approached(found, expected)


def cosine(a, b):
    return np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b)


def test_blocks_and_two_sets(rng):
    x, z = rng.standard_normal((5, 6, 6, 2)), rng.standard_normal((4, 6, 6, 2))
    deep = {"arch_args": {"depth": 3}}
    function = infinite.KernelFunction("cnn_gap", (6, 6, 2), memory_gib=5e-4, **deep)
    assert function.block < 4
    done = []
    found = function(x, z, after_block=lambda *counts: done.append(counts))
    assert done[-1] == (len(done), len(done))
    whole = infinite.KernelFunction("cnn_gap", (6, 6, 2), **deep)(np.concatenate([x, z]))
    np.testing.assert_allclose(found.ntk, whole.ntk[:5, 5:], rtol=1e-12)
    np.testing.assert_allclose(found.nngp, whole.nngp[:5, 5:], rtol=1e-12)
    np.testing.assert_allclose(function(x).ntk, whole.ntk[:5, :5], rtol=1e-12)


@pytest.mark.parametrize(
    ("arch", "side", "precision", "memory_gib", "expected"),
    [
        ("lenet", 32, "float32", None, 16),
        ("lenet", 32, "float64", None, 8),
        ("lenet", 32, "float64", 0.01, 1),
        ("cnn_gap", 32, "float32", None, 4),
        ("cnn_v", 32, "float32", None, 32),
    ],
)
def test_blocks_are_of_two_vectors_of_pictures_where_memory_allows(
    arch, side, precision, memory_gib, expected
):
    arguments = {"pooling": "average"} if arch == "lenet" else {"depth": 2}
    function = infinite.KernelFunction(
        *(arch, (side, side, 3)), arch_args=arguments, precision=precision, memory_gib=memory_gib
    )
    assert function.block == expected


def test_random_channels_are_kept_within_the_memory(rng):
    x = rng.standard_normal((8, 16, 16, 1))
    small = infinite.KernelFunction("lenet", (16, 16, 1), memory_gib=0.01)
    side = small._side(small._padded(x, [slice(0, small.block)], 0), tf.constant(0, tf.int64))
    kept = sum(a.nbytes for maxima in side.maxima.values() for a in map(np.asarray, maxima))
    assert 0.05 < small.sides * kept / (0.01 * 2**30) < 0.25
    whole = infinite.KernelFunction("lenet", (16, 16, 1))
    assert small.block < whole.block
    assert small.sides < whole.sides
    np.testing.assert_allclose(small(x[:4]).ntk, whole(x[:4]).ntk, rtol=1e-5)


@pytest.mark.parametrize(("outputs", "terms"), [(7, 1), (50, 32), (5, 33), (50, 49), (3000, 49)])
def test_sums_over_windows(rng, outputs, terms):
    """Few terms or many, for few positions or many, by a graph that does not grow with them."""
    x, rows = rng.standard_normal((20, 3, 2)), rng.integers(0, 21, (outputs, terms))
    expected = np.concatenate([x, np.zeros((1, 3, 2))])[rows].sum(axis=1)

    @tf.function
    def sums():
        return nodes._sum_of_rows(tf.constant(x), rows, outside=True)

    np.testing.assert_allclose(sums(), expected, rtol=1e-12, atol=1e-12)
    assert len(sums.get_concrete_function().graph.get_operations()) <= 40


def test_float32_is_near():
    exact = infinite.kernel("cnn_v", PICTURES)
    near = infinite.kernel("cnn_v", PICTURES, precision="float32")
    np.testing.assert_allclose(near, exact, rtol=1e-5)
    assert not np.array_equal(near, exact)


def test_relu_of_any_scale(rng):
    """Variances of many layers may be so small that their products are zero in float32."""
    a, b = rng.uniform(0.5, 2, (2, 7)).astype("float32")
    s = np.float32(0.9) * np.sqrt(a * b)
    one = [tf.ones((), s.dtype)], 1e-6
    nngp, (derivative,) = nodes.relu(*map(tf.constant, (s, a, b)), *one)
    for scale in np.float32([2**-100, 2**100]):
        found, (of_derivatives,) = nodes.relu(*(tf.constant(scale * x) for x in (s, a, b)), *one)
        np.testing.assert_array_equal(found, scale * nngp.numpy())
        np.testing.assert_array_equal(of_derivatives, derivative)
    nngp, (derivative,) = nodes.relu(*3 * [tf.zeros(3)], *one)
    assert np.isfinite(nngp).all()
    assert np.isfinite(derivative).all()


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_angles_are_those_of_the_library(precision, rng):
    x = np.concatenate([np.linspace(-3, 3, 1001), [0.0, 0.0, -1.0, 1e-30]])
    y = np.concatenate([rng.uniform(0, 2, 1001), [0.0, 1.0, 0.0, 1e-30]])
    x, y = x.astype(precision), y.astype(precision)
    found = tf.function(nodes._angle, jit_compile=True)(tf.constant(y), tf.constant(x)).numpy()
    truth = np.arctan2(y.astype("float64"), x.astype("float64"))
    known = np.hypot(x, y) > 0
    eps = np.finfo(precision).eps
    np.testing.assert_allclose(found[known], truth[known], rtol=4 * eps, atol=0)


def of_layers(monkeypatch, build, shape=(6, 6, 2), **options):
    """The kernel function of layers that are no architecture."""

    def network(*_):
        inputs = Input("inputs", (), shape[:2], shape[2], grows=False)
        return build(NTKLimit(sigma_w=2**0.5, sigma_b=0.3), inputs)

    monkeypatch.setattr(evaluate, "network", network)
    return infinite.KernelFunction("lenet", shape, **options)


def test_the_same_by_other_layers(monkeypatch, rng):
    """Padding by a layer and by a convolution, a grid that fits and a pooling, a scale."""
    x = rng.standard_normal((3, 6, 6, 2))

    def one(layers, x):
        x = layers.conv(x, 4, 3, padding=1, activation="relu", name="conv")
        x = layers.conv(layers.average_pool(x, 2, name="pool"), 4, 1, name="conv2")
        return layers.outputs(layers.flatten(x, name="flatten"), 1)

    def other(layers, x):
        x = layers.conv(layers.zero_padding(x, 1, name="zeros"), 4, 3, name="conv")
        x = layers.scale(layers.activation(x, "relu", name="relu"), -2.0, name="scale")
        x = layers.adaptive_average_pool(layers.scale(x, 0.5, name="back"), 3, name="pool")
        x = layers.conv(x, 4, 1, name="conv2")
        return layers.outputs(layers.flatten(x, name="flatten"), 1)

    found = [of_layers(monkeypatch, build)(x) for build in (one, other)]
    np.testing.assert_allclose(found[0].ntk, found[1].ntk, rtol=1e-12)
    np.testing.assert_allclose(found[0].nngp, found[1].nngp, rtol=1e-12)


@pytest.mark.parametrize("kind", ["relu", "erf"])
def test_an_activation_behind_a_flattening_is_of_each_number_by_itself(kind, monkeypatch, rng):
    """As before it; the mean over the positions, which K is behind it, comes last."""

    def behind(layers, x):
        x = layers.flatten(layers.conv(x, 4, 2, name="conv"), name="flatten")
        return layers.outputs(layers.activation(x, kind, name="act"), 1)

    def before(layers, x):
        x = layers.activation(layers.conv(x, 4, 2, name="conv"), kind, name="act")
        return layers.outputs(layers.flatten(x, name="flatten"), 1)

    x = rng.standard_normal((3, 6, 6, 2))
    found, expected = (of_layers(monkeypatch, build)(x) for build in (behind, before))
    np.testing.assert_array_equal(found.ntk, expected.ntk)
    np.testing.assert_array_equal(found.nngp, expected.nngp)


@pytest.mark.parametrize(
    ("pool", "arguments", "same"),
    [
        ("adaptive_average_pool", [3], models.pooling.AdaptiveAveragePooling2D(3)),
        ("average_pool", [2, 1], keras.layers.AveragePooling2D(2, 1)),
        ("average_pool", [2, 3], keras.layers.AveragePooling2D(2, 3)),
    ],
    ids=["does not fit", "overlaps", "leaves out"],
)
def test_a_grid_of_windows(pool, arguments, same, monkeypatch, rng):
    """A linear network's kernel is that of explicit features."""
    x = rng.standard_normal((3, 5, 4, 2))

    def build(layers, x):
        x = getattr(layers, pool)(x, *arguments, name="pool")
        return layers.outputs(layers.flatten(x, name="flatten"), 1, use_bias=False)

    features = same(x.astype("float32")).numpy().reshape(3, -1)
    expected = 2 * features @ features.T / features.shape[1]
    found = of_layers(monkeypatch, build, (5, 4, 2))(x)
    np.testing.assert_allclose(found.ntk, expected, rtol=1e-5, atol=1e-6)


class Averaging(NTKLimit):
    """Average pooling whose ReLU is estimated, as a max pooling of single positions."""

    def average_pool(self, x, size, strides=None, *, name):
        return super().average_pool(self.max_pool(x, 1, name=f"{name}_relu"), size, name=name)


def estimates(function, x, seeds):
    found = [function(x, seed=seed).ntk for seed in range(seeds)]
    return np.mean(found, axis=0), np.std(found, axis=0, ddof=1) / np.sqrt(seeds)


def test_estimator_against_average_pooling(monkeypatch):
    """The code behind max pooling, where the kernel is known, with an error of 1/sqrt(channels)."""
    monkeypatch.setitem(evaluate.LIMITS, "ntk", Averaging)
    spread = []
    for channels in (32, 96):
        function = infinite.KernelFunction(
            "lenet", (16, 16, 1), "ntk", LENET.arguments, channels=(channels,)
        )
        assert function.estimated
        mean, error = estimates(function, PICTURES, 6)
        for pair, value in LENET.ntk.items():
            assert abs(mean[pair] - value) < 3.5 * error[pair]
        spread.append(np.linalg.norm(error))
    assert 1.1 < spread[0] / spread[1] < 2.8  # 1.73, with infinitely many seeds


def test_max_pooling_of_windows_that_leave_out(monkeypatch, rng):
    """Windows of single positions, every second one, are ReLUs, whose kernel is known."""
    x = rng.standard_normal((2, 5, 5, 2))
    x[:, ::2, ::2] *= 3

    def build(pool, layers, x):
        x = layers.conv(x, 4, 1, activation="relu", name="conv")
        x = getattr(layers, pool)(x, 1, 2, name="pool")
        return layers.outputs(layers.flatten(x, name="flatten"), 1)

    function, exact = (
        of_layers(monkeypatch, functools.partial(build, pool), (5, 5, 2), channels=channels)
        for pool, channels in (("max_pool", (64,)), ("average_pool", None))
    )
    mean, error = estimates(function, x, 8)
    expected = exact(x).ntk
    assert np.all(np.abs(mean - expected) < 4 * error)
    assert np.all(error < 0.1 * expected)


def test_a_sum_with_the_first_layer_before_a_max_pooling(monkeypatch):
    """Its two summands are of different numbers of channels by default."""

    def build(layers, x):
        x = layers.conv(x, 8, 3, padding=1, name="conv1")
        x = layers.add(layers.conv(x, 8, 3, padding=1, name="conv2"), x, name="sum")
        x = layers.max_pool(layers.activation(x, "relu", name="relu"), 2, name="pool")
        return layers.outputs(layers.flatten(x, name="flatten"), 1)

    x = np.random.default_rng(0).random((2, 6, 6, 2))
    found = [of_layers(monkeypatch, build, channels=c)(x).ntk for c in ((64, 128), (128,))]
    np.testing.assert_array_equal(*found)
    assert of_layers(monkeypatch, build)(x).ntk.shape == (2, 2)


def test_a_max_pooling_of_a_whole_picture(monkeypatch, rng):
    """Its window has 144 places; against random filters in NumPy."""

    def build(layers, x):
        x = layers.conv(x, 8, 3, padding=1, activation="relu", name="conv")
        return layers.outputs(layers.max_pool(x, 12, name="pool"), 1)

    x = rng.random((2, 12, 12, 1))
    found = of_layers(monkeypatch, build, (12, 12, 1), channels=(4096,))(x)
    padded = np.pad(x[..., 0], ((0, 0), (1, 1), (1, 1)))
    patches = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2)).reshape(-1, 9)
    filters, biases = rng.standard_normal((9, 4000)), rng.standard_normal(4000)
    outputs = 2**0.5 / 3 * patches @ filters + 0.3 * biases
    largest = np.maximum(outputs, 0).reshape(2, 144, -1).max(axis=1)
    expected = 2 * largest @ largest.T / 4000 + 0.3**2
    np.testing.assert_allclose(found.nngp, expected, rtol=0.1)


@pytest.mark.parametrize("channels", [1, 64, 70, 150])
def test_channels_that_have_chosen_places_in_both_windows_are_counted(channels, rng):
    """Whatever part of 64 bits they fill, the sign's too, against a loop; some chose none."""
    chosen, others = rng.integers(-1, 3, (2, 1, 4, channels))
    chosen[0, 0] = 1
    parts = rng.standard_normal((2, 3 * 4, 3 * 4)).astype("float32")
    x, z = (random_channels._bits(tf.constant(one), 3)[0] for one in (chosen, others))
    found = pairings._where_chosen([tf.constant(part) for part in parts], x, z)
    expected = np.zeros((2, 4, 4))
    for n, m, c in itertools.product(range(4), range(4), range(channels)):
        i, j = chosen[0, n, c], others[0, m, c]
        if min(i, j) >= 0:
            expected[:, n, m] += parts[:, 4 * i + n, 4 * j + m]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_extrapolation(rng):
    """Kernels with a bias of b / C and noise of seeds; and without bias, no change but noise."""
    features = rng.standard_normal((6, 9))
    limit, bias = features @ features.T, np.diag(rng.uniform(size=6))
    noise = 1e-3 * rng.standard_normal((2, 40, 6, 6))
    few, many = (limit + bias / c + noise[i] for i, c in enumerate((1, 2)))
    found = infinite.extrapolate(few, many)
    limit /= np.trace(limit)
    assert np.linalg.norm(found.kernel - limit) < 0.1 * np.linalg.norm(
        many[0] / np.trace(many[0]) - limit
    )
    assert found.change > 20 * found.noise
    scaled = [k / np.trace(k) for k in many]
    error = np.linalg.norm(np.std(scaled, axis=0, ddof=1)) / 40**0.5
    assert infinite.relative_error(many) == pytest.approx(
        error / np.linalg.norm(np.mean(scaled, axis=0))
    )
    again = infinite.extrapolate(limit + noise[0], limit + noise[1])
    assert 0.5 < again.change / again.noise < 2
    with pytest.raises(ValueError, match="must be"):
        infinite.extrapolate(few[:1], many[:1])


def test_max_pooling_against_finite_networks():
    """Values of gradients of finite networks, with their errors: 1,024 channels, 16 seeds."""
    values = {(0, 0): 24.24, (0, 1): 16.83, (0, 2): 16.77, (1, 1): 26.32, (1, 2): 17.32}
    function = infinite.KernelFunction("lenet", (16, 16, 1), channels=(256,))
    mean, error = estimates(function, PICTURES, 8)
    for pair, value in values.items():
        assert abs(mean[pair] - value) < 3 * np.hypot(error[pair], 0.21)
        assert error[pair] < 0.05 * value


@pytest.mark.parametrize("sigma_b", [0.0, 0.5])
def test_constant_pictures_need_no_pooling(sigma_b):
    x = np.ones((2, 16, 16, 1)) * np.array([1.0, -0.5])[:, None, None, None]
    scales = {"sigma_b": sigma_b}
    function = infinite.KernelFunction("lenet", (16, 16, 1), arch_args=scales, channels=(64,))
    mean, error = estimates(function, x, 6)
    exact = infinite.kernel("lenet", x, arch_args=scales | {"pooling": "average"})
    assert np.all(np.abs(mean - exact) < 4 * error)
    assert np.all(error < 0.1 * exact.max())


@pytest.mark.parametrize("shares", [(1.0, 0.09), (0.0, 0.0)])
def test_behind_the_first_layer_theta_is_found_at_once(shares, monkeypatch, rng):
    """As where another layer is between, so that it is kept at all pairs of positions."""
    x = rng.standard_normal((4, 7, 6, 2))

    def build(layers, x, *, between):
        x = layers.conv(x, 4, 3, padding=1, weight_factor=0.5, name="conv1")
        x.shares = shares
        x = layers.scale(x, 1.0, name="between") if between else x
        x = layers.max_pool(layers.activation(x, "relu", name="relu"), 3, 2, name="pool")
        return layers.outputs(layers.flatten(x, name="flatten"), 1)

    ways = (functools.partial(build, between=between) for between in (False, True))
    found = [of_layers(monkeypatch, way, (7, 6, 2), per_layer=True)(x) for way in ways]
    assert ("conv1" in found[0].parts) == any(shares)
    assert found[0].parts.keys() == found[1].parts.keys()
    for name, part in found[0].parts.items():
        np.testing.assert_allclose(part, found[1].parts[name], rtol=2e-6)
    np.testing.assert_allclose(found[0].nngp, found[1].nngp, rtol=2e-6)


def test_pictures_of_the_paper_s_alexnet_fit():
    """Its first layer has 3,025 positions, whose kernels are not kept at all pairs."""
    function = infinite.KernelFunction("alexnet", (224, 224, 3), memory_gib=2)
    assert function.block >= 2


@pytest.fixture(scope="module")
def pooled():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((12, 16, 16, 1))
    function = infinite.KernelFunction("lenet", (16, 16, 1), channels=(16, 32))
    return function, x, function(x, seed=3)


def test_max_pooling_is_positive_semidefinite(pooled):
    _, _, found = pooled
    for kernel in (found.ntk, found.nngp):
        assert np.linalg.eigvalsh(kernel)[0] >= -1e-6 * np.trace(kernel)


def test_max_pooling_of_a_pair_is_the_same_among_others(pooled):
    function, x, found = pooled
    order = np.random.default_rng(1).permutation(len(x))
    again = function(x[order], seed=3).ntk
    np.testing.assert_allclose(again, found.ntk[np.ix_(order, order)], rtol=1e-5)
    pair = function(x[4:5], x[7:8], seed=3)
    np.testing.assert_allclose(pair.ntk[0, 0], found.ntk[4, 7], rtol=1e-5)
    np.testing.assert_allclose(pair.nngp[0, 0], found.nngp[4, 7], rtol=1e-5)
    assert abs(function(x[4:5], x[7:8], seed=4).ntk[0, 0] / found.ntk[4, 7] - 1) > 1e-3


def test_regression_takes_the_kernel(rng):
    x, y = rng.standard_normal((6, 3)), rng.standard_normal((6, 2))
    kernel = infinite.kernel("mlp", x)
    solution = ntk.kernel_regression(kernel, y, np.zeros_like(y), precision="float64")
    np.testing.assert_allclose(solution.fitted, y, atol=1e-8)


def norm(layers, x):
    return layers.norm(x, name="conv_norm")


def pool_of_pool(layers, x):
    x = layers.max_pool(layers.conv(x, 1, 3, name="conv"), 2, name="pool1")
    return layers.max_pool(x, 2, name="pool2")


def sum_of_itself(layers, x):
    x = layers.conv(x, 1, 3, name="conv")
    return layers.add(x, layers.scale(x, 2.0, name="scale"), name="sum")


def shortcut_from_an_activation(layers, x):
    x = layers.conv(x, 1, 3, activation="relu", name="conv1")
    x = layers.add(layers.conv(x, 1, 3, padding=1, name="conv2"), x, name="sum")
    return layers.activation(x, "relu", name="relu_of_sum")


def sum_with_a_flattening(layers, x):
    x = layers.flatten(layers.conv(x, 1, 3, name="conv"), name="flatten")
    return layers.activation(
        layers.add(layers.dense(x, 1, name="dense"), x, name="sum"), "relu", name="act"
    )


def tanh(layers, x):
    return layers.conv(x, 1, 3, activation="tanh", name="conv")


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (norm, "conv_norm"),
        (pool_of_pool, "pool2"),
        (sum_of_itself, "sum"),
        (shortcut_from_an_activation, "relu_of_sum"),
        (sum_with_a_flattening, "act"),
        (tanh, "conv_act"),
    ],
)
def test_layers_without_a_kernel_are_named(monkeypatch, build, named):
    with pytest.raises(infinite.NoKernelError, match=f"^layer {named}") as error:
        of_layers(monkeypatch, build)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"arch": "resnet18", "arch_args": {"batch_norm": True}}, "layer conv_norm: batch norm"),
        ({"arch": "resnet18"}, "layer group1_block1_relu2: .*not Gaussian"),
        ({"arch": "mlp", "arch_args": {"activation": "tanh"}}, "layer dense1_activation: .*tanh"),
        ({"arch": "lenet", "x": np.zeros((1, 8, 8, 1))}, "input_shape=.*does not fit"),
        ({"arch": "mlp", "arch_args": {"depth": 1}, "parametrization": "standard"}, "no hidden"),
        ({"arch": "mlp", "arch_args": {"sigma_w": np.nan}}, "sigma_w=nan: must be a finite number"),
        ({"arch": "lenet", "x": np.zeros((2, 7))}, "takes pictures"),
        ({"arch": "mlp", "arch_args": {"gain": 2.0}}, "gain=2.0: the architecture mlp takes"),
        (
            {
                "arch": "mlp",
                "arch_args": {"gain": 1.0, "activation": "erf"},
                "parametrization": "standard",
            },
            "layer dense1_activation: erf has no kernel here with gain=1; relu has",
        ),
        ({"arch": "mlp", "x": np.zeros((0, 7))}, "at least one picture"),
        ({"arch": "mlp", "x2": np.zeros((2, 7))}, "x2 of shape"),
        ({"arch": "mlp", "kind": "nnk"}, "kind='nnk': must be"),
        ({"arch": "mlp", "parametrization": "mup"}, "parametrization='mup': must be one of ntk"),
        ({"arch": "mlp", "precision": "half"}, "precision='half': must be"),
        ({"arch": "mlp", "channels": (4,)}, "channels=.* mlp has no max pooling"),
        ({"arch": "lenet", "channels": (0,)}, "channels=.* at least 1"),
        ({"arch": "lenet", "memory_gib": 1e-9}, "memory_gib=1e-09: the kernels of two pictures"),
        ({"arch": "lenet", "memory_gib": 0}, "memory_gib=0: must be above 0, and finite"),
        ({"arch": "lenet", "memory_gib": np.nan}, "memory_gib=nan: must be above 0, and finite"),
        ({"arch": "lenet", "channels": (4.5, 8)}, "channels=.*whole number, each at least 1"),
        ({"arch": "lenet", "memory_gib": 2e-3}, "memory_gib=0.002: the random channels of two"),
        ({"arch": "a.b:c"}, "arch='a.b:c': must be one of lenet"),
        (
            {"arch": "cnn_gap", "x": np.zeros((1, 224, 224, 3))},
            r"^pictures of 224x224: \S+ reads \S+ pairs of positions .* smaller pictures",
        ),
    ],
)
def test_refusals(arguments, message):
    given = {"x": np.zeros((2, 16, 16, 1))} | arguments
    with pytest.raises(ValueError, match=message):
        infinite.kernel(**given)


def test_every_architecture_but_resnet18_has_a_network():
    for arch, parametrization in itertools.product(
        ("lenet", "mlp", "vgg11", "cnn_v", "cnn_gap", "wrn", "alexnet"),
        ("ntk", "standard"),
    ):
        side = 63 if arch == "alexnet" else 32
        output = evaluate.network(arch, (side, side, 3), parametrization, {})
        assert (output.name, output.positions) in (("outputs", 1), ("kappa", 1))


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_equal_pictures_have_equal_kernels(precision, rng):
    """Rounding between them is no angle, whose root would be a difference of 1e-8 (5e-4)."""
    x = rng.standard_normal((60, 20))
    x[1] = x[0]
    arguments = {"depth": 4}
    kernel = infinite.kernel("mlp", x, arch_args=arguments, precision=precision)
    eps = np.finfo(precision).eps
    np.testing.assert_allclose(kernel[0, 1], kernel[0, 0], rtol=30 * eps)
    np.testing.assert_allclose(kernel[0, 2:], kernel[1, 2:], rtol=100 * eps)
    assert abs(np.linalg.eigvalsh(kernel)[0]) < 1e3 * eps * kernel[0, 0]


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("size", [400, 3072])
def test_a_picture_has_no_angle_with_itself(precision, size, rng):
    """However many numbers it has, which are float32 as those of all data are."""
    x = rng.standard_normal((50, size)).astype("float32").astype(float)
    arguments = {"depth": 2, "sigma_b": 0.1}
    kernel = infinite.kernel("mlp", x, arch_args=arguments, precision=precision)
    nngp = infinite.kernel("mlp", x, kind="nngp", arch_args=arguments, precision=precision)
    variance = np.sum(x**2, axis=1) / size + 0.01
    eps = np.finfo(precision).eps
    np.testing.assert_allclose(np.diag(kernel), np.diag(nngp) + variance / 2, rtol=30 * eps)


def test_nor_behind_max_pooling(rng):
    """Whose channels are float32: what weights add at either side of a ReLU is the same."""
    function = infinite.KernelFunction("lenet", (16, 16, 1), channels=(64, 128), per_layer=True)
    parts = function(rng.random((6, 16, 16, 1)).astype("float32")).parts
    np.testing.assert_allclose(np.diag(parts["dense2"]), np.diag(parts["outputs"]), rtol=1e-12)


def erf_kernels(x, sigma_b):
    """NNGP and NTK of one hidden layer, without cancellation (Williams 1996)."""
    x = x.astype(np.longdouble)
    s = x @ x.T / x.shape[1] + sigma_b**2
    a, b = np.diag(s)[:, None], np.diag(s)[None, :]
    # ab - s^2 as sums over pairs of numbers, of x with sigma_b as another one (Lagrange).
    whole = np.concatenate(
        [x / np.sqrt(np.longdouble(x.shape[1])), np.full((len(x), 1), sigma_b)], 1
    )
    wedge = whole[:, None, :, None] * whole[None, :, None, :]
    wedge = wedge - np.swapaxes(wedge, 2, 3)
    determinant = (wedge**2).sum(axis=(2, 3)) / 2
    below = 1 + 2 * a + 2 * b + 4 * determinant
    nngp = 2 / np.pi * np.arctan2(2 * s, np.sqrt(below)) + sigma_b**2
    return nngp, nngp + s * 4 / np.pi / np.sqrt(below)


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e3, 1e6, 1e9])
def test_erf_of_any_scale(precision, scale, rng):
    x = scale * rng.standard_normal((5, 7)).astype("float32").astype(float)
    x[1] = x[0]
    arguments = {"depth": 2, "activation": "erf", "sigma_b": 0.05, "sigma_w": 1.0}
    for kind, expected in zip(("nngp", "ntk"), erf_kernels(x, 0.05), strict=True):
        found = infinite.kernel("mlp", x, kind=kind, arch_args=arguments, precision=precision)
        tolerance = 200 * np.finfo(precision).eps * max(1.0, scale)
        np.testing.assert_allclose(found, expected.astype(float), rtol=min(tolerance, 1e-3))
