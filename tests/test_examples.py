"""The programs in `examples/` run, and what they print is so."""

import json
import pathlib
import re
import runpy
import shlex
import shutil
import sys

import keras
import numpy as np
import pytest
from references import dense_jacobian, flat

EXAMPLES = pathlib.Path(__file__).resolve().parent.parent / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.iterdir()), ids=lambda path: path.name)
def test_they_are_short(path):
    assert path.suffix == ".py"
    assert len(path.read_text().splitlines()) < 40


def test_own_network(tmp_path, monkeypatch, program):
    """The commands of its documentation."""
    shutil.copy(EXAMPLES / "own_network.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    documented = re.findall(r"^    python (.*)", (EXAMPLES / "own_network.py").read_text(), re.M)
    make, *commands = map(shlex.split, documented)
    runpy.run_path(*make, run_name="__main__")
    assert [name for _, name, *_ in commands] == ["ntk_tf.main", "ntk_tf.main", "ntk_tf.report"]
    for _, name, *flags in commands:
        flags = [flag.replace("--epochs=10", "--epochs=2") for flag in flags]
        code, printed, errors = program(name.removeprefix("ntk_tf."), *flags)
        assert (code, errors) == (0, [])
    del sys.modules["own_network"]
    shown = " ".join(printed)
    results = list(pathlib.Path("runs").glob("*/result.json"))
    assert len(results) == 2
    for path in results:
        result = json.loads(path.read_text())
        train, test = (f"{100 * result[f'{split}_accuracy']:.1f}" for split in ("train", "test"))
        assert re.search(rf" {train} +{test} ", shown), shown


def test_kernel(capsys):
    found = runpy.run_path(str(EXAMPLES / "kernel.py"))
    printed = capsys.readouterr().out
    model, x, y, theta = (found[name] for name in ("model", "x", "y", "theta"))
    jacobian = dense_jacobian(model, x[:4]).astype(np.float64)
    expected = jacobian @ jacobian.T
    np.testing.assert_allclose(theta[:4, :, :4].reshape(40, 40), expected, atol=1e-4)
    theta = theta.reshape(1000, 1000)
    values = np.sqrt(np.linalg.eigvalsh(theta))
    p = values / values.sum()
    assert f"effective rank {np.exp(-p @ np.log(p)):.0f} of 1000\n" in printed
    np.testing.assert_allclose(found["solution"].fitted, np.eye(10)[y[:100]], atol=1e-2)
    accuracy = np.mean(found["outputs"].argmax(1) == y[-100:])
    assert f"trained to the end: {accuracy:.0%}\n" in printed


def test_linearized(capsys):
    found = runpy.run_path(str(EXAMPLES / "linearized.py"))
    linear, x, y = found["models"]["linearization"], found["x"][-360:], found["y"][-360:]
    assert linear.base.get_weights()[0] == pytest.approx(found["network"]().get_weights()[0])
    u = flat(linear.trainable_weights)
    part = slice(4)
    expected = linear.base.predict(x[part], verbose=0)
    expected = expected + (dense_jacobian(linear.base, x[part]) @ u).reshape(expected.shape)
    np.testing.assert_allclose(linear.predict(x[part], verbose=0), expected, atol=1e-5)
    answers = linear.predict(x, verbose=0)
    printed = capsys.readouterr().out
    accuracy = np.mean(answers.argmax(1) == y.argmax(1))
    assert (
        f"linearization: test loss {np.mean((answers - y) ** 2):.4f}, accuracy {accuracy:.1%}\n"
        in printed
    )
    assert accuracy > 0.8
    assert isinstance(found["models"]["network"], keras.Model)
