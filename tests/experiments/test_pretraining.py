"""Training before an experiment: the same as a run of its own whose weights are taken."""

import numpy as np
import pytest
from helpers import Interrupted, carry_out, final_arrays, metrics

from ntk_tf.experiments import network, pretraining
from ntk_tf.experiments.inputs import Inputs
from ntk_tf.experiments.resolving import resolve
from ntk_tf.settings import Options, SettingError
from ntk_tf.training.callbacks import Save

SMALL = {"arch": "mlp", "arch_args": "depth=2", "dataset": "digits", "image_size": 8, "seed": 3}
SGD = {"batch_size": 16, "learning_rate": 0.05, "train_examples": 100, "test_examples": 30}
EXPERIMENTS = {
    "train": {"linearized": True, "epochs": 2, **SGD},
    "trajectory": {"max_steps": 5, "distance_every": 1, **SGD},
    "rank": {"examples": 12},
    "converged": {"train_examples": 100, "max_passes": 5, "preconditioner_examples": 0},
}
STEPS = 9


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_is_a_run_of_its_own(experiment, tmp_path):
    settings = {"experiment": experiment, **SMALL, **EXPERIMENTS[experiment]}
    config = resolve(**settings, pretrain_steps=STEPS)
    result = carry_out(config, Options(tmp_path / "both"))
    shared = {name: settings[name] for name in SGD if name in settings}
    network = resolve(**SMALL, **shared, max_steps=STEPS)
    if experiment in ("train", "trajectory"):  # whose weight decay is the run's own
        assert pretraining.settings(config, 100).weight_decay == config.weight_decay
    alone = carry_out(network, Options(tmp_path / "alone"))
    trained = carry_out(
        resolve(**settings, from_run=str(tmp_path / "alone")), Options(tmp_path / "after")
    )
    nested = final_arrays(tmp_path / "both/pretraining")
    for name, array in final_arrays(tmp_path / "alone").items():
        np.testing.assert_array_equal(nested[name], array)
    assert alone["steps"] == STEPS
    assert result["from_step"] == trained["from_step"] == STEPS
    measured = ("seconds", "peak_memory_gib")
    numbers = {k: v for k, v in trained.items() if isinstance(v, float) and k not in measured}
    assert numbers
    assert {name: result[name] for name in numbers} == numbers
    if experiment == "rank":  # the quickest
        start = carry_out(resolve(**settings), Options(tmp_path / "start"))
        assert {name: start[name] for name in numbers} != numbers


def test_float64_takes_float64_weights(tmp_path):
    """Not rounded on the way, of a run before and of a training before; nor are targets."""
    settings = SMALL | SGD | {"precision": "float64", "targets": (-0.1, 0.9)}
    carry_out(resolve(**settings, max_steps=3), Options(tmp_path / "first"))
    ends = [w for k, w in final_arrays(tmp_path / "first").items() if k[:4] in ("0000", "0001")]
    assert all(np.any(w != np.float32(w)) for w in ends)
    model, step = network.build(resolve(**settings, from_run=str(tmp_path / "first")))
    assert step == 3
    for found, expected in zip(model.trainable_weights, ends, strict=False):
        np.testing.assert_array_equal(found.numpy(), expected)
    config = resolve(**settings)
    inputs = Inputs(config, Options(tmp_path / "inputs"))
    targets = next(iter(inputs.training_batches(0)))[1].numpy()
    assert targets.dtype == np.float64
    np.testing.assert_array_equal(np.unique(targets), [-0.1, 0.9])


def test_goes_on_after_an_interruption(tmp_path, monkeypatch):
    config = resolve(**SMALL, **EXPERIMENTS["train"], pretrain_steps=STEPS)
    carry_out(config, Options(tmp_path / "whole"))

    def crash(self, *_):
        monkeypatch.undo()
        raise Interrupted

    monkeypatch.setattr(Save, "on_train_begin", crash)
    with pytest.raises(Interrupted):
        carry_out(config, Options(tmp_path / "cut"))
    assert not (tmp_path / "cut/metrics.csv").exists()
    carry_out(config, Options(tmp_path / "cut"))
    assert metrics(tmp_path / "cut") == metrics(tmp_path / "whole")


def test_is_of_a_linearization_from_its_start():
    with pytest.raises(SettingError, match="--pretrain_steps=5: read only with a linearization"):
        resolve(**SMALL, pretrain_steps=5)
    with pytest.raises(SettingError, match="--pretrain_steps=5: .* and without --from_run"):
        resolve(**SMALL, linearized=True, pretrain_steps=5, from_run="runs/x")


def test_a_training_that_diverges_is_refused(tmp_path):
    settings = SMALL | EXPERIMENTS["train"] | {"learning_rate": 1e6}
    with pytest.raises(SettingError, match=r"--pretrain_steps=9: .* diverges at update \d+; al"):
        carry_out(resolve(**settings, pretrain_steps=STEPS), Options(tmp_path / "run"))


@pytest.mark.parametrize(
    ("experiment", "settings"),
    [
        ("converged", {"weight_decay": 0.3, "targets": (-0.1, 0.9)}),
        ("rank", {"precision": "float64"}),
    ],
)
def test_descent_takes_nothing_of_experiments_without(experiment, settings):
    config = resolve(**SMALL, **settings, experiment=experiment, pretrain_steps=5)
    found = pretraining.settings(config, 100)
    assert (found.seed, found.arch_args, found.max_steps) == (3, "depth=2", 5)
    assert (found.weight_decay, found.targets, found.precision) == (5e-5, (0, 1), "float32")


def test_long_training_has_epochs_enough():
    config = resolve(**SMALL, **EXPERIMENTS["rank"], experiment="rank", pretrain_steps=10**6)
    found = pretraining.settings(config, 1437)
    assert found.epochs * -(-1437 // found.batch_size) >= found.max_steps == 10**6
