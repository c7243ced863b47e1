"""Estimates of how long runs take."""

import dataclasses
import io
import re

import pytest
from rich.console import Console

from ntk_tf.catalogue.datasets import DATASETS
from ntk_tf.experiments import EXPERIMENTS, architecture, costs, size
from ntk_tf.experiments.resolving import resolve
from ntk_tf.ntk import contract
from ntk_tf.process import devices, speed
from ntk_tf.settings import Options

#: Two idle cores of an AMD EPYC with AVX-512, on which a product of large matrices reaches 400
#: billion operations a second.
SERVER = speed.Speed(products=110e9, elements=3.36e9, cores=2)
#: Milliseconds of an update that were measured there, with batches of 32 but for AlexNet's of 8.
MEASURED = {
    ("lenet", "mnist", 1, False): 1.36,
    ("lenet", "mnist", 1, True): 1.8,
    ("lenet", "cifar10", 1, False): 2.03,
    ("lenet", "mnist", 4, True): 6.2,
    ("lenet", "mnist", 5, True): 9.6,
    ("lenet", "mnist", 16, False): 53.8,
    ("lenet", "mnist", 16, True): 72.8,
    ("alexnet", "imagenet_snakes", 1, False): 176.0,
    ("alexnet", "imagenet_snakes", 1, True): 258.0,
}


@pytest.mark.parametrize(("arch", "dataset", "width", "linearized"), MEASURED)
def test_updates_take_what_was_measured(arch, dataset, width, linearized):
    chosen = {"arch": arch, "dataset": dataset, "width": width, "linearized": linearized}
    config = resolve(**chosen, batch_size=8 if arch == "alexnet" else 32)
    expected = MEASURED[arch, dataset, width, linearized] / 1e3
    found = costs.update_seconds(config, linearized, SERVER)
    assert expected / 1.3 < found < 1.3 * expected


def seconds(machine=SERVER, **settings):
    return size.run_time(resolve(dataset="mnist", **settings), machine).seconds


def test_time_of_a_run_is_its_updates_and_tests():
    """100 epochs of 1,875 updates of 9.6 ms are half an hour."""
    assert seconds(linearized=True, width=5) == pytest.approx(1800, rel=0.25)
    few = seconds(linearized=True, width=5, max_steps=100)
    # Of an update's products f and J u take 2 of 4.6 parts, and 80,000 pictures are evaluated.
    outputs = 80_000 / 32 * 9.6e-3 * 2 / 4.6
    assert few == pytest.approx(costs.START + 2 * costs.TRACING + 0.96 + outputs, rel=0.15)


def test_a_trajectory_trains_both():
    def growth(**settings):
        return seconds(max_steps=1500, **settings) - seconds(max_steps=500, **settings)

    alone = growth(linearized=False) + growth(linearized=True)
    assert growth(experiment="trajectory") == pytest.approx(alone, rel=0.1)
    epochs = [seconds(experiment="trajectory", max_steps=1875 * n) for n in (1, 2, 3)]
    assert epochs[2] - epochs[1] == pytest.approx(epochs[1] - epochs[0], rel=0.1)


def test_lazy_training():
    """VGG-11 with 2,000 pictures: an epoch in float64 took 200 to 250 s, in float32 25 to 50."""
    settings = {"arch": "vgg11", "train_examples": 2000, "test_examples": 2000, "epochs": 10}
    network = seconds(**settings)
    centered, double = (seconds(**settings, centered=True, alpha=alpha) for alpha in (1, 1e7))
    assert double == pytest.approx(5.5 * centered, rel=0.3)
    # f(w0, x) besides: 4 products in place of 3 in an update, 2 in place of 1 in a test.
    assert centered == pytest.approx((4 + 2) / (3 + 1) * network, rel=0.1)


def test_a_faster_machine_takes_less():
    double = speed.Speed(2 * SERVER.products, 2 * SERVER.elements, SERVER.cores)
    shared = speed.Speed(SERVER.products, SERVER.elements, SERVER.cores / 4)
    for settings in ({"linearized": True, "epochs": 500}, {"experiment": "rank", "examples": 2000}):
        once = seconds(**settings)
        assert seconds(double, **settings) == pytest.approx(once / 2, rel=0.05)
        assert seconds(shared, **settings) > 1.5 * once or "experiment" in settings


@pytest.mark.parametrize("width", [1, 5, 10])
def test_operations_of_a_gram(width):
    """Against those that `ntk.contract` counts for the ways that it chooses."""
    outputs, pictures = 10, 600
    config = resolve(experiment="rank", dataset="mnist", width=width, examples=pictures)
    counted = architecture.counts(config)
    entry = sum(
        contract.choose(contract.Shape(1, p, k, c), outputs, pictures).operations()
        for p, k, c in counted.products
    )
    expected = entry * (pictures * outputs) ** 2 / 2
    machine = speed.Speed(1.0, 1e30, 1)  # operations, and no other time
    found = costs._GRAM * costs.gram_seconds(counted, pictures, outputs, machine)
    propagated = 2 * sum(counted.flops) * pictures * outputs
    assert found - propagated == pytest.approx(expected, rel=0.1)


def test_converged_tells_a_pass():
    time = size.run_time(resolve(experiment="converged", dataset="mnist", max_passes=70), SERVER)
    assert str(time).endswith("s a pass, of at most 70")
    assert size.run_time(resolve(experiment="baseline", dataset="mnist"), SERVER) is None


def test_measured_speed():
    found = speed.measure(0.5)
    assert found.cores == devices.cores() / 2
    assert 1e8 < found.products < 1e13
    assert 1e7 < found.elements < 1e12


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_pictures_that_nobody_has_counted(experiment, tmp_path):
    """TFDS learns how many some datasets have by preparing them."""
    card = dataclasses.replace(DATASETS["digits"], train=0, test=0)
    more = {"pretrain_steps": 5} if experiment in ("rank", "trajectory") else {}
    more |= {"weights": "w.npz", "dataset": "imagenet_snakes"} if experiment == "pretrained" else {}
    config = resolve(lambda _: card, **{"experiment": experiment, "dataset": "digits"} | more)
    console = Console(file=io.StringIO(), width=200)
    size.describe(config, Options(tmp_path), "TFDS", console)
    said = console.file.getvalue()
    assert "without the pictures: how many is known when they are prepared" in said
    assert not re.search("^time", said, re.MULTILINE)


def test_pictures_counted_for_training_before_an_experiment():
    config = resolve(dataset="digits", experiment="rank", examples=9, pretrain_steps=10**4)
    assert size.run_time(config, SERVER).seconds > 5
