"""README and the documentation say what the code does."""

import pathlib
import re
import subprocess
import sys

import flags_table
import numpy as np
import pytest

from ntk_tf import cli

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("flags/*"))]
#: Of commands whose data or programs are not at hand.
ABSENT = ("pictures/", ".npz", "tfds:", "weights=", "=S", "=W", "IMAGENET", "...")


def commands(path):
    """Lines `python -m ntk_tf.PROGRAM FLAGS` of a page: in blocks, comments and tables."""
    text = re.sub(r"\\\n[#\s]*", " ", path.read_text())
    form = r"^(?:[# ]+|.*\| `)python -m ntk_tf\.(main|sweep|report) ([^`#|\n]+)"
    return [(name, line.strip()) for name, line in re.findall(form, text, re.MULTILINE)]


def test_table_of_flags_is_up_to_date():
    """`make format` writes it."""
    page = (ROOT / "docs/flags.md").read_text()
    assert flags_table.with_table(page) == page
    assert page.count("\n| `--") > 40


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_commands_parse(path, monkeypatch):
    """A bad flag or value is an error."""
    monkeypatch.chdir(ROOT)
    programs = {"main": cli.parse, "sweep": cli.parse_sweep, "report": cli.parse_report}
    for program, line in commands(path):
        if not any(word in line for word in ABSENT):
            programs[program]([program, *re.sub(r'"[^"]*"', "X", line).split()])


@pytest.mark.parametrize("name", ["README.md", "docs/index.md", "docs/own.md"])
def test_python_of_the_pages_runs(name, rng, tmp_path, monkeypatch):
    """What they do not define is x, 20 vectors of 8 numbers, and y, one-hot labels of 3 classes."""
    monkeypatch.chdir(tmp_path)  # they save a model
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)
    names = {"x": rng.normal(size=(20, 8)).astype("float32"), "y": np.eye(3)[np.arange(20) % 3]}
    assert blocks
    for block in blocks:
        exec(block.replace("epochs=10", "epochs=1, verbose=0"), names)
    if "build" in names:
        assert names["build"]((8, 8, 1), 10, width=2, seed=0, depth=2).output_shape == (None, 10)
    if "theta" in names:
        assert names["theta"].shape == (20, 3, 20, 3)


def test_documentation_builds_strictly(tmp_path):
    """`make docs`, where what it needs is installed."""
    for module in ("mkdocs", "material", "mkdocstrings", "latex2mathml"):
        pytest.importorskip(module, reason="pip install -e '.[docs]' brings what the site needs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path]
    assert subprocess.run(command, cwd=ROOT).returncode == 0


def test_there_are_commands_to_parse():
    assert len(commands(ROOT / "README.md")) >= 12
    assert sum(len(commands(path)) for path in PAGES) > 40


def test_links_between_files_lead_somewhere():
    if not (ROOT / "results").is_dir():
        pytest.skip("a source distribution has no results/, to which README.md links")
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "results/README.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_reports_of_flagfiles_are_what_a_sweep_proposes():
    """`runs/NAME` goes to `report/NAME`, and the folder is that of a sweep's runs."""
    for path in ROOT.glob("flags/*.flags"):
        text = path.read_text()
        written = set(re.findall(r"^--runs_dir=(.*)$", text, re.MULTILINE))
        for name, line in commands(path):
            if name == "sweep":
                written |= set(re.findall(r"--runs_dir=(\S+)", line))
        for name, line in commands(path):
            if name == "report":
                runs_dir, output_dir = cli.parse_report(["report", *line.split()])
                assert str(runs_dir) in written
                assert output_dir == pathlib.Path("report") / runs_dir.name
