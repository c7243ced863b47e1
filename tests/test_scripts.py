"""What scripts take from the package is there, and what those for shells call."""

import ast
import importlib
import importlib.util
import os
import pathlib
import shutil
import subprocess

import pytest

SHELL = pathlib.Path(__file__).parents[1] / "scripts"
SCRIPTS = sorted(SHELL.rglob("*.py"))


def taken(path):
    """The names that a script imports from the package, each with its module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ntk_tf"):
            yield from ((node.module, alias.name) for alias in node.names)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_imports_are_there(path):
    for module, name in taken(path):
        here = hasattr(importlib.import_module(module), name)
        assert here or importlib.util.find_spec(f"{module}.{name}"), f"{module} has no {name}"


def test_some_scripts_use_the_package():
    assert sum(bool(list(taken(path))) for path in SCRIPTS) >= 4


@pytest.fixture
def shell(tmp_path):
    """Run a shell script with programs that only note how they are called."""
    programs = {"python": 'echo "$@" | tee -a calls', "sbatch": 'echo "$@" >> calls'}
    for name, body in (programs | {"scontrol": "exit 1"}).items():
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)

    def call(name, *args, **environment):
        path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
        command = ["bash", tmp_path / "scripts" / name, *args]
        done = subprocess.run(
            command, env=os.environ | environment | {"PATH": path}, cwd=tmp_path, text=True
        )
        assert done.returncode == 0
        calls = (tmp_path / "calls").read_text().splitlines()
        (tmp_path / "calls").unlink()
        return calls

    shutil.copytree(SHELL, tmp_path / "scripts")
    return call


def test_every_figure_gets_its_data(shell):
    given = ("--jobs=2", "--data_dir=/big", "--manual_dir=/files", "--imagenet_dir=/image net")
    calls = shell("workstation.sh", *given)
    sweeps = [line for line in calls if "ntk_tf.sweep" in line]
    others = [line for line in calls if "ntk_tf.main" in line]
    assert (len(sweeps), len(others)) == (5, 3)
    assert all(" --jobs=2 --data_dir=/big --manual_dir=/files" in line for line in sweeps)
    assert all(".flags --data_dir=/big --manual_dir=/files" in line for line in others)
    for line in sweeps + others:  # of a flag that is given twice the last counts
        assert line.endswith(" --manual_dir=/image net") == ("alexnet" in line)
    without = shell("workstation.sh")
    assert sum("ntk_tf" in line for line in without) == 5  # with the report
    assert not any("alexnet" in line for line in without if "ntk_tf" in line)


def test_waiting_jobs_keep_their_commands(shell, tmp_path):
    """Two sweeps of one flagfile have files of their own, the same sweep again has the same."""
    found = [
        shell("slurm_submit.sh", "flags/smoke.flags", "--partition=p", SWEEP=f"--seeds={seed}")[-1]
        for seed in (0, 1, 0)
    ]
    assert found[0] == found[2] != found[1]
    assert sum(path.suffix == ".commands" for path in (tmp_path / "slurm").iterdir()) == 2
    for line, seed in zip(found, (0, 1, 0), strict=True):
        path = next(word for word in line.split() if word.endswith(".commands"))
        assert f"--seeds={seed} --emit_commands" in (tmp_path / path).read_text()
