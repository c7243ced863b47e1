"""What a result says of where it comes from and of its time; names of earlier versions."""

import json
import platform
import subprocess
import time

import pytest
from helpers import in_process
from rich.console import Console

import ntk_tf
from ntk_tf import runs
from ntk_tf.experiments.rank import figure
from ntk_tf.process import devices
from ntk_tf.runs.provenance import commit, commit_at_work


def git(folder, *args):
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    done = subprocess.run(["git", *who, *args], cwd=folder, check=True, capture_output=True)
    return done.stdout.decode().strip()


def test_commit_of_a_checkout_and_of_none(tmp_path):
    assert commit(tmp_path) is None
    git(tmp_path, "init", "-q")
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-qm", "a")
    git(tmp_path, "tag", "v9")  # a tag shall not stand for the commit
    head = git(tmp_path, "rev-parse", "HEAD")
    assert commit(tmp_path) == head
    (tmp_path / "a").write_text("2")
    assert commit(tmp_path) == f"{head}-dirty"
    (tmp_path / "inside").mkdir()  # an installation inside somebody's own checkout
    assert commit(tmp_path / "inside") is None


def test_the_commit_is_that_of_the_start(tmp_path, monkeypatch):
    checkout = tmp_path / "checkout"
    (checkout / "ntk_tf").mkdir(parents=True)
    (checkout / "ntk_tf/__init__.py").touch()
    git(checkout, "init", "-q")
    git(checkout, "add", ".")
    git(checkout, "commit", "-qm", "a")
    head = git(checkout, "rev-parse", "HEAD")
    monkeypatch.setattr(ntk_tf, "__file__", str(checkout / "ntk_tf/__init__.py"))
    commit_at_work.cache_clear()
    try:
        runs.open_workdir(tmp_path / "run", {}, resume=True)
        (checkout / "ntk_tf/__init__.py").write_text("edited")
        assert runs.provenance()["provenance"]["commit"] == head
    finally:
        commit_at_work.cache_clear()


def test_result_names_where_it_comes_from_and_its_parts_make_its_time(tmp_path):
    began = time.monotonic()
    in_process(tmp_path / "run", epochs=2)
    took = time.monotonic() - began
    result = json.loads((tmp_path / "run/result.json").read_text())
    made = result["provenance"]
    assert made["host"] == platform.node()
    assert made["device"].startswith(("CPU ", "GPU "))
    assert made["command"].startswith("python ")
    parts = result["seconds_in"]
    assert parts.keys() == {"start", "training", "evaluation"}
    assert all(seconds > 0 for seconds in parts.values())
    assert 0.8 * result["seconds"] < sum(parts.values()) <= result["seconds"] + 0.01
    assert result["seconds"] <= took + 0.01


@pytest.mark.parametrize(
    ("driver", "listed", "cuda", "said"),
    [
        (False, ("0",), True, ""),
        (True, (), True, ""),
        (True, ("0",), True, "make install CUDA=1"),
        (True, ("0",), False, "built without CUDA"),
    ],
)
def test_a_gpu_that_tensorflow_does_not_use_is_a_line(monkeypatch, driver, listed, cuda, said):
    import tensorflow as tf

    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    monkeypatch.setattr(tf.test, "is_built_with_cuda", lambda: cuda)
    monkeypatch.setattr(devices, "has_driver", lambda: driver)
    monkeypatch.setattr(devices, "gpus", lambda: listed)
    line = devices.idle_gpus()
    assert said in line
    assert bool(line) == bool(said)
    assert "\n" not in line


def test_condition_of_an_earlier_version_is_read(tmp_path):
    """`condition` was that of the singular values."""
    content = {"width": 1, "effective_rank": 2.0, "rows": 3, "seed": 0, "condition": 7.0}
    for width in (1, 2):
        (tmp_path / f"x{width}").mkdir()
        runs.write_json(tmp_path / f"x{width}" / "rank.json", content | {"width": width})
    figure.draw([tmp_path / "x1", tmp_path / "x2"], tmp_path)
    header, *rows = (tmp_path / "effective_rank.csv").read_text().splitlines()
    place = header.split(",").index("condition_of_singular_values")
    assert [row.split(",")[place] for row in rows] == ["7.0", "7.0"]
    runs.write_json(tmp_path / "result.json", content | {"status": "completed"})
    assert runs.read_result(tmp_path)["condition_of_singular_values"] == 7.0


def test_every_run_prints_its_device_on_one_line(tmp_path, capsys):
    from ntk_tf.experiments import EXPERIMENTS
    from ntk_tf.experiments.resolving import resolve
    from ntk_tf.settings import Options

    config = resolve(experiment="baseline", dataset="digits", max_steps=2)
    EXPERIMENTS["baseline"].run(config, Options(tmp_path / "run"), Console())
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("device: ")]
    assert lines == [f"device: {devices.describe()}"]
