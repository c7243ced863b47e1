"""TorchSGD against a NumPy loop written from PyTorch's documentation."""

import keras
import numpy as np
import pytest

from ntk_tf.training import TorchSGD, inverse_schedule, step_schedule


def numpy_sgd(p, gradients, rates, momentum, decay, offset=0.0):
    """torch.optim.SGD's pseudo-code, in float64; decay acts on p + offset."""
    buffer = None
    for g, rate in zip(gradients, rates, strict=True):
        g = g + decay * (p + offset)
        if momentum:
            buffer = g if buffer is None else momentum * buffer + g
            g = buffer
        p = p - rate * g
    return p


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize(
    ("rate", "rates"),
    [
        (0.1, [0.1] * 9),
        (step_schedule(np.float64(0.1), 4, np.float64(3)), [0.1 / 3 ** (i // 4) for i in range(9)]),
        (
            inverse_schedule(np.float64(0.1), 2, np.float64(3)),
            [0.1 / (1 + i // 2 / 3) for i in range(9)],
        ),
    ],
    ids=["constant", "step", "inverse"],
)
def test_learning_rates_are_no_float32_numbers_in_float64(momentum, rate, rates, rng):
    start, gradients = rng.standard_normal(5), rng.standard_normal((9, 5))
    variable = keras.Variable(start, dtype="float64")
    optimizer = TorchSGD(rate, momentum, 0.05)
    for g in gradients:
        optimizer.apply([g], [variable])
    expected = numpy_sgd(start, gradients, rates, momentum, 0.05)
    np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-14, atol=1e-14)


def test_schedules_of_whole_numbers():
    """Keras computes in the type of the first: 1 became 0 at the first drop, or never less."""
    step, inverse = step_schedule(1, 10, 10), inverse_schedule(1, 10, 3)
    np.testing.assert_allclose([step(i) for i in (0, 9, 10, 25)], [1, 1, 0.1, 0.01], rtol=1e-6)
    expected = [1, 0.75, 0.6, 0.5]
    np.testing.assert_allclose([inverse(10 * i) for i in range(4)], expected, rtol=1e-6)
    assert TorchSGD(1).learning_rate.numpy() == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: step_schedule(np.nan, 1, 2.0), "learning_rate=nan: must be a finite number"),
        (lambda: step_schedule(0.1, -1, 2.0), "drop_steps=-1: must be a finite number, at least 0"),
        (lambda: step_schedule(0.1, 1, 0), "drop_factor=0: must be a finite number, above 0"),
        (lambda: inverse_schedule(0.1, 0, 3), "steps_per_epoch=0: must be .* at least 1"),
        (lambda: inverse_schedule(0.1, 1, -3), "epochs=-3: must be a finite number, above 0"),
        (lambda: TorchSGD(np.nan), "learning_rate=nan"),
        (lambda: TorchSGD(-0.1), "learning_rate=-0.1: must be a finite number, at least 0"),
        (lambda: TorchSGD(0.1, weight_decay=np.inf), "weight_decay=inf"),
    ],
)
def test_numbers_that_cannot_be(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_learning_rate_is_saved_as_it_was_given():
    config = TorchSGD(0.1).get_config()
    assert config["learning_rate"] == 0.1
    optimizer = TorchSGD.from_config(config)
    optimizer.learning_rate = 0.3
    assert optimizer.get_config()["learning_rate"] == np.float32(0.3)


def test_decay_over_a_tiny_momentum_does_not_overflow(rng):
    start, gradients = rng.standard_normal(5), rng.standard_normal((3, 5))
    variable = keras.Variable(start, dtype="float32")
    optimizer = TorchSGD(0.1, 1e-40, 0.05)
    for g in gradients:
        optimizer.apply([np.float32(g)], [variable])
    expected = numpy_sgd(start, gradients, [0.1] * 3, 1e-40, 0.05)
    np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-6, atol=1e-6)


def test_a_learning_rate_that_was_changed_counts(rng):
    start, gradients = rng.standard_normal(5), rng.standard_normal((2, 5))
    variable = keras.Variable(start, dtype="float64")
    optimizer = TorchSGD(0.1)
    for rate, g in zip((0.1, 0.25), gradients, strict=True):
        optimizer.learning_rate = rate
        optimizer.apply([g], [variable])
    np.testing.assert_allclose(variable.numpy(), numpy_sgd(start, gradients, (0.1, 0.25), 0, 0))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("decay", [0.0, 0.05])
@pytest.mark.parametrize("with_offsets", [False, True])
def test_ten_steps_with_a_drop(momentum, decay, with_offsets, rng):
    start = [rng.standard_normal((3, 4)), rng.standard_normal(5)]
    variables = [keras.Variable(value, dtype="float32") for value in start]
    gradients = [[rng.standard_normal(v.shape) for v in variables] for _ in range(10)]
    offsets = [rng.standard_normal(v.shape) if with_offsets else 0.0 for v in variables]
    held = [keras.Variable(value, dtype="float32") for value in offsets] if with_offsets else None
    optimizer = TorchSGD(step_schedule(0.1, 4, 10.0), momentum, decay, held)
    for step in gradients:
        optimizer.apply([np.float32(g) for g in step], variables)
    rates = [0.1] * 4 + [0.01] * 4 + [0.001] * 2
    for i, variable in enumerate(variables):
        mine = [step[i] for step in gradients]
        expected = numpy_sgd(start[i], mine, rates, momentum, decay, offsets[i])
        np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-6, atol=1e-6)


def test_differs_from_keras_sgd_where_it_should(rng):
    """The traps: Keras' decay is decoupled and its velocity carries the old learning rate."""
    start, g = rng.standard_normal(4), rng.standard_normal((6, 4))
    ours, theirs = (keras.Variable(start, dtype="float32") for _ in range(2))
    mine = TorchSGD(step_schedule(0.1, 3, 10.0), 0.9, 0.05)
    keras_sgd = keras.optimizers.SGD(step_schedule(0.1, 3, 10.0), 0.9, weight_decay=0.05)
    for row in g:
        mine.apply([np.float32(row)], [ours])
        keras_sgd.apply([np.float32(row)], [theirs])
    assert np.abs(ours.numpy() - theirs.numpy()).max() > 1e-2


def test_configuration_round_trip():
    optimizer = TorchSGD(step_schedule(0.1, 4, 10.0), 0.9, 0.05)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    bias, kernel = (keras.Variable([1.0, 1.0], name=name) for name in ("u_bias", "u_kernel"))
    again.apply([np.zeros(2, "float32")] * 2, [bias, kernel])
    assert bias.numpy()[0] == 1 > kernel.numpy()[0]
    assert isinstance(again, TorchSGD)
    assert (again.momentum, again.coupled_weight_decay) == (0.9, 0.05)
    assert float(again.learning_rate) == pytest.approx(0.1)


def test_excluded_variables_are_not_lost_in_saving():
    optimizer = TorchSGD(0.1, weight_decay=0.05)
    optimizer.exclude_from_weight_decay([keras.Variable(np.ones(2))])
    with pytest.raises(ValueError, match="var_list"):
        keras.optimizers.serialize(optimizer)


def test_float64_is_not_rounded_to_float32(rng):
    start, gradients = rng.standard_normal(4), rng.standard_normal((5, 4))
    variable = keras.Variable(start, dtype="float64")
    optimizer = TorchSGD(0.125, 0.9, 0.05)  # a learning rate is a float32 number in Keras
    for g in gradients:
        optimizer.apply([g], [variable])
    expected = numpy_sgd(start, gradients, [0.125] * 5, 0.9, 0.05)
    np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-14, atol=1e-14)


def test_offsets_are_one_a_variable_and_not_lost_in_saving():
    optimizer = TorchSGD(0.1, decay_offsets=[np.ones(2)])
    with pytest.raises(ValueError, match="1 for 2 variables"):
        optimizer.build([keras.Variable(np.zeros(2)) for _ in range(2)])
    with pytest.raises(ValueError, match="decay_offsets"):
        keras.optimizers.serialize(optimizer)


@pytest.mark.parametrize("bad", [{"momentum": 1.0}, {"momentum": -0.1}, {"weight_decay": -1e-9}])
def test_refusals(bad):
    with pytest.raises(ValueError, match=str(next(iter(bad.values())))):
        TorchSGD(0.1, **bad)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("with_offsets", [False, True])
@pytest.mark.parametrize("by", ["var_list", "var_names"])
def test_exclusions_from_decay(by, with_offsets, momentum, rng):
    start = [rng.standard_normal((3, 4)), rng.standard_normal(4)]
    names = ["u_dense_kernel", "u_dense_bias"]
    variables = [
        keras.Variable(value, dtype="float32", name=name)
        for value, name in zip(start, names, strict=True)
    ]
    offsets = [rng.standard_normal(v.shape).astype("float32") for v in variables]
    optimizer = TorchSGD(0.1, momentum, 0.05, offsets if with_offsets else None)
    optimizer.exclude_from_weight_decay(
        **{by: variables[1:] if by == "var_list" else ["bias", "gamma"]}
    )
    gradients = [[rng.standard_normal(v.shape) for v in variables] for _ in range(4)]
    for step in gradients:
        optimizer.apply([np.float32(g) for g in step], variables)
    for i, decay in enumerate((0.05, 0.0)):
        offset = offsets[i] if with_offsets else 0.0
        mine = [step[i] for step in gradients]
        expected = numpy_sgd(start[i], mine, [0.1] * 4, momentum, decay, offset)
        np.testing.assert_allclose(variables[i].numpy(), expected, rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match="before the optimizer is built"):
        optimizer.exclude_from_weight_decay(var_names=["kernel"])
