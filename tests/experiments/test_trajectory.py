"""Trajectories: what is recorded, resumed, drawn; and the theory in closed form."""

import csv
import dataclasses
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from helpers import LENET, SMALL, Interrupted, carry_out, final_arrays, main, start_elsewhere
from references import dense_jacobian, flat

from ntk_tf import data, models, runs
from ntk_tf.catalogue.datasets import DATASETS
from ntk_tf.data import DataError
from ntk_tf.experiments import size
from ntk_tf.experiments.resolving import resolve
from ntk_tf.experiments.trajectory import figure, measure, show
from ntk_tf.experiments.trajectory import run as trajectory
from ntk_tf.linearization import LinearizedModel
from ntk_tf.settings import Options
from ntk_tf.training import TorchSGD

SETTINGS = {
    "experiment": "trajectory",
    "dataset": "digits",
    "train_examples": 200,
    "test_examples": 50,
    "max_steps": 20,
    "distance_every": 8,
    "distance_examples": 30,
    **SMALL,
}


def run(workdir, **settings):
    options = Options(workdir)
    return carry_out(resolve(**(SETTINGS | settings)), options)


def arrays(workdir):
    with np.load(workdir / "trajectories.npz") as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("trajectory") / "run"
    return workdir, run(workdir, kernel_every=10, kernel_examples=6)


def test_files_and_shapes(finished):
    workdir, result = finished
    found = arrays(workdir)
    np.testing.assert_array_equal(found["step"], np.arange(21))
    assert found["standard"].shape == found["linearized"].shape == (21, 3, 10)
    assert len(set(found["label"])) == 3
    assert np.isfinite(found["standard"]).all()
    distances = json.loads((workdir / "trajectory.json").read_text())["distances"]
    assert [row["step"] for row in distances] == [8, 16, 20]
    assert result["relative_distance"] == distances[-1]["relative_distance"] > 0
    for name in ("trajectories.png", "trajectories.pdf"):
        assert (workdir / name).stat().st_size > 5000


def test_outputs_start_bit_identical_and_part(finished):
    found = arrays(finished[0])
    np.testing.assert_array_equal(found["standard"][0], found["linearized"][0])
    assert not np.array_equal(found["standard"][1], found["linearized"][1])


def test_ends_where_the_train_experiment_ends(finished, tmp_path):
    """Same order, same updates: both models' weights are those of --experiment=train."""
    pair = final_arrays(finished[0])
    records = ("/records", "/last_kernel")
    weights = [value for name, value in sorted(pair.items()) if not name.endswith(records)]
    few = 4  # weights and biases of two layers
    for linearized in (False, True):
        train = {k: v for k, v in SETTINGS.items() if "distance" not in k}
        run_dir = tmp_path / str(linearized)
        settings = resolve(**(train | {"experiment": "train", "linearized": linearized}))
        carry_out(settings, Options(run_dir))
        alone = [value for _, value in sorted(final_arrays(run_dir).items())]
        first = 0 if not linearized else len(weights) // 2
        for mine, theirs in zip(weights[first : first + few], alone[:few], strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_kernel_movement_file(finished):
    with open(finished[0] / "kernel.csv") as file:
        rows = [{k: float(v or "nan") for k, v in row.items()} for row in csv.DictReader(file)]
    assert [row["step"] for row in rows] == [0, 10, 20]
    assert np.isnan(rows[0]["velocity"])
    assert rows[1]["velocity"] == pytest.approx((1 - rows[1]["cosine"]) / 10)
    angles = [np.arccos(c) for c in (rows[1]["cosine"], rows[2]["cosine"])]
    assert rows[2]["velocity"] >= (1 - np.cos(angles[1] - angles[0])) / 10
    assert rows[0]["cka"] == pytest.approx(1)
    assert 0 < rows[2]["cka"] < 1
    assert rows[0]["relative_change"] == 0
    assert rows[0]["cosine"] == pytest.approx(1)
    assert rows[2]["relative_change"] > 0.01
    alignments = [name for name in rows[0] if "alignment" in name]
    labels = data.load("digits").test.labels[:6]
    assert len(alignments) == 3 + len(set(labels))  # in three ways, and of each class there
    assert all(0 <= row[name] < 1 + 1e-12 for row in rows for name in alignments)


def test_kernels_of_several_widths_are_in_one_figure(finished, tmp_path, monkeypatch):
    wide = shutil.copytree(finished[0], tmp_path / "wide")
    settings = json.loads((wide / "config.json").read_text())
    (wide / "config.json").write_text(json.dumps(settings | {"width": 7}))
    drawn = {}
    save = figure.plots.save
    monkeypatch.setattr(
        figure.plots, "save", lambda f, path: (drawn.update({path.name: f}), save(f, path))
    )
    figure.draw([finished[0], wide], tmp_path)
    with open(finished[0] / "kernel.csv") as file:
        measured = list(csv.DictReader(file))
    for axis, name in zip(drawn["kernels"].axes, ("relative_change", "cosine"), strict=True):
        curves = [line.get_ydata() for line in axis.lines if len(line.get_ydata())]
        np.testing.assert_array_equal(curves, [[float(row[name]) for row in measured]] * 2)
    with open(tmp_path / "kernels.csv") as file:
        found = list(csv.DictReader(file))
    assert [(row["width"], row["step"]) for row in found] == [
        (width, step) for width in "17" for step in ("0", "10", "20")
    ]
    assert found[0]["velocity"] == ""


@pytest.mark.parametrize(("factor", "scale"), [(2, "linear"), (500, "log")])
def test_no_panel_cuts_off_a_velocity(factor, scale, finished, tmp_path, monkeypatch):
    """The first of a row, by which all are scaled, may be the smallest."""
    second = shutil.copytree(finished[0], tmp_path / "second")
    with open(second / "kernel.csv") as file:
        kept = list(csv.DictReader(file))
    for row in kept[1:]:
        for name in ("velocity", "relative_change"):
            row[name] = factor * float(row[name])
    runs.write_table(second / "kernel.csv", list(kept[0]), kept)
    figures = []
    monkeypatch.setattr(figure.plots, "save", lambda drawn, path: figures.append(drawn))
    figure.draw([finished[0], second], tmp_path)
    panels = [a for f in figures for a in f.axes if a.get_ylabel() == "kernel velocity, per update"]
    changes = [a for f in figures for a in f.axes if a.get_ylabel() == "relative change"]
    assert len(changes) == 2
    last = [a for f in figures for a in f.axes if a.get_xlabel() == "updates"]
    assert {round(a.get_xlim()[1], 6) for a in changes} == {20.2}
    assert len(last) >= 2
    for name, axes in (("velocity", panels), ("relative_change", changes)):
        (limits,) = {axis.get_ylim() for axis in axes}
        values = [float(row[name]) for row in kept[1:]]
        logarithmic = scale == "log" and name == "velocity"
        assert {axis.get_yscale() for axis in axes} == {"log" if logarithmic else "linear"}
        assert 0 < limits[0] < min(values) / factor if logarithmic else limits[0] == 0
        assert limits[1] > max(values)


def test_tensorboard_gets_some_of_many_records(finished, tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setattr(show, "MOST", 6)
    run(tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run/tensorboard/standard"), {"tensors": 0})
    events.Reload()
    names = sorted(events.Tags()["tensors"])
    found = arrays(finished[0])
    for e, name in enumerate(sorted(names, key=lambda n: list(found["index"]).index(_number(n)))):
        values = {t.step: tf.make_ndarray(t.tensor_proto).item() for t in events.Tensors(name)}
        right = found["standard"][:, e, found["label"][e]]
        assert values == {step: pytest.approx(right[step]) for step in range(0, 21, 4)}


def _number(name):
    """Of the picture in a tag's name."""
    return int(name.rpartition("picture ")[2].split()[0])


def test_alignments_do_not_depend_on_the_targets_of_the_loss(finished, tmp_path):
    once = {"max_steps": 1, "kernel_every": 1, "kernel_examples": 6}
    run(tmp_path / "run", targets=(-1.0, 1.0), train_biases=False, **once)
    first = (tmp_path / "run/kernel.csv").read_text().splitlines()[:2]
    frozen = [dict(next(csv.DictReader(first)))]
    run(tmp_path / "usual", train_biases=False, **once)
    usual = (tmp_path / "usual/kernel.csv").read_text().splitlines()[:2]
    assert frozen == [dict(next(csv.DictReader(usual)))]
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["parameters"] == 7510 - (100 + 10)


def test_tensorboard_runs_share_their_tags(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tags = {}
    for name in ("standard", "linearized", "comparison"):
        events = EventAccumulator(str(finished[0] / "tensorboard" / name), {"tensors": 0})
        events.Reload()
        tags[name] = {t: len(events.Tensors(t)) for t in events.Tags()["tensors"]}
    assert tags["standard"] == tags["linearized"]
    assert set(tags["standard"].values()) == {21}
    assert len(tags["standard"]) == 3
    assert tags["comparison"]["distance/relative_distance"] == 3
    assert tags["comparison"]["kernel/cosine"] == 3


def test_interrupted_run_ends_the_same(finished, tmp_path, monkeypatch):
    save = trajectory.Save.on_train_batch_end

    def crash_at(stop):
        def crash(self, batch, logs=None):
            self.minutes = 0  # save whenever asked
            save(self, batch, logs)
            if batch >= stop:
                raise Interrupted

        return crash

    for stop in (3, 13):
        monkeypatch.setattr(trajectory.Save, "on_train_batch_end", crash_at(stop))
        with pytest.raises(Interrupted):
            run(tmp_path / "run", kernel_every=10, kernel_examples=6)
        monkeypatch.undo()
        kept = arrays(tmp_path / "run")
        assert 1 < len(kept["step"]) < 21
    start_elsewhere(monkeypatch)
    with pytest.raises(runs.RunDirectoryError, match="made from other weights"):
        run(tmp_path / "run", kernel_every=10, kernel_examples=6)
    monkeypatch.undo()
    run(tmp_path / "run", kernel_every=10, kernel_examples=6)
    for name in ("trajectories.npz", "trajectory.json", "kernel.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (finished[0] / name).read_bytes()


def test_every_third_update(finished, tmp_path):
    run(tmp_path / "run", record_every=3)
    some, every = arrays(tmp_path / "run"), arrays(finished[0])
    np.testing.assert_array_equal(some["step"], np.arange(0, 21, 3))
    np.testing.assert_array_equal(some["standard"], every["standard"][::3])
    np.testing.assert_array_equal(some["linearized"], every["linearized"][::3])


def test_memory_counts_the_records_of_all_updates():
    few, many = (
        size.estimate(resolve(**(SETTINGS | {"max_steps": steps, "distance_every": 1000}))).memory
        for steps in (10, 10_010)
    )
    assert many - few == 2 * 10_000 * 2 * 3 * 10 * 4  # twice, both models, pictures, outputs


def test_choice_of_pictures():
    labels = np.array([4, 4, 2, 4, 7, 2, 1])
    choose = trajectory.choose_examples
    np.testing.assert_array_equal(choose(labels, 3), [0, 2, 4])
    np.testing.assert_array_equal(choose(labels, (5, 1)), [5, 1])
    with pytest.raises(DataError, match=r"examples=5: .* 4 classes"):
        choose(labels, 5)
    with pytest.raises(DataError, match=r"examples=1,7: .* 7 test"):
        choose(labels, (1, 7))


def test_of_two_classes_both_are_recorded():
    card = dataclasses.replace(DATASETS["digits"], classes=2)
    assert resolve(lambda _: card, experiment="trajectory", dataset="digits").examples == 2
    assert resolve(experiment="trajectory", dataset="digits").examples == 3


def test_linearized_trajectory_is_linear_least_squares(rng, float64):
    """Full-batch gradient descent on T_f has a closed form in the eigenbasis of the NTK.

    r_t = (I - 2 eta / (n L) Theta)^t r_0 for the residual r of the mean squared error.
    """
    base = models.build("lenet", 0.5, 3, (16, 16, 1))
    x, y = rng.standard_normal((4, 16, 16, 1)), np.eye(3)[rng.integers(0, 3, 4)]
    jacobian, start = dense_jacobian(base, x), np.ravel(base(x)) - y.ravel()
    values, vectors = np.linalg.eigh(jacobian @ jacobian.T)
    linear = LinearizedModel(base)
    rate = 0.5
    linear.compile(optimizer=TorchSGD(rate), loss="mse")
    for t in range(1, 51):
        linear.train_on_batch(x, y)
        decay = (1 - 2 * rate / y.size * values) ** t
        expected = vectors @ (decay * (vectors.T @ start))
        if t % 10 == 0:
            residual = flat([linear(x)]) - y.ravel()
            np.testing.assert_allclose(residual, expected, atol=1e-8 * np.abs(start).max())


def test_diverged_run_keeps_what_it_recorded(tmp_path):
    """Its kernel leaves all bounds, perhaps the range of numbers, before its outputs do."""
    settings = LENET | {"learning_rate": 100.0, "kernel_every": 1, "kernel_examples": 4}
    result = run(tmp_path / "run", **settings)
    assert result["status"] == "diverged"
    names, *_, last = (tmp_path / "run/kernel.csv").read_text().splitlines()
    assert names.split(",")[1] == "relative_change"
    assert not float(last.split(",")[1]) < 1e6
    found = arrays(tmp_path / "run")
    assert len(found["step"]) >= 2
    assert (tmp_path / "run" / "trajectories.svg").exists()


@pytest.mark.parametrize(
    "args",
    [
        ["--examples=0"],
        ["--examples=a,b"],
        ["--examples=1,1"],
        ["--examples=11"],
        ["--examples=400,2"],
        ["--record_every=0"],
        ["--epochs=3"],
        ["--linearized"],
        ["--kernel_examples=1"],
        ["--kernel_examples=9"],
        ["--kernel_examples=361", "--kernel_every=1"],
        ["--distance_examples=361"],
        ["--distance_examples=6", "--test_examples=5"],
        ["--widths=1,0"],
        ["--widths=1,1"],
        ["--widths=a"],
        ["--width=2", "--widths=1,3"],
    ],
)
def test_bad_flags(args, tmp_path):
    done = main("--experiment=trajectory", "--dataset=digits", f"--runs_dir={tmp_path}", *args)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert args[0].split("=")[0] in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_several_widths(tmp_path):
    """One process each, one figure; a second time nothing is run again."""
    args = [
        "--experiment=trajectory",
        "--dataset=digits",
        "--train_examples=64",
        "--test_examples=50",
        "--distance_examples=20",
        "--widths=1,2",
        f"--workdir={tmp_path / 'runs'}",
    ]
    first = main(*args)
    assert (first.returncode, first.stderr) == (0, "")
    assert arrays(tmp_path / "runs" / "x2")["standard"].shape == (3, 3, 10)
    assert (tmp_path / "runs" / "trajectories.pdf").exists()
    stamp = (tmp_path / "runs" / "x1" / "result.json").stat().st_mtime_ns
    assert main(*args).returncode == 0
    assert (tmp_path / "runs" / "x1" / "result.json").stat().st_mtime_ns == stamp


@pytest.mark.parametrize(
    ("every", "total", "expected"),
    [
        (50, 20, [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20]),
        (50, 3, [0, 1, 2, 3]),
        (50, 50, [0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50]),
        (50, 60, [0, 6, 12, 18, 24, 30, 36, 42, 48, 50, 54, 60]),
        (8, 20, [0, 8, 16, 20]),
        (50, 120, [0, 50, 100, 120]),
    ],
)
def test_distances_of_short_runs(every, total, expected):
    """The usual points stay; a run that has but its end is measured at its tenths."""
    assert sorted(measure.distance_steps(every, total)) == expected


def test_target_of_a_figure():
    assert figure._target({}) == 1.0
    assert figure._target({"loss": "l2", "targets": [-0.1, 0.9]}) == 0.9
    assert figure._target({"loss": "cross_entropy"}) is None
