"""The main job, end to end on the embedded data, as its user starts it."""

import json
import os
import shutil
import subprocess

import commands
import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import (
    LENET,
    QUICK,
    carry_out,
    final_arrays,
    in_process,
    interrupted,
    main,
    metrics,
    result,
    start_elsewhere,
)
from references import dense_jacobian, flat
from rich.console import Console

from ntk_tf import models, runs
from ntk_tf.experiments import EXPERIMENTS, network, size
from ntk_tf.experiments.resolving import resolve
from ntk_tf.experiments.train import run as train
from ntk_tf.runs import checkpoint
from ntk_tf.settings import Options, SettingError
from ntk_tf.training import loop
from ntk_tf.training.callbacks import Save
from ntk_tf.training.metrics import has_finite_outputs

FLAGS = [f"--{name}={value}" for name, value in QUICK.items()]


@pytest.fixture(scope="module", params=[False, True], ids=["standard", "linearized"])
def finished(request, tmp_path_factory):
    """The run directory of an undisturbed run, and its settings."""
    workdir = tmp_path_factory.mktemp("run") / "finished"
    in_process(workdir, linearized=request.param)
    return workdir, request.param


def test_run_directory(finished):
    workdir, linearized = finished
    settings = runs.read_json(workdir / "config.json")
    assert settings["linearized"] is linearized
    assert settings["learning_rate"] == 0.1
    rows = metrics(workdir)
    assert list(rows[0]) == [c for c in runs.METRICS_COLUMNS if c != "seconds"]
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert [row["step"] for row in rows] == ["7", "14", "21", "28"]
    content = result(workdir)
    assert content["status"] == "completed"
    assert (content["epochs"], content["steps"], content["seed"]) == (4, 28, 0)
    assert content["parameters"] == 7_510
    assert 0 <= content["train_accuracy"] <= 1
    assert content["test_accuracy"] == float(rows[-1]["test_accuracy"])
    assert content["versions"]["tensorflow"] == tf.__version__


@pytest.mark.parametrize("experiment", ["train", "trajectory"])
@pytest.mark.parametrize("linearized", [False, True])
def test_it_is_ready_for_gpus(experiment, linearized, monkeypatch):
    """Keras would choose XLA there; and it wants no variables of int32, which stay on the CPU."""
    monkeypatch.setattr(keras.Model, "_resolve_auto_jit_compile", lambda model: True)
    settings = {"linearized": linearized} if experiment == "train" else {}
    settings = {k: v for k, v in QUICK.items() if k != "epochs"} | settings
    model = network.compiled(resolve(experiment=experiment, **settings), 7, linearized)
    assert model.jit_compile is False
    model.train_on_batch(np.zeros((2, 8, 8, 1), "float32"), np.zeros((2, 10), "float32"))
    variables = [*model.variables, *model.optimizer.variables]
    variables += [v for metric in model.metrics for v in metric.variables]
    assert {v.dtype for v in variables} <= {"float32", "int64"}


def test_performance_is_recorded(tmp_path):
    console = Console(quiet=True)
    settings = resolve(dataset="digits", train_examples=200, test_examples=50, epochs=6)
    options = Options(tmp_path / "run", profile=3)
    found = carry_out(settings, options, console)["performance"]
    pictures = 200 / 7  # an update, since the last batch is smaller
    rate = pictures * found["steps_per_second"]
    assert found["examples_per_second"] == pytest.approx(rate, rel=1e-3)
    flops = 3 * 563_280 - 2 * 86_400  # see tests/models/test_size.py
    assert found["gflops_per_second"] == pytest.approx(
        found["examples_per_second"] * flops / 1e9, rel=1e-2
    )
    assert 0.1 < found["peak_memory_gib"] < 24
    batches = {"train_examples": 50, "test_examples": 20, "batch_size": 40, "epochs": 60}
    found = in_process(tmp_path / "uneven", **batches)["performance"]  # 40 and 10 pictures
    assert found["examples_per_second"] == pytest.approx(25 * found["steps_per_second"], rel=1e-3)
    (profile,) = (tmp_path / "run/tensorboard/plugins/profile").rglob("*.xplane.pb")
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace.FromString(profile.read_bytes())
    events = [
        plane.event_metadata[event.metadata_id].name
        for plane in space.planes
        for line in plane.lines
        for event in line.events
    ]
    assert sum(name.endswith(":ResourceApplyMomentum") for name in events) == 3 * 10


@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_precision_decides_about_tf32(precision, monkeypatch):
    monkeypatch.setattr(train, "run", lambda *_: {})
    allowed = tf.config.experimental.tensor_float_32_execution_enabled
    try:
        carry_out(resolve(precision=precision), None, None)
        assert allowed() == (precision == "tf32")
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(False)


def test_tensorboard_holds_the_rows(finished):
    workdir, _ = finished
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(workdir / "tensorboard"))
    events.Reload()
    tensors = events.Tensors("test_accuracy")
    assert [event.step for event in tensors] == [7, 14, 21, 28]
    values = [tf.make_ndarray(event.tensor_proto).item() for event in tensors]
    assert values == pytest.approx([float(row["test_accuracy"]) for row in metrics(workdir)])


def test_final_accuracy_is_a_full_pass_with_the_final_weights(finished):
    """Recomputed from the checkpoint by plain NumPy around the model's outputs."""
    workdir, linearized = finished
    from ntk_tf import data
    from ntk_tf.data import pipeline

    settings = resolve(**QUICK, linearized=linearized)
    model = network.compiled(settings, 7, linearized)
    saved = final_arrays(workdir)
    for i, weight in enumerate(model.trainable_weights):
        weight.assign(saved[f"{i:04d}/{weight.path}"])
    source = data.load("digits", train_examples=200, test_examples=50)
    preprocess = pipeline.preprocessing(source, 8, 0, 1)
    for name in ("train", "test"):
        split = getattr(source, name)
        outputs = model(preprocess(split.images)).numpy()
        accuracy = np.mean(outputs.argmax(1) == split.labels)
        loss = np.mean((outputs - np.eye(10)[split.labels]) ** 2)
        assert result(workdir)[f"{name}_accuracy"] == pytest.approx(accuracy)
        assert result(workdir)[f"{name}_loss"] == pytest.approx(loss, rel=1e-5)


def test_same_seed_same_numbers(finished, tmp_path):
    workdir, linearized = finished
    in_process(tmp_path / "again", linearized=linearized)
    assert metrics(tmp_path / "again") == metrics(workdir)
    assert result(tmp_path / "again") == result(workdir)
    in_process(tmp_path / "other", linearized=linearized, seed=1)
    assert metrics(tmp_path / "other") != metrics(workdir)


def test_resumed_run_equals_undisturbed_run(finished, tmp_path, monkeypatch):
    """Crashes one after the other, at an epoch's end and in its middle, lose nothing."""
    workdir, linearized = finished
    for stop in (1, 13, 19):
        interrupted(tmp_path / "run", stop, monkeypatch, linearized=linearized)
    in_process(tmp_path / "run", linearized=linearized)
    assert metrics(tmp_path / "run") == metrics(workdir)
    assert result(tmp_path / "run") == result(workdir)
    mine, theirs = final_arrays(tmp_path / "run"), final_arrays(workdir)
    assert mine.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_array_equal(mine[name], value)


@pytest.mark.parametrize("settings", [{"linearized": True}, {"centered": True}])
def test_what_was_learnt_is_refused_at_another_start(settings, tmp_path, monkeypatch):
    interrupted(tmp_path / "run", 3, monkeypatch, **settings)
    start_elsewhere(monkeypatch)
    with pytest.raises(runs.RunDirectoryError, match="made from other weights"):
        in_process(tmp_path / "run", **settings)


def test_command_prints_little_and_does_not_repeat_itself(tmp_path):
    first = main(*FLAGS, f"--workdir={tmp_path / 'run'}")
    assert (first.returncode, first.stderr) == (0, "")
    assert "test accuracy" in first.stdout
    stamp = os.stat(tmp_path / "run" / "metrics.csv").st_mtime_ns
    second = main(*FLAGS, f"--workdir={tmp_path / 'run'}")
    assert (second.returncode, second.stderr) == (0, "")
    assert os.stat(tmp_path / "run" / "metrics.csv").st_mtime_ns == stamp


@pytest.mark.parametrize("rate", [1e6, 1e38])
def test_divergence_is_a_result(rate, tmp_path):
    """The outputs overflow; the run says when and stops."""
    content = in_process(tmp_path / "run", learning_rate=rate)
    assert content["status"] == "diverged"
    assert 1 < content["diverged_at_step"] <= content["steps"]
    assert content["learning_rate"] == content["diverged_at_learning_rate"] == rate
    assert content["test_accuracy"] is None
    assert "diverged at update" in EXPERIMENTS["train"].describe(tmp_path / "run")


def test_hidden_units_that_overflow_are_a_divergence(tmp_path):
    """oneDNN's fused ReLU makes 0 of NaN: outputs are finite, and so are all weights."""
    settings = {"initialization": "xavier_normal", "gain": 1e30, "arch_args": "depth=4"}
    content = in_process(tmp_path / "run", max_steps=2, **settings)
    assert (content["status"], content["test_accuracy"]) == ("diverged", None)


@pytest.mark.parametrize("arch", ["mlp", "lenet"])
def test_weights_that_are_nan_are_a_divergence(arch, tmp_path, monkeypatch):
    """Seen at the end of the epoch, where the fused ReLU hides them; without one, at once."""
    usual = Save.on_train_batch_end

    def spoil(self, batch, logs=None):
        usual(self, batch, logs)
        if batch == 9:
            kernel = self.model.trainable_weights[0]
            kernel.assign(np.nan * kernel)

    monkeypatch.setattr(Save, "on_train_batch_end", spoil)
    monkeypatch.setattr(loop, "CALLBACK_SECONDS", 0)
    options = Options(tmp_path / "run", checkpoint_minutes=1e-6)
    settings = LENET if arch == "lenet" else {}
    content = carry_out(resolve(**(QUICK | settings)), options)
    assert content["status"] == "diverged"
    assert content["diverged_at_step"] in (10, 14)
    found = checkpoint.restore(tmp_path / "run/checkpoint")
    assert found.step == 9
    assert all(np.isfinite(value).all() for value in found.arrays.values())


def test_outputs_that_are_nan_by_operations_one_by_one():
    """Whatever a graph makes of them."""
    model = models.build("mlp", 1, 2, (3,))
    x = np.ones((2, 3), "float32")
    assert has_finite_outputs(model, x)
    model.trainable_weights[0].assign(np.full((3, 100), np.nan))
    assert not has_finite_outputs(model, x)


def test_divergence_after_a_profile_is_a_result(tmp_path):
    settings = {"arch": "mlp", "linearized": True, "dataset": "digits", "learning_rate": 10.0}
    sizes = {"train_examples": 64, "test_examples": 20, "batch_size": 8, "epochs": 60}
    content = carry_out(resolve(**settings, **sizes), Options(tmp_path / "run", profile=1))
    assert content["status"] == "diverged"
    assert (tmp_path / "run/tensorboard/plugins/profile").exists()


@pytest.mark.parametrize("linearized", [False, True])
def test_other_settings(linearized, tmp_path):
    settings = {"loss": "cross_entropy", "max_steps": 10, "padding": 2}
    content = in_process(tmp_path / "run", linearized=linearized, **settings)
    assert (content["status"], content["steps"]) == ("completed", 10)
    assert 0 < content["train_loss"] < 2 * np.log(10)


@pytest.mark.parametrize("linearized", [False, True])
def test_alexnet(linearized, tmp_path):
    content = in_process(
        tmp_path / "run",
        arch="alexnet",
        arch_args=None,
        image_size=64,
        batch_size=4,
        max_steps=1,
        train_examples=4,
        test_examples=4,
        linearized=linearized,
    )
    assert content["parameters"] == 57_044_810
    assert content["status"] == "completed"


@pytest.mark.parametrize("experiment", ["train", "trajectory"])
@pytest.mark.parametrize("toward", ["initialization", "zero"])
def test_decay_of_a_linearization(experiment, toward, rng):
    """Four updates with momentum against dense algebra in float64."""
    settings = {"linearized": True} if experiment == "train" else {"experiment": experiment}
    model = network.compiled(
        resolve(dataset="digits", weight_decay=0.05, decay_toward=toward, **settings),
        1,
        True,
    )
    x = rng.standard_normal((4, 28, 28, 1)).astype("float32")
    y = np.eye(10, dtype="float32")[[3, 1, 4, 1]]
    jacobian = np.float64(dense_jacobian(model.base, x))
    f0, w0 = np.float64(np.ravel(model.base(x))), np.float64(flat(model.base.trainable_weights))
    u = velocity = np.zeros(len(w0))
    for _ in range(4):
        model.train_on_batch(x, y)
        gradient = jacobian.T @ (f0 + jacobian @ u - y.ravel()) * 2 / y.size
        velocity = 0.9 * velocity + gradient + 0.05 * (u + (w0 if toward == "zero" else 0))
        u = u - 0.1 * velocity
    np.testing.assert_allclose(flat(model.trainable_weights), u, atol=2e-6 * np.abs(u).max())
    np.testing.assert_array_equal(np.float64(flat(model.base.trainable_weights)), w0)


@pytest.mark.parametrize("toward", ["initialization", "zero"])
def test_centered_network_has_the_update_of_its_formulas(toward, rng):
    """Two updates of loss(alpha h) / alpha^2 with decay, by dense Jacobians."""
    settings = {"centered": True, "alpha": 4.0, "weight_decay": 0.05, "decay_toward": toward}
    settings |= {"precision": "float64"}
    config = resolve(dataset="digits", learning_rate=0.125, **settings)
    model = network.compiled(config, 1, False)
    x = rng.standard_normal((2, 28, 28, 1)).astype("float32")
    y = np.eye(10)[[3, 1]]
    w = start = flat(model.trainable_weights)
    assert w.dtype == np.float64
    velocity, f0 = 0, model.base(x).numpy()
    for _ in range(2):
        h = model.base(x).numpy() - f0
        gradient = dense_jacobian(model.base, x).T @ (4 * h - y).ravel() * 2 / (y.size * 4)
        velocity = 0.9 * velocity + gradient + 0.05 * (w - (start if toward != "zero" else 0))
        w = w - 0.125 * velocity
        model.train_on_batch(x, y)
        np.testing.assert_allclose(flat(model.trainable_weights), w, atol=1e-9)


@pytest.mark.parametrize(
    "settings",
    [{"alpha": 1e4}, {"linearized": True, "precision": "float64"}],
    ids=["lazy", "linearized"],
)
def test_centered_run_goes_on_where_it_stopped(settings, tmp_path, monkeypatch):
    settings = settings | {"centered": True, "loss": "cross_entropy", "max_steps": 9}
    in_process(tmp_path / "run", **settings)
    content = result(tmp_path / "run")
    scale = settings.get("alpha", 1.0) ** 2
    assert 0 < content["train_loss"] * scale < np.log(10)
    end = final_arrays(tmp_path / "run")
    assert {array.dtype for array in end.values() if array.ndim == 2} == {np.dtype("float64")}
    interrupted(tmp_path / "again", 8, monkeypatch, **settings)
    in_process(tmp_path / "again", **settings)
    assert result(tmp_path / "again") == content
    again = final_arrays(tmp_path / "again")
    for name, value in end.items():
        np.testing.assert_array_equal(again[name], value)


def test_estimate_counts_the_copy_of_the_start():
    sizes = [
        size.estimate(resolve(dataset="digits", width=60, centered=True, **more)).memory
        for more in ({}, {"precision": "float64"})
    ]
    plain = size.estimate(resolve(dataset="digits", width=60))
    parameters = 4 * plain.parameters
    assert sizes[0] - plain.memory > parameters
    assert sizes[1] - sizes[0] > 4 * parameters


@pytest.mark.parametrize("linearized", [False, True])
def test_parametrization_and_its_arguments_reach_the_network(linearized, tmp_path):
    settings = LENET | {"parametrization": "ntk", "arch_args": "sigma_w=1.5,sigma_b=0.2"}
    in_process(tmp_path / "run", linearized=linearized, epochs=1, max_steps=1, **settings)
    config = resolve(dataset="digits", linearized=linearized, **settings)
    model = network.compiled(config, 1, linearized)
    layers = {layer.name: layer for layer in (model.base if linearized else model).layers}
    assert layers["conv2"].kernel_scale == pytest.approx(1.5 / np.sqrt(25 * 6))
    assert layers["outputs"].bias_scale == 0.2
    with pytest.raises(SettingError, match="arch_args=gain=2: gain has a flag of its own"):
        network.build(resolve(parametrization="ntk", arch_args="gain=2"))


@pytest.mark.parametrize("linearized", [False, True])
def test_biases_that_are_not_trained(linearized, tmp_path, monkeypatch):
    """Biases stay as they start, kernels move, and a crash changes nothing."""
    settings = {"linearized": linearized, "train_biases": False}
    in_process(tmp_path / "run", **settings)
    content = result(tmp_path / "run")
    assert content["parameters"] == 7_510 - (100 + 10)
    estimate = size.estimate(resolve(**QUICK, **settings))
    assert estimate.parameters == content["parameters"]
    model = models.build("mlp", 1, 10, (8, 8, 1), depth=2)
    start = {weight.path: weight.numpy() for weight in model.weights}
    end = {name[5:]: array for name, array in final_arrays(tmp_path / "run").items()}
    if linearized:
        moved = {name for name in end if "/u_" in name}
        assert {name.partition("/u_")[2] for name in moved} == {
            path.replace("/", "_") for path in start if path.endswith("kernel")
        }
        assert all(np.abs(end[name]).max() > 0 for name in moved)
    else:
        for path, value in start.items():
            assert np.array_equal(end[path], value) == path.endswith("bias")
    interrupted(tmp_path / "again", 12, monkeypatch, **settings)
    in_process(tmp_path / "again", **settings)
    assert result(tmp_path / "again") == content
    again = final_arrays(tmp_path / "again")
    for name, value in final_arrays(tmp_path / "run").items():
        np.testing.assert_array_equal(again[name], value)


def test_run_of_an_earlier_version_goes_on(finished, tmp_path):
    """Its config.json lacks settings that it did not have; other values of these are refused."""
    workdir, linearized = finished
    shutil.copytree(workdir, tmp_path / "run")
    settings = runs.read_json(workdir / "config.json")
    for name in set(resolve(**QUICK, linearized=linearized).added()) - QUICK.keys():
        settings.pop(name, None)
    (tmp_path / "run/config.json").write_text(json.dumps(settings))
    (tmp_path / "run/result.json").unlink()
    if linearized:
        with pytest.raises(runs.RunDirectoryError, match="initialization there and zero here"):
            in_process(tmp_path / "run", linearized=True, decay_toward="zero")
    in_process(tmp_path / "run", linearized=linearized)
    assert result(tmp_path / "run") == result(workdir)


def test_learns(tmp_path):
    """All digits for 5 epochs: far better than chance, and the network ahead."""
    results = {
        linearized: in_process(
            tmp_path / str(linearized),
            linearized=linearized,
            **LENET,
            epochs=5,
            train_examples=1437,
            test_examples=360,
        )
        for linearized in (False, True)
    }
    assert results[False]["test_accuracy"] > 0.90
    assert 0.70 < results[True]["test_accuracy"] < results[False]["test_accuracy"]


def test_mnist(mnist_data_dir, tmp_path):
    options = Options(tmp_path / "run", data_dir=mnist_data_dir)
    settings = resolve(max_steps=300, test_examples=2000, train_examples=9600)
    content = carry_out(settings, options)
    assert content["test_accuracy"] > 0.85


def test_dry_run_writes_nothing(tmp_path):
    done = main(
        "--arch=alexnet", "--width=4", "--dataset=digits", "--dry_run", f"--runs_dir={tmp_path}"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "911,834,378" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("model", ["--nolinearized", "--linearized"])
def test_memory_estimate_is_near_what_a_run_takes(model, tmp_path):
    """Of a network whose parameters take most of it: 17 million weights.

    Started cold: what TensorFlow needs to load is part of it.
    """
    flags = ["--dataset=digits", "--width=20", "--train_examples=32", "--test_examples=20"]
    command = commands.command(*flags, model, "--epochs=1", f"--workdir={tmp_path / 'run'}")
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    performance = json.loads((tmp_path / "run/result.json").read_text())["performance"]
    settings = resolve(dataset="digits", width=20, linearized=model == "--linearized")
    estimate = size.estimate(settings).memory / 2**30
    assert estimate == pytest.approx(performance["peak_memory_gib"], rel=0.35)


@pytest.mark.parametrize(
    "args",
    [
        ["--width=0"],
        ["--width=-3"],
        ["--width=three"],
        ["--arch=lenett"],
        ["--learning_rate=nan"],
        ["--batch_size=0"],
        ["--epochs=-1"],
        ["--workdir=/proc/nowhere/run"],
        ["--no_such_flag"],
        ["--resume=perhaps"],
        ["stray"],
        ["--checkpoint_minutes=0"],
        ["--image_size=8"],
        ["--decay_toward=zero"],
        ["--decay_toward=both", "--linearized"],
        ["--flagfile=/nowhere.flags"],
        ["--train_examples=1438"],
        ["--manual_dir=/nowhere", "--dataset=mnist", "--data_dir=/nowhere"],
    ],
)
def test_bad_flags(args, tmp_path):
    done = main("--dataset=digits", f"--runs_dir={tmp_path}", *args)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert args[0].split("=")[-1].removeprefix("--") in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_missing_mnist(tmp_path):
    offline = os.environ | {"TFDS_OFFLINE": "1"}
    done = main(f"--data_dir={tmp_path}", f"--runs_dir={tmp_path}", env=offline)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "train-images-idx3-ubyte.gz" in done.stderr
    assert "--dataset=digits" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_workdir_of_other_settings(finished, tmp_path):
    workdir, _ = finished
    before = sorted(workdir.rglob("*"))
    done = main(*FLAGS, "--learning_rate=0.2", f"--workdir={workdir}")
    assert done.returncode == 2
    assert "learning_rate is 0.1 there and 0.2 here" in done.stderr
    assert sorted(workdir.rglob("*")) == before
    (tmp_path / "precious.txt").touch()
    done = main(*FLAGS, f"--workdir={tmp_path}")
    assert done.returncode == 2
    assert "holds no run" in done.stderr
