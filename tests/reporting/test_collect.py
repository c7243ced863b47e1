"""Which runs are found, where, and how they are called."""

import dataclasses
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from written_runs import fake

from ntk_tf import runs
from ntk_tf.experiments.resolving import from_json, resolve
from ntk_tf.reporting import collect, grouping, summary, write


def test_runs_of_any_depth_each_once(tmp_path):
    fake(tmp_path, 99, 98, dataset="digits")
    fake(tmp_path / "b/c/d/e", 99, 97, dataset="digits", seed=1)
    fake(tmp_path / "z", 50, 50, dataset="digits", name="again")  # the first one's settings
    deep = fake(tmp_path / "b", 99, 96, dataset="digits", seed=2)
    (deep / "result.json").unlink()
    fake(deep / "checkpoint", 99, 95, dataset="digits", seed=3)  # no place for runs
    os.symlink(tmp_path, tmp_path / "b/circle")
    found = collect.read(tmp_path)
    assert [record.name for record in found.records] == [
        "b/c/d/e/lenet_x1_digits_seed1",
        "lenet_x1_digits_seed0",
    ]
    assert [(name, record.name) for name, record in found.repeated] == [
        ("z/again", "lenet_x1_digits_seed0")
    ]
    assert found.unfinished == ("b/lenet_x1_digits_seed2",)
    assert found.describe() == "2 train; 1 unfinished; 1 repeated"
    shown = summary.pairs(found.of("train"))
    assert {name: pair[False]["test_accuracy"] for name, pair in shown.items()} == {
        "lenet_x1_digits_seed0": 0.98,
        "lenet_x1_digits_seed1": 0.97,
    }


def test_a_single_run_of_its_own(tmp_path):
    path = fake(tmp_path, 99, 98, dataset="digits")
    (record,) = collect.read(path).records
    assert (record.path, record.name) == (path, "lenet_x1_digits_seed0")


def test_nothing_to_report_is_one_line(tmp_path):
    with pytest.raises(runs.RunDirectoryError, match="there is no such folder"):
        collect.read(tmp_path / "missing")
    with pytest.raises(runs.RunDirectoryError, match="holds no finished run$"):
        collect.read(tmp_path)
    (fake(tmp_path, 99, 98) / "result.json").unlink()
    with pytest.raises(runs.RunDirectoryError, match="no finished run and 1 unfinished"):
        collect.read(tmp_path)


def test_a_run_without_the_training_before_it_is_left_out_and_named(tmp_path):
    fake(tmp_path / "runs", 99, 98, dataset="digits")
    fake(tmp_path / "runs", 99, 97, dataset="digits", linearized=True, pretrain_steps=4)
    with pytest.warns(UserWarning, match=r"pretraining/result.json: .*; the run is left out"):
        found = collect.read(tmp_path / "runs")
    assert found.describe() == "1 train; 1 damaged"


@pytest.mark.parametrize(
    ("experiment", "name"), [("rank", "rank.json"), ("trajectory", "trajectory.json")]
)
def test_a_run_without_the_file_of_its_figures_is_left_out_and_named(experiment, name, tmp_path):
    fake(tmp_path / "runs", 99, 98, dataset="digits")
    path = fake(tmp_path / "runs", 99, 97, dataset="digits", seed=1)
    config = resolve(experiment=experiment, dataset="digits")
    runs.write_json(path / "config.json", config.to_dict())
    with pytest.warns(UserWarning, match=rf"{name}: .*; the run is left out"):
        assert collect.read(tmp_path / "runs").describe() == "1 train; 1 damaged"


@pytest.mark.parametrize("name", ["config.json", "result.json"])
@pytest.mark.parametrize("content", [b"{", b"\xff\x00", b"[]"])
def test_a_damaged_run_is_left_out_and_named(name, content, tmp_path):
    fake(tmp_path / "runs", 99, 98, dataset="digits")
    path = fake(tmp_path / "runs", 99, 97, dataset="digits", seed=1) / name
    path.write_bytes(content)
    with pytest.warns(UserWarning, match=rf"{re.escape(str(path))}: .*; the run is left out"):
        found = collect.read(tmp_path / "runs")
    assert [record.name for record in found.records] == ["lenet_x1_digits_seed0"]
    assert found.describe() == "1 train; 1 damaged"
    with pytest.warns(UserWarning, match="left out"):
        write.write(tmp_path / "runs", tmp_path / "out")
    assert str(path) in (tmp_path / "out/index.html").read_text()
    with pytest.raises(runs.RunDirectoryError, match=re.escape(str(path))):  # and nothing else
        collect.read(path.parent)


def test_settings_that_this_version_does_not_read():
    """Earlier versions wrote down every experiment's settings, whether read or not."""
    content = resolve(experiment="rank", dataset="digits").to_dict()
    old = content | {"ridge": 0.0, "epochs": 5, "unheard_of": 1}
    assert from_json(old).to_dict() == content


@pytest.mark.parametrize("arch", ["my.nets:build", "lenet"])
def test_titles_for_readers(arch, tmp_path):
    usual = resolve(dataset="digits")
    own = dataclasses.replace(usual.card, name="/data/a/pictures.npz", fingerprint="11aa22bb")
    config = dataclasses.replace(usual, arch=arch, dataset=own.name, card=own)
    other = dataclasses.replace(config, card=dataclasses.replace(own, fingerprint="33cc44dd"))
    paths = [tmp_path / "a", tmp_path / "b"]
    result = {"status": "completed", "test_accuracy": 0.9, "train_accuracy": 0.9}
    records = [
        collect.Record(path, path.name, c, result)
        for path, c in zip(paths, (config, other), strict=True)
    ]
    model = {"my.nets:build": "build (my.nets)", "lenet": "LeNet"}[arch]
    (alone,) = grouping.studies(records[:1])
    assert alone.title == f"{model} on pictures.npz"
    assert sorted(study.title for study in grouping.studies(records)) == [
        f"{model} on pictures.npz (11aa22bb)",
        f"{model} on pictures.npz (33cc44dd)",
    ]


def test_studies_are_named_by_what_sets_them_apart(tmp_path):
    for more in ({}, {"padding": 2}, {"train_biases": False}):
        fake(tmp_path, 99, 98, dataset="digits", epochs=5, **more)
    studies = grouping.studies(collect.read(tmp_path).of("train"))
    assert [study.title for study in studies] == [
        "LeNet on digits",
        "LeNet on digits, padding 2",
        "LeNet on digits, train biases off",
    ]
    assert [study.note for study in studies] == [
        "epochs 5",
        "epochs 5, padding 2",
        "epochs 5, train biases off",
    ]


def test_long_names_of_files_stay_apart():
    names = [write._file_name("x" * 200, end) for end in ("", "_a", "_b")]
    assert len(set(names)) == 3
    assert all(len(name) == 120 for name in names)
    assert write._file_name("a b", "c/d") == "a-b_c-d"


def report(*args, **env):
    command = [sys.executable, "-m", "ntk_tf.report", *args]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | env)


def test_screen_of_80_columns(tmp_path):
    """Names break after underscores only; brackets in them are no markup; units are said."""
    settings = {"dataset": "digits", "train_examples": 1000, "test_examples": 100, "padding": 2}
    fake(tmp_path / "lr[/old]", 99, 98, **settings)
    fake(tmp_path / "lr[/old]", 95, 94, linearized=True, **settings)
    fake(tmp_path / "lr[/old]", 93, 92, experiment="baseline", dataset="digits")
    done = report(f"--runs_dir={tmp_path / 'lr[/old]'}", COLUMNS="80")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    (first,) = [i for i, line in enumerate(lines) if line.startswith("lenet_x1_digits_seed0")]
    assert lines[first].split()[1:] == ["99.0", "98.0", "95.0", "94.0", "4.0"]
    assert lines[first].split()[0].endswith("_")
    assert max(map(len, lines[first - 2 : first + 2])) <= 80
    assert summary.UNITS in lines
    assert "test accuracy 92.00%" in done.stdout
    assert str(tmp_path / "lr[/old]") in done.stdout


def test_command_without_runs(tmp_path):
    done = report(f"--runs_dir={tmp_path}", f"--output_dir={tmp_path / 'o'}")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: --runs_dir={tmp_path}: holds no finished run\n"
    assert not (tmp_path / "o").exists()


def test_two_spellings_of_a_path_are_the_same_data(tmp_path, monkeypatch, rng):
    monkeypatch.chdir(tmp_path)
    x, y = rng.random((20, 8, 8, 1), np.float32), np.arange(20) % 2
    np.savez("two.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    fake(tmp_path / "runs/laptop", 99, 90, arch="mlp", dataset="two.npz")
    fake(tmp_path / "runs/laptop", 99, 80, arch="mlp", dataset="two.npz", linearized=True)
    there = {"arch": "mlp", "dataset": f"{tmp_path}/two.npz"}
    fake(tmp_path / "runs/node", 99, 30, **there, seed=1)
    fake(tmp_path / "runs/other", 99, 20, **there)  # the first one's settings
    found = collect.read(tmp_path / "runs")
    (study,) = grouping.studies(found.of("train"))
    assert [(s.model.linearized, s.seeds, s.mean("test")) for s in study.settings] == [
        (False, 2, pytest.approx(60)),
        (True, 1, pytest.approx(80)),
    ]
    assert [name.partition("/")[0] for name, _ in found.repeated] == ["other"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names of files are text")
def test_names_that_are_no_text(tmp_path):
    path = fake(tmp_path / "runs", 99, 98, dataset="digits", name=os.fsdecode(b"a\xffb"))
    fake(tmp_path / "runs", 99, 97, dataset="digits", seed=1)
    write.write(tmp_path / "runs", tmp_path / "report")
    page = (tmp_path / "report/index.html").read_text()
    assert 'href="../runs/a%FFb/"' in page
    assert "a\ufffdb" in page
    assert path.is_dir()
