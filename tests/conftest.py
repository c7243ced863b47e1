"""Shared fixtures; TensorFlow is imported once, quietly, on few threads."""

import gc
import importlib
import json
import os
import pathlib
import re
import signal
import sys
import warnings

os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # several workers share the cores

TESTS = pathlib.Path(__file__).resolve().parent
sys.path.append(str(TESTS / "tools"))

from ntk_tf.process import startup  # noqa: E402

startup.import_tensorflow()

import filelock  # noqa: E402
import keras  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import tensorflow as tf  # noqa: E402

#: Tracing makes many small objects that live: searching them for garbage took a tenth of the time.
gc.set_threshold(100_000, 20, 100)

SHARED = TESTS.parent.parent / "shared"


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _same_weights_in_every_run():
    """A model without a seed of its own is the same whichever tests ran before."""
    keras.utils.set_random_seed(0)


@pytest.fixture
def all_formats():
    """For tests of figures in every format; to draw them takes long, so others draw SVG alone."""


@pytest.fixture(autouse=True)
def _one_format(request, monkeypatch):
    if "all_formats" not in request.fixturenames:
        monkeypatch.setattr("ntk_tf.plots.FORMATS", ("svg",))


@pytest.fixture(autouse=True)
def _signals_are_handled_as_before():
    """The next test, and what it starts, gets signals that code called in this process ignores."""
    numbers = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT, signal.SIGHUP)
    handlers = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True, scope="session")
def _architectures_are_checked_once():
    """J u of an architecture of the package is checked once a process: a check traces a step."""
    from ntk_tf.catalogue.architectures import ARCHITECTURES
    from ntk_tf.linearization import check

    choose, known = check.choose, {}

    def once(trial, ways):
        if trial.base.name not in ARCHITECTURES:
            return choose(trial, ways)
        specs = [(t.shape, t.dtype) for t in tf.nest.flatten(trial.x)]
        place = type(tf.distribute.get_strategy()), len(trial.point), trial.mode, ways, str(specs)
        layers = json.dumps(trial.base.get_config(), sort_keys=True)
        key = (*place, re.sub(r"input_layer_\d+", "input_layer", layers))
        if key not in known:
            known[key] = choose(trial, ways)
        return known[key]

    check.choose = once
    yield
    check.choose = choose


@pytest.fixture
def float64():
    """Build and run models in float64."""
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx(before[0])
    keras.config.set_dtype_policy(before[1])


@pytest.fixture(scope="session")
def mnist_files():
    """Folder of the four original MNIST files."""
    folder = pathlib.Path(os.environ.get("NTK_TF_MNIST", SHARED / "data/mnist"))
    if not (folder / "train-images-idx3-ubyte.gz").exists():
        pytest.skip("the original MNIST files are not at hand; set NTK_TF_MNIST to their folder")
    return folder


@pytest.fixture(scope="session")
def snake_pictures():
    """A real picture of each of ImageNet's 17 snakes; their names begin with the synset."""
    paths = sorted((SHARED / "data/imagenet_snakes_sample").glob("*.JPEG"))
    if not paths:
        pytest.skip("the sample pictures of ImageNet's snakes are not at hand")
    return paths


@pytest.fixture(scope="session")
def cifar10_jpeg():
    """All CIFAR-10 pictures as JPEG files in one archive, `train/cat/....jpg`."""
    path = SHARED / "data/cifar10_jpeg/cifar10-jpeg.tar.xz"
    if not path.exists():
        pytest.skip("the JPEG copies of CIFAR-10 are not at hand")
    return path


@pytest.fixture(scope="session")
def mnist_data_dir(mnist_files, tmp_path_factory):
    """A TFDS folder in which MNIST has been prepared from its original files, once for all tests.

    Two processes want it at the same time from cold: one prepares it, and the other waits.
    """
    import commands

    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder, done = root / "tfds", root / "tfds.done"
    flags = ["--dataset=mnist", f"--manual_dir={mnist_files}", f"--data_dir={folder}"]
    with filelock.FileLock(root / "tfds.lock"), open(root / "tfds.errors", "w+b") as errors:
        if not done.exists():
            arguments = commands.command(*flags, "--prepare_data")
            processes = [commands.start(arguments, stderr=errors) for _ in range(2)]
            codes = [process.wait(400) for process in processes]
            errors.seek(0)
            assert codes == [0, 0], errors.read().decode()
            assert not list(folder.rglob("*incomplete*"))
            done.touch()
    return str(folder)


@pytest.fixture
def program(monkeypatch, capsys):
    """Call a program in this process: exit code, lines printed, lines of errors."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")  # for children
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)

    def call(name, *args):
        monkeypatch.setattr(sys, "argv", [name, *args])
        code = importlib.import_module(f"ntk_tf.{name}").main()
        printed = capsys.readouterr()
        return code, printed.out.splitlines(), printed.err.splitlines()

    return call
