"""The rank experiment for real on the embedded data: files, resuming, regression, refusals."""

import csv
import dataclasses
import io
import json
import shutil

import keras
import numpy as np
import pytest
from helpers import SMALL, carry_out, in_process, main
from keras import layers
from references import dense_jacobian
from rich.console import Console

from ntk_tf import data, models, ntk
from ntk_tf.data import DataError, pipeline
from ntk_tf.experiments import EXPERIMENTS, trained_weights
from ntk_tf.experiments.rank import regression
from ntk_tf.experiments.rank import run as rank
from ntk_tf.experiments.resolving import resolve
from ntk_tf.runs import RunDirectoryError
from ntk_tf.settings import Options, SettingError

SETTINGS = {"experiment": "rank", "dataset": "digits", "examples": 8, **SMALL}
SETTINGS.pop("learning_rate")


def run(workdir, minutes=10.0, **settings):
    options = Options(workdir, checkpoint_minutes=minutes)
    return carry_out(resolve(**(SETTINGS | settings)), options)


def singular_values(workdir):
    with np.load(workdir / "spectrum.npz") as file:
        return file["singular_values"]


def content(workdir):
    """rank.json without what depends on the machine."""
    machine = ("seconds", "stages", "peak_memory_gib")
    found = json.loads((workdir / "rank.json").read_text())
    return {name: value for name, value in found.items() if name not in machine}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The directory of a short training run."""
    workdir = tmp_path_factory.mktemp("trained") / "run"
    in_process(workdir, epochs=1)
    return workdir


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("rank") / "run"
    return workdir, run(workdir)


def mlp():
    return models.build("mlp", 1, 10, (8, 8, 1), depth=2)


def jacobian(x, weights=None):
    model = mlp()
    if weights is not None:
        for w, value in zip(model.trainable_weights, weights, strict=True):
            w.assign(value)
    return dense_jacobian(model, x).astype("float64")


def pictures(monkeypatch, **settings):
    """The pictures that the experiment gives to the network."""
    seen = []
    usual = ntk.gram

    def gram(model, x, **kwargs):
        seen.append((x, [w.numpy() for w in model.trainable_weights]))
        return usual(model, x, **kwargs)

    monkeypatch.setattr(ntk, "gram", gram)
    return seen


def test_spectrum_is_that_of_the_jacobian(tmp_path, monkeypatch):
    seen = pictures(monkeypatch)
    result = run(tmp_path / "run")
    found = singular_values(tmp_path / "run")
    truth = np.linalg.svd(jacobian(seen[0][0]), compute_uv=False)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, truth, rtol=1e-4)
    p = truth / truth.sum()
    assert result["effective_rank"] == pytest.approx(np.exp(-np.sum(p * np.log(p))), rel=1e-6)


def test_files(finished):
    workdir, result = finished
    found = content(workdir)
    assert found["examples"] == 8
    assert found["outputs"] == 10
    assert found["rows"] == 80 == len(singular_values(workdir))
    assert found["parameters"] == 100 * 65 + 10 * 101
    assert found["width"] == 1
    assert found["seed"] == 0
    assert result["status"] == "completed"
    assert json.loads((workdir / "result.json").read_text()).items() >= found.items()
    assert found["trace"] == pytest.approx(np.sum(singular_values(workdir) ** 2))
    for name in ("spectra.png", "spectra.pdf"):
        assert (workdir / name).stat().st_size > 5000
    assert not (workdir / "checkpoint").exists()


def test_goes_on_where_it_was_interrupted(tmp_path, monkeypatch):
    monkeypatch.setattr(rank.ntk.plan, "_BLOCK_ROWS", 20)  # several steps
    run(tmp_path / "whole")
    workdir = tmp_path / "run"
    usual, steps = rank._Rank._save, []

    def save_then_stop(self, *where):
        usual(self, *where)
        steps.append(self.step.done)
        if self.step.done == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(rank._Rank, "_save", save_then_stop)
    with pytest.raises(KeyboardInterrupt):
        run(workdir, minutes=0.0)
    assert steps == [1, 2, 3]
    monkeypatch.setattr(rank._Rank, "_save", lambda self, *_: steps.append(self.step.done))
    with monkeypatch.context() as context:
        context.setattr(rank.ntk.plan, "_BLOCK_ROWS", 40)  # as another version might
        with pytest.raises(RunDirectoryError, match="divided into 5 steps, not 3"):
            run(workdir, minutes=0.0)
    run(workdir, minutes=0.0)
    assert steps == list(range(1, len(steps) + 1))
    np.testing.assert_array_equal(singular_values(workdir), singular_values(tmp_path / "whole"))


def test_another_memory_begins_the_kernel_anew(tmp_path, monkeypatch):
    """As after a run that was killed for memory: what was computed has steps of another size."""
    monkeypatch.setattr(rank.ntk.plan, "_BLOCK_ROWS", 20)
    run(tmp_path / "whole")
    save = rank._Rank._save

    def save_then_stop(self, *where):
        save(self, *where)
        raise KeyboardInterrupt

    config, workdir = resolve(**SETTINGS), tmp_path / "run"
    with monkeypatch.context() as context:
        context.setattr(rank._Rank, "_save", save_then_stop)
        with pytest.raises(KeyboardInterrupt):
            carry_out(config, Options(workdir, checkpoint_minutes=0.0, memory_gib=2.0))
    lines = Console(file=io.StringIO(), width=200)
    carry_out(config, Options(workdir, checkpoint_minutes=0.0, memory_gib=1.0), lines)
    assert "begins anew: its steps so far were those of --memory_gib=2" in lines.file.getvalue()
    np.testing.assert_array_equal(singular_values(workdir), singular_values(tmp_path / "whole"))


def test_precision_float64_changes_nothing_but_rounding(finished, tmp_path):
    result = run(tmp_path / "run", precision="float64")
    assert result["effective_rank"] == pytest.approx(finished[1]["effective_rank"], rel=1e-6)
    assert result["effective_rank"] != finished[1]["effective_rank"]


def theta(outputs, rows, columns):
    """The kernel of a kind from Jacobians `[n L, p]`, as a matrix."""
    full = (rows @ columns.T).reshape(len(rows) // 10, 10, -1, 10)
    if outputs == "full":
        return full.reshape(len(rows), -1)
    if isinstance(outputs, int):
        return full[:, outputs, :, outputs]
    return np.einsum("iljl->ij" if outputs == "trace" else "iljm->ij", full) / 10


@pytest.mark.parametrize("outputs", ["trace", 3])
def test_spectrum_of_other_kernels(outputs, tmp_path, monkeypatch):
    seen = pictures(monkeypatch)
    result = run(tmp_path / "run", outputs=outputs)
    rows = jacobian(seen[0][0])
    truth = np.sqrt(np.linalg.eigvalsh(theta(outputs, rows, rows))[::-1])
    np.testing.assert_allclose(singular_values(tmp_path / "run"), truth, rtol=1e-4)
    assert (result["rows"], result["outputs"]) == (8, 10)


@pytest.mark.parametrize("outputs", ["full", "trace", "sum", 1])
def test_predictions_are_those_of_the_explicit_kernel(outputs, rng, float64, monkeypatch):
    monkeypatch.setattr(regression, "_TEST_ROWS", 3)
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4, "tanh"), layers.Dense(10)])
    x, test = rng.standard_normal((6, 3)), rng.standard_normal((8, 3))
    targets, labels = rng.standard_normal((6, 10)), np.arange(8)
    problem = regression.Problem(x, labels[:6], targets, test, labels, outputs, "float64", 1.0)
    rows, others = dense_jacobian(model, x), dense_jacobian(model, test)
    gram, cross = theta(outputs, rows, rows), theta(outputs, others, rows)
    fits = regression.fit(gram, problem)
    best, plain = problem.predict(model, fits.duals)
    shift = fits.ridge * targets.size / 2 * np.eye(len(gram))
    y = targets.reshape(len(gram), -1)
    truth = (cross @ np.linalg.solve(gram + shift, y)).reshape(8, 10)
    np.testing.assert_allclose(best, truth, atol=1e-6 * np.abs(truth).max())
    truth = (cross @ np.linalg.pinv(gram, 1e-12, hermitian=True) @ y).reshape(8, 10)
    np.testing.assert_allclose(plain, truth, atol=1e-6 * np.abs(truth).max())
    fitted = (gram @ np.linalg.solve(gram + shift, y)).reshape(6, 10)
    found = (fitted, fits.plain.fitted, best, plain)
    with_, without, tested, tested_without = (a.argmax(axis=1) for a in found)
    # labels of which the four are right in different parts
    labels = np.where(np.arange(6) < 5, with_, 10 - with_)
    test_labels = np.where(np.arange(8) < 7, tested, -1)
    problem = dataclasses.replace(problem, labels=labels, test_labels=test_labels)
    row = regression.of_kernel(fits, [best, plain], problem, 5)
    assert row["train_accuracy"] == pytest.approx(np.mean(with_ == labels))
    assert row["test_accuracy"] == pytest.approx(7 / 8)
    assert row["train_accuracy_without_ridge"] == pytest.approx(np.mean(without == labels))
    assert row["test_accuracy_without_ridge"] == pytest.approx(
        np.mean(tested_without == test_labels)
    )


def test_kernels_before_and_after_training(trained, tmp_path, monkeypatch):
    seen = pictures(monkeypatch)
    settings = {"kernel_regression": True, "test_examples": 30, "outputs": "trace"}
    start = run(tmp_path / "start", **settings)
    result = run(tmp_path / "run", from_run=str(trained), **settings)
    before, after, network = result["accuracies"]
    assert before == start["accuracies"][0]
    assert (before["of"], before["updates"]) == ("kernel", 0)
    assert (after["of"], after["updates"]) == ("kernel", 7)
    assert (network["of"], network["updates"]) == ("network", 7)
    for value, first in zip(seen[1][1], seen[0][1], strict=True):
        np.testing.assert_array_equal(value, first)
    model = mlp()
    for w, value in zip(model.trainable_weights, seen[2][1], strict=True):
        assert np.abs(w - value).max() > 0
        w.assign(value)
    source = data.load("digits", train_examples=8, test_examples=30)
    test = pipeline.preprocessing(source, 8, 0, 1)(source.test.images)
    right = np.mean(np.argmax(model(test), axis=1) == source.test.labels)
    assert network["test_accuracy"] == pytest.approx(right)
    table = Console(width=80, file=io.StringIO())
    table.print(regression.show(result["accuracies"]))
    assert "network after 7 updates" in table.file.getvalue()
    assert f"{100 * before['test_accuracy_without_ridge']:.1f}" in table.file.getvalue()


def test_goes_on_with_the_kernel_before_training(trained, tmp_path, monkeypatch):
    settings = {"kernel_regression": True, "outputs": "trace", "from_run": str(trained)}
    settings["test_examples"] = 20
    run(tmp_path / "whole", **settings)
    usual, done = rank._Rank._save, []

    def save_then_stop(self, *where):
        usual(self, *where)
        done.append((where[0].name, self.step.done))
        if done[-1][1] == 2 and done.count(done[-1]) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(rank._Rank, "_save", save_then_stop)
    for place in ("start", "checkpoint"):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "run", minutes=0.0, **settings)
        assert done[-1] == (place, 2)
    monkeypatch.setattr(rank._Rank, "_at_start", None)  # is not computed again
    run(tmp_path / "run", minutes=0.0, **settings)
    assert content(tmp_path / "run") == content(tmp_path / "whole")
    assert not (tmp_path / "run/checkpoint").exists()


@pytest.mark.parametrize("ridge", [0.0, 1e-3])
def test_kernel_regression_is_the_minimum(ridge, tmp_path, monkeypatch):
    """Against least squares in the explicit features."""
    seen = pictures(monkeypatch)
    result = run(tmp_path / "run", kernel_regression=True, ridge=ridge, test_examples=30)
    x, weights = seen[0]
    source = data.load("digits", train_examples=8, test_examples=30)
    model = mlp()
    features, offset = jacobian(x, weights), np.asarray(model(x), "float64")
    y = np.eye(10)[source.train.labels]
    gram = features @ features.T + ridge * len(features) / 2 * np.eye(len(features))
    u = features.T @ np.linalg.solve(gram, (y - offset).ravel())
    fitted = offset + (features @ u).reshape(y.shape)
    assert result["train_loss"] == pytest.approx(np.mean((fitted - y) ** 2), rel=1e-5, abs=1e-9)
    accuracy = np.mean(fitted.argmax(axis=1) == source.train.labels)
    assert result["train_accuracy"] == pytest.approx(accuracy)
    preprocess = pipeline.preprocessing(source, 8, 0, 1)
    test = preprocess(source.test.images).numpy()
    predicted = np.asarray(model(test)) + (jacobian(test) @ u).reshape(-1, 10)
    accuracy = np.mean(predicted.argmax(axis=1) == source.test.labels)
    assert result["test_accuracy"] == pytest.approx(accuracy)


def test_trained_weights(trained, finished, tmp_path, monkeypatch):
    seen = pictures(monkeypatch)
    result = run(tmp_path / "run", from_run=str(trained))
    assert result["from_step"] == 7  # 200 pictures in batches of 32
    model = mlp()
    initial = [w.numpy() for w in model.trainable_weights]
    assert all(np.abs(a - b).max() > 0 for a, b in zip(seen[0][1], initial, strict=True))
    settings = resolve(**SETTINGS, from_run=str(trained))
    assert trained_weights.load(model, settings, settings.from_run) == 7
    for w, value in zip(model.trainable_weights, seen[0][1], strict=True):
        np.testing.assert_array_equal(w, value)
    assert result["effective_rank"] != finished[1]["effective_rank"]


def test_weights_of_a_run_without_training_of_biases(tmp_path):
    """Its checkpoint holds the variables in another order."""
    in_process(tmp_path / "run", epochs=1, train_biases=False)
    model = mlp()
    initial = {w.path: w.numpy() for w in model.weights}
    trained_weights.load(model, resolve(**SETTINGS), tmp_path / "run")
    for weight in model.weights:
        same = np.array_equal(weight, initial[weight.path])
        assert same == weight.path.endswith("bias")


def test_the_initialization_to_compare_with_is_that_of_the_run(trained, tmp_path):
    compared = {"kernel_regression": True, "test_examples": 20, "from_run": str(trained)}
    with pytest.raises(DataError, match=r"from_run=.*has --seed=0, and this run --seed=1; --kern"):
        run(tmp_path / "a", seed=1, **compared)
    old = json.loads((trained / "config.json").read_text())
    earlier = tmp_path / "earlier"
    shutil.copytree(trained, earlier)
    text = json.dumps({k: v for k, v in old.items() if k not in ("initialization", "gain")})
    (earlier / "config.json").write_text(text)  # as of a version without these settings
    settings = compared | {"from_run": str(earlier), "initialization": "xavier_normal"}
    with pytest.raises(DataError, match="has --initialization=pytorch, and this run --init"):
        run(tmp_path / "e", **settings)
    in_process(tmp_path / "second", max_steps=3, from_run=str(trained))
    with pytest.raises(DataError, match=r"second: started --from_run=.*/run, not from its init"):
        run(tmp_path / "b", **(compared | {"from_run": str(tmp_path / "second")}))


def test_updates_are_counted_from_the_initialization(trained, tmp_path):
    """Over runs that start from another's weights, finished or not, and training before a run."""
    second, third = tmp_path / "second", tmp_path / "third"
    assert in_process(second, max_steps=3, from_run=str(trained))["from_step"] == 7
    assert in_process(third, max_steps=2, from_run=str(second))["from_step"] == 10
    for folder in (second, third):
        (folder / "result.json").unlink()
    assert run(tmp_path / "run", from_run=str(third), seed=1)["from_step"] == 12
    assert in_process(third, max_steps=2, from_run=str(second))["from_step"] == 10
    shutil.rmtree(second)
    assert run(tmp_path / "known", from_run=str(third), seed=1)["from_step"] == 12
    (third / "result.json").unlink()
    with pytest.warns(UserWarning, match="third: how many updates its weights had seen before is"):
        assert run(tmp_path / "unknown", from_run=str(third), seed=1)["from_step"] == 2
    before = {"linearized": True, "pretrain_steps": 4, "max_steps": 1}
    assert in_process(tmp_path / "pretrained", **before)["from_step"] == 4


def test_outputs_of_a_centered_network_are_not_its_weights_alone(tmp_path):
    in_process(tmp_path / "centered", max_steps=2, centered=True)
    settings = {"from_run": str(tmp_path / "centered"), "test_examples": 20}
    assert run(tmp_path / "kernel", from_run=settings["from_run"])["from_step"] == 2
    with pytest.raises(DataError, match=r"from_run=.* --centered, f\(w\) - f\(w0\)"):
        run(tmp_path / "regression", kernel_regression=True, **settings)
    with pytest.raises(DataError, match="--centered"):
        in_process(tmp_path / "more", from_run=settings["from_run"])


def test_refuses_runs_that_do_not_fit(trained, finished, tmp_path):
    with pytest.raises(DataError, match=r"from_run=.*has --width=1, and this run --width=2"):
        run(tmp_path / "a", from_run=str(trained), width=2)
    with pytest.raises(DataError, match=r"from_run=.*must hold --experiment=train"):
        run(tmp_path / "b", from_run=str(finished[0]))
    shutil.copytree(trained, tmp_path / "without")
    shutil.rmtree(tmp_path / "without/checkpoint")
    with pytest.raises(DataError, match="from_run=.*without: holds no checkpoint"):
        trained_weights.check(resolve(**SETTINGS, from_run=str(tmp_path / "without")))
    shutil.rmtree(tmp_path / "without")
    with pytest.raises(DataError, match="from_run=nowhere: must be a directory"):
        run(tmp_path / "c", from_run="nowhere")
    assert list(tmp_path.iterdir()) == []


def test_conditions_are_quotients_of_the_largest_and_smallest(finished):
    workdir, result = finished
    values = singular_values(workdir)
    quotient = values[0] / values[-1]
    assert result["condition_of_singular_values"] == pytest.approx(quotient)
    assert result["condition_of_eigenvalues"] == pytest.approx(quotient**2)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("arch_args", "depth=3"),
        ("parametrization", "ntk"),
        ("width", 2),
        ("output_factor", 2.0),
        ("dataset", "mnist"),
        ("image_size", 9),
        ("padding", 1),
        ("normalization", "half"),
    ],
)
def test_weights_of_any_other_network_or_input_are_refused(trained, tmp_path, name, value):
    shutil.copytree(trained, tmp_path / "other")
    settings = json.loads((trained / "config.json").read_text())
    (tmp_path / "other/config.json").write_text(json.dumps(settings | {name: value}))
    with pytest.raises(DataError, match=f"has --{name}={value}, and this run"):
        run(tmp_path / "run", from_run=str(tmp_path / "other"))


def test_refuses_too_many_pictures_and_too_little_memory(tmp_path):
    with pytest.raises(SettingError, match="--examples=9000: digits has 1,437"):
        run(tmp_path / "a", examples=9000)
    few = resolve(**SETTINGS)
    few = dataclasses.replace(few, examples=9000, card=dataclasses.replace(few.card, train=0))
    with pytest.raises(DataError, match="examples=9000: digits has 1,437"):  # known only there
        carry_out(few, Options(tmp_path / "a"))
    assert not (tmp_path / "a").exists()
    options = Options(tmp_path / "b", memory_gib=1e-6)
    with pytest.raises(DataError, match="memory_gib=1e-06: the Gram of 8 x 8"):
        carry_out(resolve(**SETTINGS), options)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--experiment=rank --examples=1,2", "--examples=1,2: must be an integer of at least 1"),
        ("--experiment=rank --ridge=1", "--ridge=1.0: read only with --kernel_regression"),
        ("--experiment=rank --kernel_regression --ridge=-1", "--ridge=-1: must be a finite"),
        (
            "--experiment=rank --precision=half",
            "--precision=half: must be one of float32, float64",
        ),
        ("--experiment=rank --memory_gib=0", "--memory_gib=0: must be a finite number above 0"),
        ("--experiment=rank --epochs=3", "--epochs=3: --experiment=rank does not read it"),
        (
            "--experiment=rank --outputs=diagonal",
            "--outputs=diagonal: must be full, trace, sum, or",
        ),
        ("--experiment=rank --outputs=10", "--outputs=10: the outputs for mnist are 0 to 9"),
        ("--experiment=rank --precision=tf32", "must be one of float32, float64"),
        ("--precision=half", "--precision=half: must be one of float32, tf32, float64"),
    ],
)
def test_bad_flags(flags, message):
    from ntk_tf import cli

    with pytest.raises(SettingError, match=message.replace("(", r"\(")):
        cli.parse(["main", *flags.split()])


def test_widths_in_one_command(tmp_path):
    flags = ["--experiment=rank", "--dataset=digits", "--examples=5", "--widths=2,1"]
    done = main(*flags, f"--workdir={tmp_path}/curve")
    assert done.returncode == 0, done.stderr
    assert "effective rank" in done.stdout
    with open(tmp_path / "curve/effective_rank.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["width"] for row in rows] == ["1", "2"]
    for row in rows:
        found = content(tmp_path / f"curve/x{row['width']}")
        assert float(row["effective_rank"]) == found["effective_rank"]
    for name in ("effective_rank.png", "effective_rank.pdf", "spectra.png", "spectra.pdf"):
        assert (tmp_path / "curve" / name).stat().st_size > 5000
    refused = main(*flags, "--examples=9000", f"--workdir={tmp_path}/refused")
    assert refused.returncode == 2
    assert refused.stderr == "error: --examples=9000: digits has 1,437 training pictures\n"


def test_layers_of_one_name_keep_their_own_weights():
    """In models within a model; positions say their order, with or without other variables."""
    ours = ["0000/a/kernel", "0001/a/bias", "0002/a/kernel", "0003/a/bias"]
    theirs = ["0010/a/kernel", "0002/a/kernel", "0003/a/bias", "0011/a/bias", "0012/b/kernel"]
    found, saved = trained_weights._by_path(ours), trained_weights._by_path(theirs)
    assert {name: saved[key] for key, name in found.items()} == {
        "0000/a/kernel": "0002/a/kernel",
        "0001/a/bias": "0003/a/bias",
        "0002/a/kernel": "0010/a/kernel",
        "0003/a/bias": "0011/a/bias",
    }


@pytest.mark.parametrize("factor", [1e-30, 1e30])
def test_a_kernel_without_numbers_is_one_line(factor, tmp_path):
    small = {"arch": "mlp", "dataset": "digits", "examples": 3}
    config = resolve(experiment="rank", **small, parametrization="ntk", output_factor=factor)
    with pytest.raises(DataError, match="the kernel is zero or not finite; .* --output_factor"):
        carry_out(config, Options(tmp_path / "run"))


@pytest.mark.parametrize(
    ("rows", "of"), [(300, "linearization"), (30, "regression from the network's outputs")]
)
def test_only_the_kernel_of_all_outputs_is_the_linearizations(rows, of):
    result = {"effective_rank": 12.3, "rows": rows, "examples": 30, "outputs": 10}
    result |= {"train_accuracy": 1.0, "test_accuracy": 0.75}
    text = EXPERIMENTS["rank"].summary(result, None)
    assert text.startswith(f"effective rank 12.3 of {rows}  {of}: train accuracy 100.00%")
