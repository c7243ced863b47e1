"""What a setting, an architecture, a dataset and an experiment take: docs/extending.md, followed.

The document's blocks are applied to a copy of the package, which is then used by its command line.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from helpers import QUICK, in_process
from sklearn.datasets import load_digits

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOCUMENT = (ROOT / "docs" / "extending.md").read_text()
RECIPES = {
    section.partition("\n")[0].split()[-1]: section for section in DOCUMENT.split("\n## ")[1:]
}
#: New files and changed lines that each recipe may have: a setting also has its use.
COST = {"setting": (0, 2), "architecture": (1, 1), "dataset": (1, 1), "experiment": (2, 1)}


def blocks(recipe, language):
    """The code blocks of a recipe: file, and what follows its name."""
    found = re.findall(rf"```{language}\n ?# (\S+)\n(.*?)```", RECIPES[recipe], re.DOTALL)
    return [(pathlib.Path(name), content) for name, content in found]


def side(diff, sign):
    """The lines of a diff before (`-`) or after (`+`) it."""
    return "".join(line[1:] for line in diff.splitlines(True) if line[0] in f" {sign}")


def follow(recipe, folder):
    """Do what a recipe says in a copy of the package."""
    for name, content in blocks(recipe, "python"):
        assert not (folder / name).exists()
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    for name, diff in blocks(recipe, "diff"):
        text, before = (folder / name).read_text(), side(diff, "-")
        assert text.count(before) == 1, f"{name} has changed: mend docs/extending.md\n{before}"
        (folder / name).write_text(text.replace(before, side(diff, "+")))


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """Folder of a copy of the package in which all recipes are followed."""
    folder = tmp_path_factory.mktemp("grown")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "ntk_tf", folder / "ntk_tf", ignore=ignored)
    for recipe in RECIPES:
        follow(recipe, folder)
    return folder


def python(folder, *args, code=0):
    """What the copy prints, on standard error where it fails as it should."""
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, *args],
        **{"cwd": folder, "env": environment, "capture_output": True, "text": True},
        timeout=300,
    )
    assert done.returncode == code, done.stderr
    printed, empty = (done.stderr, done.stdout) if code else (done.stdout, done.stderr)
    assert not empty
    return printed


def call(folder, *args, module="main", code=0):
    return python(folder, "-m", f"ntk_tf.{module}", *args, code=code)


def described_and_run(folder, *args):
    """What a run prints with `--dry_run` and without, in one process to save time."""
    code = """if True:
        import sys
        from ntk_tf.main import main
        arguments = sys.argv
        for more in (["--dry_run"], []):
            sys.argv = [*arguments, *more]
            main()
            print("#")
    """
    return python(folder, "-c", code, *args).split("#\n")[:2]


@pytest.mark.parametrize("recipe", COST)
def test_what_it_takes(recipe):
    assert list(RECIPES) == list(COST)
    files = len(blocks(recipe, "python"))
    added = [
        line for _, diff in blocks(recipe, "diff") for line in diff.split("\n") if line[:1] == "+"
    ]
    assert (files, len(added)) == COST[recipe]


def test_recipes_pass_the_linter(grown):
    names = [
        grown / name
        for recipe in RECIPES
        for kind in ("python", "diff")
        for name, _ in blocks(recipe, kind)
    ]
    config = f"--config={ROOT / 'pyproject.toml'}"
    for command in (["check"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *command, config, "--no-cache", *map(str, names)]
        done = subprocess.run(ruff, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


FLAGS = ("--experiment=train", "--arch=tiny", "--dataset=stripes", "--arch_args=kernel_size=2")


def test_help(grown):
    text = call(grown, "--help")
    assert re.search(r"--experiment=NAME\n(?s:.{1,300}),\s+majority", text)
    assert re.search(r"--arch=NAME\n[^-]*tiny", text)
    assert re.search(r"--dataset=NAME\n[^-]*stripes", text)
    assert re.search(r"--top_k=N\n +outputs that may hold.*\[train,\s+trajectory\]", text)


def test_a_run_with_a_new_setting_architecture_and_dataset(grown):
    flags = (*FLAGS, "--epochs=2", "--top_k=2", "--seed=3")
    name = "tiny_x1_stripes_seed3_epochs2_top_k2_kernel_size2"
    shown, printed = described_and_run(grown, *flags)
    parameters = (2 * 2 * 4 + 4) + (7 * 7 * 4 * 2 + 2)
    for line in (r"top_k +2", r"input +8x8x1", r"data +embedded", rf"parameters +{parameters}"):
        assert re.search(rf"^{line}$", shown, re.MULTILINE)
    assert printed.endswith(f"run directory runs/{name}\n")
    # The label is always among the two largest of two outputs.
    assert "train accuracy 100.00%  test accuracy 100.00%  (4 updates" in printed
    settings = json.loads((grown / "runs" / name / "config.json").read_text())
    found = {key: settings[key] for key in ("arch", "dataset", "top_k", "arch_args")}
    assert found == {"arch": "tiny", "dataset": "stripes", "top_k": 2, "arch_args": "kernel_size=2"}


def test_a_new_experiment(grown):
    flags = ("--experiment=majority", "--dataset=digits", "--train_examples=100")
    shown, printed = described_and_run(grown, *flags)
    assert re.search(r"^experiment +majority\n", shown)
    name = "majority_digits_for_lenet_train_examples100"
    assert printed.endswith(f"run directory runs/{name}\n")
    labels = load_digits().target
    counts = np.bincount(labels[:100])
    expected = 100 * counts.max() / 100, 100 * np.mean(labels[-360:] == counts.argmax())
    line = "train accuracy {:.2f}%  test accuracy {:.2f}%".format(*expected)
    assert line in printed
    assert line in call(grown, *flags)  # a finished run is not redone


def test_sweeps_take_all_of_them(grown):
    """Without TensorFlow: only the command lines."""
    lines = call(grown, *FLAGS[1:], "--top_k=2", "--widths=1,2", "--emit_commands", module="sweep")
    assert len(lines.splitlines()) == 4
    assert all("--arch=tiny" in line and "--top_k=2" in line for line in lines.splitlines())
    assert "stripes" in call(grown, "--experiment=majority", "--dataset=stripes", "--dry_run")
    lines = call(grown, "--experiment=majority", "--emit_commands", module="sweep")
    assert len(lines.splitlines()) == 1


def test_runs_of_before_go_on(grown, tmp_path):
    """A run directory without the new setting stands for its default, and for nothing else."""
    few = {"train_examples": 32, "test_examples": 32, "max_steps": 1}
    done = in_process(tmp_path, **few)
    flags = [f"--{name}={value}" for name, value in (QUICK | few).items()]
    flags.append(f"--workdir={tmp_path}")
    accuracy = f"train accuracy {done['train_accuracy']:.2%}"
    assert accuracy in call(grown, *flags)
    error = call(grown, *flags, "--top_k=2", code=2)
    assert "other settings (top_k is 1 there and 2 here)" in error
