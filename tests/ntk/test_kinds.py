"""Every kind of kernel against the einsum of the full one, for one and two sets."""

import pathlib

import keras
import numpy as np
import pytest
from keras import layers
from references import dense_gram, dense_jacobian

from ntk_tf import models, ntk
from ntk_tf.ntk import kinds, plan

L = 4


def lenet():
    return models.build("lenet", 1, L, (16, 16, 1), 0), (16, 16, 1)


def own():
    """Batch normalization, a depthwise convolution with groups of two channels, few positions."""
    inputs = keras.Input((6, 6, 4))
    x = layers.DepthwiseConv2D(3, depth_multiplier=2)(inputs)
    x = layers.Activation("tanh")(layers.BatchNormalization()(x))
    x = layers.Conv2D(12, 3, activation="tanh")(x)
    return keras.Model(inputs, layers.Dense(L)(layers.Flatten()(x))), (6, 6, 4)


def small():
    """Three ways to the kernel: of a depthwise layer, of many positions, and of one."""
    inputs = keras.Input((5, 5, 2))
    x = layers.DepthwiseConv2D(2, activation="tanh")(inputs)
    x = layers.Conv2D(6, 2, activation="tanh")(x)
    return keras.Model(inputs, layers.Dense(L)(layers.Flatten()(x))), (5, 5, 2)


def attention():
    inputs = keras.Input((5, 6))
    x = layers.LayerNormalization()(layers.MultiHeadAttention(2, 3)(inputs, inputs))
    return keras.Model(inputs, layers.Dense(L)(layers.GlobalAveragePooling1D()(x))), (5, 6)


def recurrent():
    inputs = keras.Input((2, 2))
    return keras.Model(inputs, layers.Dense(L)(layers.SimpleRNN(3, unroll=True)(inputs))), (2, 2)


MODELS = {"lenet": lenet, "own": own, "attention": attention, "recurrent": recurrent}
VECTOR = np.array([0.5, -1.0, 2.0, 0.25])
KINDS = {
    "trace": (lambda full: np.einsum("iljl->ij", full) / L, "trace"),
    "diagonal": (lambda full: np.einsum("iljl->ijl", full), "diagonal"),
    "sum": (lambda full: np.einsum("iljm->ij", full) / L, "sum"),
    "number": (lambda full: full[:, 2, :, 2], 2),
    "vector": (lambda full: np.einsum("iljm,l,m->ij", full, VECTOR, VECTOR), VECTOR),
}


@pytest.mark.parametrize("power", [-100, 100])
def test_vectors_of_any_scale(power):
    """Whose squares float32 does not hold."""
    (model, _), x = small(), np.random.default_rng(0).standard_normal((3, 5, 5, 2))
    one, other = (ntk.gram(model, x, outputs=v) for v in (VECTOR, 2.0**power * VECTOR))
    np.testing.assert_array_equal(other, 4.0**power * one)
    with pytest.raises(ValueError, match="a vector must be finite"):
        ntk.gram(model, x, outputs=np.inf * VECTOR)


FIXTURES = pathlib.Path(__file__).parents[1] / "fixtures"


#: The sum and a single output are vectors to the code, as `kinds` has it.
THREE = ("trace", "diagonal", "vector")


def check(name, rng, precision, tolerance, of_one, of_two=()):
    """Some kinds of one set and of two."""
    keras.utils.set_random_seed(1)
    model, shape = MODELS[name]()
    x, x2 = (rng.standard_normal((n, *shape)).astype(keras.config.floatx()) for n in (5, 3))
    for second, chosen in ((None, of_one), (x2, of_two)):
        full = dense_gram(model, x, second) if chosen else None
        for kind in chosen:
            of, outputs = KINDS[kind]
            found, truth = ntk.gram(model, x, second, outputs, precision=precision), of(full)
            assert found.shape == truth.shape, kind
            assert np.abs(found - truth).max() <= tolerance * np.abs(truth).max(), kind


@pytest.mark.parametrize("name", MODELS)
def test_kinds_are_sums_of_the_dense_gram(name, rng, float64):
    check(name, rng, "float64", 1e-12, KINDS, THREE)


@pytest.mark.parametrize("name", MODELS)
def test_kinds_in_float32(name, rng):
    check(name, rng, "float32", 2e-6, THREE)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_trace_is_that_of_neural_tangents(precision, request):
    """Frozen by fixtures/make_neural_tangents_traces.py."""
    if precision == "float64":
        request.getfixturevalue("float64")
    with np.load(FIXTURES / "neural_tangents.npz") as file:
        arrays = {name: array.astype(precision) for name, array in file.items()}
    model = keras.Sequential([keras.Input((8, 8, 2)), layers.Conv2D(4, 3, activation="relu")])
    model.add(layers.MaxPooling2D(2))
    model.add(layers.Flatten())
    model.add(layers.Dense(6, "relu"))
    model.add(layers.Dense(5))
    for i, weight in enumerate(model.trainable_weights):
        weight.assign(arrays[f"weight{i}"])
    tolerance = 1e-6 if precision == "float32" else 1e-12
    for name, second in (("one", None), ("two", arrays["x2"])):
        found = ntk.gram(model, arrays["x"], second, "trace", precision=precision)
        assert np.abs(found - arrays[name]).max() <= tolerance * np.abs(arrays[name]).max()


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_means_over_outputs_are_not_rounded_with_the_model(policy, rng):
    """1 / sqrt(10) is no number in half precision; it made them .1 percent too large or small."""
    keras.utils.set_random_seed(0)
    hidden = layers.Dense(12, "tanh", dtype=policy)
    model = keras.Sequential([keras.Input((6,)), hidden, layers.Dense(10, dtype=policy)])
    x = rng.standard_normal((4, 6)).astype("float32")
    mean = ntk.gram(model, x, outputs="diagonal").mean(axis=-1)
    np.testing.assert_allclose(ntk.gram(model, x, outputs="trace"), mean, rtol=1e-5)
    ones = ntk.gram(model, x, outputs=np.ones(10)) / 10
    np.testing.assert_allclose(ntk.gram(model, x, outputs="sum"), ones, rtol=1e-5)


@pytest.mark.parametrize(
    ("share", "outputs"),
    [(0.1, "diagonal"), (0.5, "trace"), (4.0, "trace"), (4.0, "diagonal")],
)
def test_small_budgets_take_some_outputs_at_a_time(outputs, share, rng, float64):
    model, shape = small()
    x = rng.standard_normal((9, *shape))
    known = ntk.pieces.survey(model, x[:2], 9, outputs=outputs)
    stored = 8 * 9 * sum(piece.contraction.stored() for piece in known.pieces)
    budget = (8 * 81 * known.kind.entries + share * stored) / 2**30
    parts = plan.make_plan(known, 9, None, budget, 8).groups
    assert (len({str(group[0].functions) for group in parts}) > 1) == (share < 4)
    found = ntk.gram(model, x, outputs=outputs, memory_gib=budget, precision="float64")
    truth = KINDS[outputs][0](dense_gram(model, x))
    assert np.abs(found - truth).max() <= 1e-12 * np.abs(truth).max()


@pytest.mark.parametrize("outputs", ["full", "trace", "diagonal"])
def test_blocks_of_several_batches(outputs, rng, float64, monkeypatch):
    model, shape = small()
    x, x2 = rng.standard_normal((5, *shape)), rng.standard_normal((3, *shape))
    truth = ntk.gram(model, x, x2, outputs, precision="float64")
    monkeypatch.setattr(plan, "_FORWARD", 1e-9)
    known = ntk.pieces.survey(model, x[:2], 5, outputs=outputs)
    parts = plan.make_plan(known, 5, 3, 1.0, 8)
    assert (parts.batch, parts.row_blocks) == (1, [slice(0, 5)])
    found = ntk.gram(model, x, x2, outputs, precision="float64", memory_gib=1.0)
    np.testing.assert_allclose(found, truth, rtol=0, atol=1e-13 * np.abs(truth).max())


@pytest.mark.parametrize("outputs", ["full", "trace", "diagonal"])
def test_layers_add_up(outputs, rng, float64):
    model, shape = small()
    x = rng.standard_normal((4, *shape))
    options = {"outputs": outputs, "precision": "float64"}
    whole = ntk.gram(model, x, **options)
    parts = ntk.gram(model, x, per_layer=True, **options)
    with_weights = {layer.path for layer in model.layers if layer.trainable_weights}
    assert set(parts) == with_weights
    np.testing.assert_allclose(sum(parts.values()), whole, rtol=0, atol=1e-13 * whole.max())
    for name, part in parts.items():
        np.testing.assert_allclose(ntk.gram(model, x, layers=name, **options), part, atol=1e-13)


def test_patterns_choose_weights(rng, float64):
    model, shape = own()
    x = rng.standard_normal((4, *shape))
    for layer in model.layers:
        layer.trainable = isinstance(layer, layers.Conv2D)
    rows = dense_jacobian(model, x)
    for layer in model.layers:
        layer.trainable = True
    found = ntk.gram(model, x, layers=["conv2d*"], precision="float64")
    np.testing.assert_allclose(found.reshape(4 * L, -1), rows @ rows.T, rtol=1e-10, atol=1e-12)
    with pytest.raises(ValueError, match="layers=.*'nothing'.*there are .*dense"):
        ntk.gram(model, x, layers="nothing")


def test_refuses_unknown_outputs(rng):
    model, shape = own()
    x = rng.standard_normal((2, *shape))
    for unknown in ("mean", True):
        with pytest.raises(ValueError, match=f"outputs={unknown!r}: must be 'full', 'trace'"):
            ntk.gram(model, x, outputs=unknown)
    for wrong in (L, -1, 1.5):
        with pytest.raises(ValueError, match="outputs are 0 to 3"):
            ntk.gram(model, x, outputs=wrong)
    with pytest.raises(ValueError, match=r"shape \(2,\): a vector must have shape \(4,\)"):
        ntk.gram(model, x, outputs=[1, 2])


def test_one_cotangent_for_one_function():
    assert kinds.kind_of("sum", 10).functions == kinds.kind_of(3, 10).functions == 1
    assert kinds.kind_of("trace", 10).entries == 1
