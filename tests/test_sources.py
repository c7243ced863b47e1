"""What Table 1's sources trained with: schedule, targets, factor, initialization, augmentation."""

import numpy as np
import pytest
import tensorflow as tf

from ntk_tf import cli
from ntk_tf.data import augment, pipeline
from ntk_tf.data.source import Source, Split
from ntk_tf.experiments import network
from ntk_tf.experiments.resolving import from_json, resolve
from ntk_tf.settings import SettingError, flags_of, options
from ntk_tf.training import TorchSGD, inverse_schedule

SMALL = {"dataset": "digits", "width": 1}


def test_defaults_are_the_sources():
    vgg = resolve(arch="vgg11")
    assert (vgg.schedule, vgg.initialization, vgg.gain) == ("inverse", "xavier_normal", 1.0)
    assert (vgg.augment, vgg.batch_size, vgg.weight_decay) == ("padded_crop", 128, 0.0)
    assert resolve(arch="vgg11", dataset="digits").augment == "none"
    cnn = resolve(arch="cnn_gap")
    assert (cnn.targets, cnn.output_factor, cnn.initialization) == ((-0.1, 0.9), 0.05, "pytorch")
    assert resolve(arch="cnn_gap", loss="cross_entropy").targets == (0.0, 1.0)
    lenet = resolve()
    assert (lenet.schedule, lenet.targets, lenet.augment) == ("step", (0.0, 1.0), "none")
    assert (lenet.output_factor, lenet.initialization) == (1.0, "pytorch")


def test_schedule_in_settings_and_optimizer():
    """lr / (1 + e / 3): what is recorded and what the optimizer uses, in 3 updates an epoch."""
    config = resolve(arch="vgg11", learning_rate=0.6)
    rates = [0.6 / (1 + step // 3 / 3) for step in range(12)]
    recorded = [config.learning_rate_in(step // 3) for step in range(12)]
    np.testing.assert_allclose(recorded, rates, rtol=1e-12)
    variable, expected = tf.Variable([0.0]), 0.0
    optimizer = TorchSGD(inverse_schedule(0.6, 3, 3))
    for rate in rates:
        optimizer.apply([tf.constant([1.0])], [variable])
        expected -= rate
        np.testing.assert_allclose(variable.numpy(), [expected], rtol=1e-6)


def test_targets_of_batches():
    split = Split(np.zeros((5, 1, 1, 1), np.uint8), np.array([2, 0, 1, 2, 1]))
    preprocess = pipeline.Preprocessing((0.0,), (1.0,), (1, 1), 0, 1)
    ((_, y),) = pipeline.evaluation_batches(split, preprocess, 3, 5, (-0.1, 0.9))
    expected = [[0.9 if label == c else -0.1 for c in range(3)] for label in split.labels]
    np.testing.assert_allclose(y, expected, rtol=1e-6)
    order = pipeline.epoch_order(5, 0, 0).numpy()
    _, y = next(iter(pipeline.training_batches(split, preprocess, 3, 5, 0, 0, (-0.1, 0.9))))
    np.testing.assert_allclose(y, np.array(expected)[order], rtol=1e-6)


@pytest.mark.parametrize("parametrization", ["standard", "ntk"])
def test_output_factor_multiplies_the_outputs(parametrization, rng):
    x = rng.standard_normal((2, 28, 28, 1)).astype("float32")
    built = [
        network.build(resolve(**SMALL, parametrization=parametrization, output_factor=k))[0](x)
        for k in (1.0, 0.05)
    ]
    np.testing.assert_allclose(0.05 * built[0].numpy(), built[1], rtol=1e-5)


def test_gain_multiplies_the_first_weights():
    one, two = (
        network.build(resolve(**SMALL, initialization="xavier_normal", gain=g))[0].weights
        for g in (1.0, 2.0)
    )
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(2 * a.numpy(), b.numpy(), rtol=1e-6)
    kernel = np.asarray(max(one, key=lambda w: np.prod(w.shape)))
    assert kernel.std() == pytest.approx((2 / sum(kernel.shape)) ** 0.5, rel=0.03)


def test_padded_crop_is_a_window_of_the_bordered_picture(rng):
    images = rng.integers(1, 256, (300, 6, 5, 2), np.uint8)
    found = augment.padded_crop(tf.constant(images), tf.constant([3, 4], tf.int64)).numpy()
    corners, flips = [], 0
    for picture, crop in zip(images, found, strict=True):
        wide = np.pad(picture, ((4, 4), (4, 4), (0, 0)))
        matches = [
            (top, left, flip)
            for top in range(9)
            for left in range(9)
            for flip in (False, True)
            if np.array_equal(wide[top : top + 6, left : left + 5][:, :: -1 if flip else 1], crop)
        ]
        assert len(matches) == 1
        corners.append(matches[0][:2])
        flips += matches[0][2]
    assert {top for top, _ in corners} == {left for _, left in corners} == set(range(9))
    assert abs(flips / 300 - 0.5) < 0.1


def test_padded_crop_resumes_exactly(rng):
    images = rng.integers(0, 256, (7, 8, 8, 1), np.uint8)
    split = Split(images, np.arange(7) % 3)
    preprocess = pipeline.preprocessing(
        Source(split, split, (0.5,), (1.0,)), 8, 0, 1, "padded_crop"
    )
    whole = list(pipeline.training_batches(split, preprocess, 3, 3, 5).take(8))
    rest = list(pipeline.training_batches(split, preprocess, 3, 3, 5, 4).take(4))
    for (a, _), (b, _) in zip(whole[4:], rest, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(whole[0][0], whole[3][0])


def test_settings_survive_the_command_line_and_config_json(tmp_path):
    config = resolve(arch="vgg11", dataset="digits", targets=(-0.1, 0.9), gain=2.0)
    again = cli.parse(["main", *flags_of(config, options(tmp_path))]).config
    assert again == config
    assert from_json(config.to_dict()) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "cross_entropy", "targets": (-0.1, 0.9)}, "--targets=-0.1,0.9: read only with"),
        ({"targets": (0.9, -0.1)}, "--targets=0.9,-0.1: must be two finite numbers"),
        ({"schedule": "inverse", "lr_drop_every": 3}, "--lr_drop_every=3: read only with"),
        (
            {"gain": 2.0},
            "--gain=2.0: read only with a built-in --arch and --initialization=xavier_normal",
        ),
        ({"lr_drop_factor": 3.0}, "--lr_drop_factor=3: read only with --lr_drop_every above 0"),
        ({"experiment": "rank", "examples": 60_001}, "--examples=60001: mnist has 60,000 training"),
        ({"experiment": "trajectory", "examples": 11}, "--examples=11: there are 10 classes, and"),
        (
            {"experiment": "trajectory", "examples": (0, 10_000)},
            "--examples=0,10000: there are 10,000 test pictures, counted from 0",
        ),
        (
            {"experiment": "infinite", "arch": "mlp", "kernel_seeds": 2},
            "--kernel_seeds=2: mlp has no max pooling, its kernel is exact",
        ),
        (
            {"experiment": "infinite", "arch": "mlp", "channels": (8, 16)},
            "--channels=8,16: mlp has no max pooling, its kernel is exact",
        ),
        (
            {"parametrization": "ntk", "initialization": "xavier_normal"},
            "--initialization=xavier_normal: read only with",
        ),
        ({"arch_args": "gain=2"}, "--arch_args=gain=2: gain has a flag of its own"),
        ({"experiment": "rank", "targets": (-0.1, 0.9)}, "--targets=-0.1,0.9: read only with"),
    ],
)
def test_wrong_combinations_are_refused(settings, message):
    with pytest.raises(SettingError) as error:
        resolve(**settings)
    assert str(error.value).startswith(message)
