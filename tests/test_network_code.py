"""The code of a user's network belongs to what a run is of."""

import json

import pytest

from ntk_tf.catalogue import code

NETWORK = """import keras
from parts.blocks import units


def build(input_shape, num_classes, width, seed):
    layers = [keras.layers.Flatten(), keras.layers.Dense(units(width), "tanh")]
    return keras.Sequential([keras.Input(input_shape), *layers, keras.layers.Dense(num_classes)])
"""
BLOCKS = "from . import sizes\n\n\ndef units(width):\n    return sizes.UNITS * width\n"


@pytest.fixture
def written(tmp_path, monkeypatch):
    """A network in a module that imports a package beside it; the folder is the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "parts").mkdir()
    (tmp_path / "netz.py").write_text(NETWORK)
    for name, text in {"__init__": "", "blocks": BLOCKS, "sizes": "UNITS = 4\n"}.items():
        (tmp_path / f"parts/{name}.py").write_text(text)
    (tmp_path / "other.py").write_text("")
    return tmp_path


@pytest.mark.parametrize(
    ("file", "old", "new", "same"),
    [
        ("netz.py", "tanh", "relu", False),
        ("netz.py", "import keras\n", "# a comment\n\nimport keras  \n", True),
        ("parts/blocks.py", "* width", "+ width", False),
        ("parts/sizes.py", "4", "5", False),
        ("parts/__init__.py", "", "import other\n", False),
        ("other.py", "", "x = 1\n", True),
    ],
)
def test_what_counts_as_another_network(written, file, old, new, same):
    before = code.fingerprint("netz:build")
    assert len(before) == 8
    path = written / file
    path.write_text(path.read_text().replace(old, new, 1))
    assert (code.fingerprint("netz:build") == before) == same


def test_code_that_is_not_known(written):
    assert code.fingerprint("keras.applications:ResNet50") is None  # its version is recorded
    assert code.fingerprint("nowhere:build") is None
    (written / "netz.py").write_text("import (\n")  # an error of its own, later
    assert code.fingerprint("netz:build")


def test_an_edited_network_is_another_run(written, program):
    flags = ["--arch=netz:build", "--dataset=digits", "--train_examples=40", "--epochs=1"]
    assert program("main", *flags)[0] == 0
    (first,) = (written / "runs").iterdir()
    recorded = json.loads((first / "config.json").read_text())
    assert recorded["network_code"] == code.fingerprint("netz:build")
    path = written / "netz.py"
    path.write_text(NETWORK.replace("tanh", "relu"))
    exit_code, _, errors = program("main", *flags, f"--workdir={first}")
    assert exit_code == 2
    assert "holds a run with other settings (network_code is" in errors[-1]
    rank = ["--experiment=rank", "--arch=netz:build", "--dataset=digits", "--examples=5"]
    exit_code, _, errors = program("main", *rank, f"--from_run={first}", "--workdir=ranks")
    assert exit_code == 2
    assert f"has network_code={recorded['network_code']}" in errors[-1]
    assert program("main", *flags, "--dry_run")[0] == 0
    # An earlier version's run did not record it, and goes on.
    recorded.pop("network_code")
    (first / "config.json").write_text(json.dumps(recorded))
    assert program("main", *flags, f"--workdir={first}")[0] == 0
