"""Runs of settings that are no defaults, computed anew from those settings with NumPy.

What they share with the package are the networks' initial weights and their dense Jacobians. So a
setting that is not handed on, or in another unit, shows.
"""

import json

import numpy as np
import pytest
from helpers import carry_out, final_arrays, metrics
from references import assign_flat, dense_jacobian, flat
from sklearn.datasets import load_digits

from ntk_tf import models
from ntk_tf.experiments.inputs import Inputs
from ntk_tf.experiments.resolving import resolve
from ntk_tf.settings import Options

TRAIN, TEST, CLASSES, BATCH, SEED = 7, 5, 3, 3, 4
RATE, MOMENTUM, DECAY, TARGETS = 0.2, 0.6, 0.03, (-0.5, 1.5)
NETWORK = {"arch": "mlp", "arch_args": "depth=2,units=4,activation=erf"}
SETTINGS = {
    **NETWORK,
    **{"dataset": "pictures.npz", "normalization": "half", "train_examples": TRAIN},
    **{"seed": SEED, "learning_rate": RATE, "momentum": MOMENTUM, "weight_decay": DECAY},
    **{"targets": TARGETS, "batch_size": BATCH, "epochs": 4, "precision": "float64"},
}


@pytest.fixture
def pictures(tmp_path, monkeypatch, rng):
    """Pictures as inputs and labels, of training and test; the first pixel tells them apart."""
    monkeypatch.chdir(tmp_path)
    arrays = {}
    for split, count in (("train", TRAIN + 3), ("test", TEST)):
        x = rng.integers(0, 256, (count, 3, 3, 1), dtype=np.uint8)
        x[:, 0, 0, 0] = 20 * np.arange(count)
        arrays |= {f"x_{split}": x, f"y_{split}": np.arange(count) % CLASSES}
    np.savez("pictures.npz", **arrays)
    found = {}
    for split, count in (("train", TRAIN), ("test", TEST)):
        inputs = (arrays[f"x_{split}"][:count] / 255 - 0.5) / 0.5
        found[split] = inputs, arrays[f"y_{split}"][:count]
    return found


def wanted(labels, targets=TARGETS):
    return np.where(np.arange(CLASSES) == labels[:, None], targets[1], targets[0])


def built(seed=SEED):
    network = models.build("mlp", 1, CLASSES, (3, 3, 1), seed, depth=2, units=4, activation="erf")
    return network, flat(network.trainable_weights).astype(float)


class Function:
    """f or T_f of a vector of parameters, from dense Jacobians in float64."""

    def __init__(self, linearized):
        self.network, self.start = built()
        self.linearized = linearized

    def __call__(self, x, w):
        """Outputs `[n L]` and their Jacobian; w is u of a linearization."""
        at = self.start if self.linearized else w
        assign_flat(self.network.trainable_weights, at)
        outputs = np.ravel(self.network(x)).astype(float)
        jacobian = dense_jacobian(self.network, x)
        return (outputs + jacobian @ w if self.linearized else outputs), jacobian


def rates(epoch, schedule):
    if schedule == "inverse":
        return RATE / (1 + epoch / 3)
    return RATE / 4 ** (epoch // 2)


def trained(order, pictures, linearized, schedule="step", decay_toward="start"):
    """Parameters before each update and at the end, losses and learning rates by epoch."""
    x, labels = pictures["train"]
    function = Function(linearized)
    w = np.zeros_like(function.start) if linearized else function.start
    velocity, path, losses, used = np.zeros_like(w), [w], [], []
    for number, batch in enumerate(order):
        epoch = number // -(-TRAIN // BATCH)
        outputs, jacobian = function(x[batch], w)
        residual = outputs - wanted(labels[batch]).ravel()
        decaying = function.start + w if linearized and decay_toward == "zero" else w
        gradient = jacobian.T @ residual * 2 / len(residual) + DECAY * decaying
        velocity = MOMENTUM * velocity + gradient
        w = w - rates(epoch, schedule) * velocity
        path.append(w)
        losses.append((len(batch), np.mean(residual**2)))
        used.append(rates(epoch, schedule))
    return function, path, losses, used


def order_of(config):
    """The training pictures of each batch, told by their first pixel."""
    inputs = Inputs(config, Options("order"))
    found = []
    for x, y in inputs.training_batches(0).take(12):
        numbers = (np.asarray(x)[:, 0, 0, 0] * 0.5 + 0.5) * 255 / 20
        found.append(np.rint(numbers).astype(int))
        np.testing.assert_allclose(numbers, found[-1], atol=1e-4)
        np.testing.assert_allclose(y, wanted(found[-1] % CLASSES))
    return found


def test_pictures_are_a_random_subset_and_crops_of_it():
    settings = {"dataset": "digits", "image_size": 8, "normalization": "unit", "arch": "mlp"}
    config = resolve(
        **settings, train_examples=50, subset_seed=3, augment="padded_crop", batch_size=20
    )
    inputs, order = (
        Inputs(config, Options("unused")),
        np.random.RandomState(3).permutation(1437)[:50],
    )
    digits = load_digits()
    np.testing.assert_array_equal(inputs.source.train.labels, digits.target[:-360][order])
    pictures = np.pad(digits.images[:-360][order] / 16, [(0, 0), (4, 4), (4, 4)])
    windows = np.lib.stride_tricks.sliding_window_view(pictures, (8, 8), axis=(1, 2))
    windows = np.stack([windows, windows[..., ::-1]]).reshape(2, 50, 81, 64)
    places = []
    for x, y in inputs.training_batches(0).take(3):
        for picture, wanted in zip(np.reshape(x, (-1, 64)), np.argmax(y, axis=1), strict=True):
            near = np.abs(windows - picture).max(axis=-1) < 0.002  # half a grey level
            near &= (inputs.source.train.labels == wanted)[:, None]
            assert near.any()
            places.append(np.argwhere(near)[0])
    flips, numbers, shifts = np.transpose(places)
    assert sorted(numbers) == list(range(50))
    assert 10 < sum(flips) < 40
    assert len(set(shifts)) > 25


@pytest.mark.parametrize("schedule", ["step", "inverse"])
@pytest.mark.parametrize("linearized", [False, True])
def test_training(pictures, tmp_path, linearized, schedule):
    drops = {"lr_drop_every": 2, "lr_drop_factor": 4} if schedule == "step" else {}
    toward = {"decay_toward": "zero"} if linearized and schedule == "step" else {}
    config = resolve(**SETTINGS, schedule=schedule, linearized=linearized, **drops, **toward)
    result = carry_out(config, Options(tmp_path / "run"))
    order = order_of(config)
    assert [len(batch) for batch in order[:3]] == [3, 3, 1]
    assert sorted(np.concatenate(order[:3])) == list(range(TRAIN))
    other = order_of(resolve(**(SETTINGS | {"seed": 0})))
    assert not all(map(np.array_equal, order, other))
    function, path, losses, used = trained(
        order, pictures, linearized, schedule, toward.get("decay_toward")
    )
    arrays = [a for _, a in sorted(final_arrays(tmp_path / "run").items())]
    trained_to = flat(arrays[: len(function.network.trainable_weights)])
    np.testing.assert_allclose(trained_to, path[-1], rtol=0, atol=1e-6)
    rows = metrics(tmp_path / "run")
    x, labels = pictures["test"]
    for epoch, row in enumerate(rows):
        assert float(row["learning_rate"]) == pytest.approx(used[3 * epoch], rel=1e-6)
        sizes, values = zip(*losses[3 * epoch : 3 * epoch + 3], strict=True)
        mean = np.average(values, weights=sizes)
        assert float(row["running_train_loss"]) == pytest.approx(mean, rel=1e-5)
        outputs = function(x, path[3 * epoch + 3])[0].reshape(TEST, CLASSES)
        assert float(row["test_loss"]) == pytest.approx(
            np.mean((outputs - wanted(labels)) ** 2), rel=1e-5
        )
        assert float(row["test_accuracy"]) == np.mean(outputs.argmax(1) == labels)
    outputs = function(pictures["train"][0], path[-1])[0].reshape(TRAIN, CLASSES)
    hits = outputs.argmax(1) == pictures["train"][1]
    assert result["train_accuracy"] == pytest.approx(np.mean(hits))
    assert result["steps"] == 12


def test_epochs_bound_a_run_of_more_updates(pictures, tmp_path):
    config = resolve(**(SETTINGS | {"max_steps": 100, "epochs": 1}))
    assert carry_out(config, Options(tmp_path / "run"))["steps"] == 3


def test_a_run_in_float64_without_biases(pictures, tmp_path):
    config = resolve(**SETTINGS, train_biases=False)
    assert carry_out(config, Options(tmp_path / "run"))["parameters"] == 4 * 9 + CLASSES * 4
    _, start = built()
    kept = sorted(final_arrays(tmp_path / "run").items())
    biases = np.concatenate([np.ravel(a) for name, a in kept if "bias" in name and a.ndim == 1])
    assert np.isin(np.float32(biases), np.float32(start)).all()


def test_trajectory(pictures, tmp_path):
    settings = {k: v for k, v in SETTINGS.items() if k not in ("epochs", "precision")}
    config = resolve(**(settings | {"experiment": "trajectory", "max_steps": 6}))
    carry_out(config, Options(tmp_path / "run"))
    order = order_of(config)[:6]
    (f, path, *_), (linear, line, *_) = (trained(order, pictures, one) for one in (False, True))
    x, _ = pictures["test"]
    with np.load(tmp_path / "run/trajectories.npz") as found:
        for side, function, way in (("standard", f, path), ("linearized", linear, line)):
            truth = [function(x[found["index"]], w)[0].reshape(-1, CLASSES) for w in way]
            np.testing.assert_allclose(found[side], truth, atol=1e-5)
    rows = json.loads((tmp_path / "run/trajectory.json").read_text())["distances"]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    for row in rows:
        now, start = f(x, path[row["step"]])[0], f(x, path[0])[0]
        distance = np.linalg.norm(now - linear(x, line[row["step"]])[0])
        movement = np.linalg.norm(now - start)
        found = [row[name] for name in ("distance", "movement", "relative_distance")]
        np.testing.assert_allclose(found, [distance, movement, distance / movement], rtol=1e-3)


@pytest.mark.parametrize(
    ("toward", "centered"), [("initialization", False), ("zero", False), ("initialization", True)]
)
def test_converged(pictures, tmp_path, toward, centered):
    """The minimum of mean |f0 + J u - y|^2 + decay / 2 |u|^2, or |w0 + u|^2, by its equations."""
    config = resolve(
        **NETWORK,
        **{"experiment": "converged", "dataset": "pictures.npz", "normalization": "half"},
        **{"train_examples": TRAIN, "seed": SEED, "weight_decay": DECAY, "targets": TARGETS},
        **{"decay_toward": toward, "centered": centered, "tolerance": 1e-6, "max_passes": 200},
    )
    result = carry_out(config, Options(tmp_path / "run"))
    function, (x, labels) = Function(linearized=True), pictures["train"]
    f0, jacobian = function(x, np.zeros_like(function.start))
    f0, shift = f0 * (not centered), function.start * (toward == "zero")
    y = wanted(labels).ravel()
    hessian = 2 / len(y) * jacobian.T @ jacobian + DECAY * np.eye(len(shift))
    u = np.linalg.solve(hessian, 2 / len(y) * jacobian.T @ (y - f0) - DECAY * shift)
    outputs = f0 + jacobian @ u
    loss, norm = np.mean((outputs - y) ** 2), np.sum((u + shift) ** 2)
    assert result["train_loss"] == pytest.approx(loss, rel=1e-4)
    assert result["objective"] == pytest.approx(loss + DECAY / 2 * norm, rel=1e-4)
    assert result["distance"] == pytest.approx(norm**0.5, rel=1e-3)
    assert result["train_accuracy"] == np.mean(outputs.reshape(TRAIN, -1).argmax(1) == labels)
    x, labels = pictures["test"]
    tested, _ = function(x, u)
    tested = tested - centered * function(x, 0 * u)[0]
    assert result["test_loss"] == pytest.approx(
        np.mean((tested - wanted(labels).ravel()) ** 2), rel=1e-3
    )
    assert result["test_accuracy"] == np.mean(tested.reshape(TEST, -1).argmax(1) == labels)
    assert result["residual"] <= 1e-6
