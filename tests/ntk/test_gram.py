"""The structured Gram against dense Jacobians, for every layer kind and every way to compute it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from references import dense_gram as dense
from references import surveyed

from ntk_tf import models, ntk, private
from ntk_tf.models.pooling import AdaptiveAveragePooling2D, MaxPooling2D
from ntk_tf.ntk import contract, pieces, plan
from ntk_tf.ntk.pieces import survey

L = 3


def functional(shape, *stack):
    """A model that applies layers in turn, then flattens to L outputs."""
    inputs = keras.Input(shape)
    x = inputs
    for layer in stack:
        x = layer(x)
    if len(x.shape) > 2:
        x = layers.Flatten()(x)
    return keras.Model(inputs, layers.Dense(L, bias_initializer="normal")(x))


def conv(*args, **kwargs):
    return layers.Conv2D(*args, bias_initializer="normal", **{"activation": "tanh"} | kwargs)


def residual():
    inputs = keras.Input((6, 6, 4))
    x = conv(4, 3, padding="same")(inputs)
    x = layers.add([layers.BatchNormalization()(x), inputs])
    x = layers.Concatenate()([x, conv(2, 1)(x)])
    return keras.Model(inputs, layers.Dense(L)(layers.GlobalAveragePooling2D()(x)))


def shared(shape=(4,)):
    """One layer used three times, once on other data."""
    inputs = keras.Input(shape)
    layer = layers.Dense(4, activation="tanh")
    x = layers.add([layer(layer(inputs)), layer(layers.Activation("sigmoid")(inputs))])
    return keras.Model(inputs, layers.Dense(L)(x))


class Tied(keras.Model):
    """Uses the transposed weights of a layer outside of it."""

    def __init__(self):
        super().__init__()
        self.encoder = layers.Dense(5, activation="tanh")
        self.readout = layers.Dense(L)

    def call(self, x):
        code = self.encoder(x)
        return self.readout(tf.tanh(tf.matmul(code, self.encoder.kernel, transpose_b=True)))


class Doubled(layers.Dense):
    """A subclass that computes something else."""

    def call(self, inputs):
        return super().call(inputs) ** 2 + tf.reduce_sum(self.kernel)


def nested():
    inner = functional((5, 5, 2), conv(3, 2))
    return functional((5, 5, 2), inner, layers.Dense(4, activation="relu"))


def frozen():
    model = functional((5, 5, 2), conv(3, 2), conv(4, 2))
    model.layers[1].trainable = False
    return model


MODELS = {
    "dense": lambda: functional((6,), layers.Dense(5, activation="relu", use_bias=False)),
    "dense_no_hidden": lambda: functional((6,)),
    "dense_on_sequences": lambda: functional((7, 4), layers.Dense(5, activation="softmax")),
    "conv": lambda: functional((7, 6, 2), conv(4, 3)),
    "conv_few_positions": lambda: functional((4, 4, 6), conv(8, 3)),
    "conv_strides": lambda: functional((9, 8, 2), conv(4, (3, 2), strides=(2, 3))),
    "conv_same": lambda: functional((7, 6, 2), conv(4, (4, 3), padding="same")),
    "conv_same_strides": lambda: functional((8, 7, 2), conv(4, 3, strides=2, padding="same")),
    "conv_dilation": lambda: functional((9, 9, 2), conv(4, 3, dilation_rate=(2, 3))),
    "conv_dilation_same": lambda: functional((9, 9, 2), conv(4, 3, 1, "same", dilation_rate=2)),
    "conv_groups": lambda: functional((3, 3, 12), conv(6, 3, groups=2)),
    "conv_bare": lambda: functional((5, 5, 1), conv(4, 3, activation=None, use_bias=False)),
    "depthwise": lambda: functional(
        (6, 6, 3), layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same")
    ),
    "depthwise_strides": lambda: functional((7, 7, 3), layers.DepthwiseConv2D(3, 2)),
    "batch_normalization": lambda: functional(
        (5, 5, 2), conv(4, 3), layers.BatchNormalization(), layers.Activation("relu")
    ),
    "batch_normalization_parts": lambda: functional(
        (6,),
        layers.Dense(5, activation="tanh"),
        layers.BatchNormalization(scale=False),
        layers.Dense(5, activation="tanh"),
        layers.BatchNormalization(center=False),
    ),
    "pooling": lambda: functional(
        (12, 12, 2),
        conv(4, 3),
        MaxPooling2D(3, 2),
        layers.AveragePooling2D(2, 1),
        AdaptiveAveragePooling2D(2),
    ),
    "residual": residual,
    "shared": shared,
    "shared_conv": lambda: functional((6, 6, 2), *[conv(2, 3, padding="same")] * 2),
    "nested": nested,
    "frozen": frozen,
    # What has no rule goes the general way.
    "tied": Tied,
    "subclass": lambda: functional((6,), Doubled(4)),
    "separable": lambda: functional((6, 6, 2), layers.SeparableConv2D(4, 3)),
    "conv1d": lambda: functional((9, 2), layers.Conv1D(4, 3, padding="causal")),
    "layer_normalization": lambda: functional((6,), layers.Dense(5), layers.LayerNormalization()),
    "prelu": lambda: functional((6,), layers.Dense(5, activation=layers.PReLU())),
    "recurrent": lambda: functional((3, 3), layers.SimpleRNN(4, unroll=True)),
    "time_distributed": lambda: functional((5, 3), layers.TimeDistributed(layers.Dense(4))),
    "attention": lambda: functional((5, 3), SelfAttention()),
}

#: Layers whose weights have no rule of their own, and no others do.
GENERAL = {"tied", "subclass", "separable", "prelu", "recurrent"}


class SelfAttention(layers.Layer):
    def __init__(self):
        super().__init__()
        self.attention = layers.MultiHeadAttention(2, 3)

    def build(self, shape):
        self.attention.build(shape, shape)

    def call(self, x):
        return self.attention(x, x)


def prepared(name, rng):
    """A model with random weights and statistics, and five inputs."""
    keras.utils.set_random_seed(int(rng.integers(1000)))
    model = MODELS[name]()
    shape = (6,) if name == "tied" else model.input_shape[1:]
    x = rng.standard_normal((5, *shape)).astype(keras.config.floatx())
    model(x)
    for layer in private.all_layers(model):
        if isinstance(layer, layers.BatchNormalization):
            layer.moving_mean.assign(rng.standard_normal(layer.moving_mean.shape))
            layer.moving_variance.assign(rng.uniform(0.5, 2, layer.moving_variance.shape))
    return model, x


def error(found, truth):
    return np.linalg.norm(found - truth) / np.linalg.norm(truth)


@pytest.mark.parametrize("name", MODELS)
def test_equals_dense_jacobian(name, rng, float64):
    model, x = prepared(name, rng)
    kernel = ntk.GramFunction(model, "float64")
    found = kernel(x)
    assert found.dtype == np.float64
    assert found.shape == (5, L, 5, L)
    assert error(found, dense(model, x)) < 1e-13
    matrix = found.reshape(5 * L, 5 * L)
    np.testing.assert_array_equal(matrix, matrix.T)
    eigenvalues = np.linalg.eigvalsh(matrix)
    assert eigenvalues[0] > -1e-10 * eigenvalues[-1]
    known = surveyed(kernel)
    assert known.outputs == L
    assert any(piece.layer is None for piece in known.pieces) == (name in GENERAL)
    covered = [id(w) for piece in known.pieces for w in piece.weights]
    assert sorted(covered) == sorted(id(w) for w in model.trainable_weights)


def test_precision_is_the_models_own(rng, float64):
    model, x = prepared("dense", rng)
    precise = ntk.gram(model, x, precision="float64")
    np.testing.assert_array_equal(ntk.gram(model, x), precise)
    assert np.any(ntk.gram(model, x, precision="float32") != precise)


@pytest.mark.parametrize("name", ["conv", "conv_few_positions", "residual", "shared", "recurrent"])
def test_float32_is_precise_to_rounding(name, rng):
    model, x = prepared(name, rng)
    truth = dense(model, x)
    assert error(ntk.gram(model, x), truth) < 2e-6
    assert error(ntk.gram(model, x, precision="float64"), truth) < 2e-6


@pytest.mark.parametrize("name", ["residual", "conv_few_positions", "recurrent"])
def test_two_sets(name, rng, float64):
    model, x = prepared(name, rng)
    x2 = rng.standard_normal((3, *x.shape[1:]))
    found = ntk.gram(model, x, x2, precision="float64")
    assert error(found, dense(model, x, x2)) < 1e-13
    same = ntk.gram(model, x, x.copy(), precision="float64")
    assert error(same, ntk.gram(model, x, precision="float64")) < 1e-14


@pytest.mark.parametrize("kind", ["Gradients", "StreamedGradients", "Positions"])
@pytest.mark.parametrize("name", ["conv", "conv_few_positions", "conv_same_strides"])
def test_every_contraction_gives_the_same(name, kind, rng, float64, monkeypatch):
    monkeypatch.setattr(contract, "PIECE", 20)
    monkeypatch.setattr(contract, "_SCRATCH", 2000)
    usual = contract.choose

    def choose(shape, outputs, examples, pairing):
        if shape.positions == 1:
            return usual(shape, outputs, examples, pairing)
        return getattr(contract, kind)(shape, outputs)

    monkeypatch.setattr(pieces, "choose", choose)
    model, x = prepared(name, rng)
    assert error(ntk.gram(model, x, precision="float64"), dense(model, x)) < 1e-13


@pytest.mark.parametrize(
    ("share", "two_sets"), [(0.05, False), (0.2, True), (0.5, False), (8.0, True)]
)
def test_small_budgets_only_change_the_order(share, two_sets, rng, float64):
    """From one example at a time to all at once: several blocks, passes and parts."""
    model, _ = prepared("residual", rng)
    x = rng.standard_normal((11, 6, 6, 4))
    x2 = rng.standard_normal((7, 6, 6, 4)) if two_sets else None
    known = survey(model, x[:2], 11)
    stored = 8 * 11 * sum(piece.contraction.stored() for piece in known.pieces)
    budget = (8 * 11 * 11 * L * L + share * stored) / 2**30
    cols = None if x2 is None else 7
    passes = plan.make_plan(known, 11, cols, budget, 8).passes()
    assert (len(list(passes)) > 1) == (share < 8)
    found = ntk.gram(model, x, x2, memory_gib=budget, precision="float64")
    assert error(found, dense(model, x, x2)) < 1e-13


def test_blocks_of_unequal_size(rng, float64, monkeypatch):
    monkeypatch.setattr(plan, "_BLOCK_ROWS", 4 * L)
    model, _ = prepared("conv_few_positions", rng)
    x = rng.standard_normal((9, 4, 4, 6))
    assert error(ntk.gram(model, x, precision="float64"), dense(model, x)) < 1e-13


@pytest.mark.parametrize("share", [0.2, 4.0])
def test_goes_on_after_any_step(share, rng):
    model, _ = prepared("residual", rng)
    x = rng.standard_normal((7, 6, 6, 4)).astype("float32")
    budget = (8 * 49 * L * L + share * 4 * 7 * 3000) / 2**30
    steps = []
    kernel = ntk.GramFunction(model)
    whole = kernel(
        x,
        memory_gib=budget,
        after_step=lambda s: steps.append(ntk.Partial(s.done, s.total, s.gram.copy(), budget)),
    )
    assert [s.done for s in steps] == list(range(1, len(steps) + 1))
    for i, partial in enumerate(steps[:: max(1, len(steps) // 3)]):
        later = []

        def after_step(step, later=later):
            later.append(step.done)

        compute = kernel if i else ntk.GramFunction(model)  # the first as in another process
        found = compute(x, after_step=after_step, partial=partial)
        np.testing.assert_array_equal(found, whole)
        assert later == list(range(partial.done + 1, len(steps) + 1))


def test_leaves_the_model_as_it_was(rng):
    model, x = prepared("residual", rng)
    before = [w.numpy() for w in model.weights]
    state = [(set(vars(layer)), getattr(layer, "activation", None)) for layer in model.layers]
    outputs = model(x)
    ntk.gram(model, x)
    assert state == [
        (set(vars(layer)), getattr(layer, "activation", None)) for layer in model.layers
    ]
    np.testing.assert_array_equal(model(x), outputs)
    for w, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(w, value)


@pytest.mark.parametrize(("arch", "shape"), [("lenet", (28, 28, 1)), ("alexnet", (63, 63, 3))])
def test_architectures(arch, shape, rng, float64):
    model = models.build(arch, 1 if arch == "lenet" else 1 / 64, L, shape)
    x = rng.standard_normal((4, *shape))
    assert error(ntk.gram(model, x, precision="float64"), dense(model, x)) < 1e-13


def test_refuses_what_it_cannot_do(rng):
    model, x = prepared("dense", rng)
    with pytest.raises(ValueError, match="'float32' or 'float64'"):
        ntk.gram(model, x, precision="half")
    with pytest.raises(ValueError, match="at least one example"):
        ntk.gram(model, x[:0])
    for gib in (float("inf"), float("nan"), -1.0):
        with pytest.raises(ValueError, match=f"memory_gib={gib}: must be above 0, and finite"):
            ntk.gram(model, x, memory_gib=gib)
    with pytest.raises(ValueError, match="outputs=None: must be 'full'"):
        ntk.gram(model, x, outputs=None)
    with pytest.raises(ValueError, match=r"memory_gib=1e-09: the Gram of 5 x 5"):
        ntk.gram(model, x, memory_gib=1e-9)
    inputs = keras.Input((2,))
    two = keras.Model(inputs, [layers.Dense(1)(inputs), layers.Dense(1)(inputs)])
    with pytest.raises(ValueError, match="one output"):
        ntk.gram(two, np.zeros((3, 2)))
    with pytest.raises(ValueError, match="is not built"):
        ntk.gram(keras.Sequential([layers.Dense(2)]), x)
    model.trainable = False
    with pytest.raises(ValueError, match="trainable weights"):
        ntk.gram(model, x)
