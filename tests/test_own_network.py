"""From a bare folder: a network and data of the user's own, in every program's command line."""

import json
import pathlib
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
from helpers import final_arrays, in_process, interrupted, metrics

from ntk_tf.catalogue import code as code_of_networks
from ntk_tf.experiments import network
from ntk_tf.experiments.resolving import resolve

NETWORKS = """
import keras
from keras import layers as k


def cnn(input_shape, num_classes, width, seed):
    inputs = keras.Input(input_shape)
    x = k.Conv2D(4 * width, 3, padding="same", activation="relu")(inputs)
    y = k.BatchNormalization()(k.Conv2D(4 * width, 3, padding="same")(x))
    x = k.GlobalAveragePooling2D()(k.ReLU()(k.Add()([x, y])))
    return keras.Model(inputs, k.Dense(num_classes)(x))


def mlp(input_shape, num_classes, width, seed, depth=1, activation="relu"):
    hidden = [k.Dense(5 * width, activation) for _ in range(depth)]
    return keras.Sequential([keras.Input(input_shape), k.Flatten(), *hidden, k.Dense(num_classes)])


def ten_outputs(input_shape, num_classes, width, seed):
    return mlp(input_shape, 10, width, seed)


def large_inputs(input_shape, num_classes, width, seed):
    return mlp((32, 32, 3), num_classes, width, seed)


class Subclass(keras.Model):
    def __init__(self, outputs):
        super().__init__()
        self.inner, self.outer = k.Flatten(), k.Dense(outputs)

    def call(self, x):
        return self.outer(self.inner(x))


def subclass(input_shape, num_classes, width, seed):
    model = Subclass(num_classes)
    model(keras.ops.zeros((1, *input_shape)))
    return model


def single(input_shape, num_classes, width, seed):
    dense = k.Dense(num_classes, dtype="float32")
    return keras.Sequential([keras.Input(input_shape), k.Flatten(), dense])


def fails(input_shape, num_classes, width, seed):
    return {}["depth"]


def odd(input_shape, num_classes, width, seed):
    return mlp(input_shape, num_classes, width, seed) if width % 2 else fails(None, 0, 0, 0)
"""
#: Parameters of `cnn` at width 1 for 7 classes of pictures in colour.
PARAMETERS = (27 * 4 + 4) + (36 * 4 + 4) + 2 * 4 + (4 * 7 + 7)
PICTURES = ("--arch=ownnets:cnn", "--dataset=pictures.npz")


class Trap:
    """Leaves a file behind where it is unpickled."""

    def __reduce__(self):
        return pathlib.Path.touch, (pathlib.Path("unpickled"),)


def pictures():
    """500 noisy pictures of 20x20x3, each class of a colour of its own."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(500) % 7)
    colours = rng.integers(0, 256, (7, 1, 1, 3))
    noise = rng.integers(0, 256, (500, 20, 20, 3))
    x = ((colours[labels] + noise) // 2).astype(np.uint8)
    return {"x_train": x[:400], "y_train": labels[:400], "x_test": x[400:], "y_test": labels[400:]}


def changed(content, **functions):
    return content | {name: function(content[name]) for name, function in functions.items()}


def of_pictures(content, function):
    return changed(content, x_train=function, x_test=function)


def with_nan(x):
    x = x.copy()
    x[3, 4, 5, 1] = np.nan
    return x


def variants():
    """Files by name: those that can be used, and those that cannot."""
    good = pictures()
    floats = of_pictures(good, lambda x: (x / 255).astype(np.float32))
    return {
        "pictures": good,
        "floats": floats,
        "grey": of_pictures(good, lambda x: x[..., 1]),
        "vectors": of_pictures(floats, lambda x: x[:, ::9, ::9].reshape(len(x), -1)),
        "nan": changed(floats, x_test=with_nan),
        "foreign": changed(good, y_test=lambda y: y + 1),
        "objects": changed(good, y_train=lambda y: np.array([Trap()] * len(y))),
        "empty": changed(good, x_test=lambda x: x[:0], y_test=lambda y: y[:0]),
        "none_train": changed(good, x_train=lambda x: x[:0], y_train=lambda y: y[:0]),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with nothing in it but a module and files of pictures."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "ownnets.py").write_text(NETWORKS)
    for name, content in variants().items():
        np.savez(folder / f"{name}.npz", **content)
    yield folder
    sys.modules.pop("ownnets", None)  # what is refused early never imports it


@pytest.fixture
def call(folder, monkeypatch, program):
    """`program`, in that folder."""
    monkeypatch.chdir(folder)
    return program


def content(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def read(path):
    return json.loads(path.read_text())


# What works.


def test_every_program_with_one_command_each(call, folder):
    """Train both models, a trajectory, a rank, a sweep of four runs that finds two, the report."""
    own = f"ownnets.cnn-{code_of_networks.fingerprint('ownnets:cnn')}"
    words = f"x1_pictures-{_fingerprint(folder)}_seed0"
    for name, flags in {"cnn": (), "lincnn": ("--linearized",)}.items():
        code, printed, errors = call("main", *PICTURES, "--epochs=1", *flags)
        workdir = f"runs/{name.replace('cnn', own)}_{words}_epochs1"
        assert (code, errors, printed[-1]) == (0, [], f"run directory {workdir}")
        result = read(folder / workdir / "result.json")
        assert (result["status"], result["parameters"]) == ("completed", PARAMETERS)
        assert printed[-2].startswith(f"train accuracy {result['train_accuracy']:.2%}  test")
    settings = read(folder / workdir / "config.json")
    assert settings["data"]["shape"] == [20, 20, 3]
    assert settings["data"]["classes"] == 7

    flags = ("--experiment=rank", "--examples=30", "--kernel_regression")
    code, printed, errors = call("main", *PICTURES, *flags)
    workdir = folder / f"runs/rank_{own}_{words}_examples30_kernel_regressionTrue"
    assert (code, errors) == (0, [])
    assert printed[-2].startswith("effective rank ")
    assert (
        "of 210  linearization: train accuracy 100.00%" in printed[-2]
    )  # the regression fits 30 pictures
    assert len(np.load(workdir / "spectrum.npz")["singular_values"]) == 210

    flags = ("--experiment=trajectory", "--width=2", "--max_steps=2")
    code, printed, errors = call("main", *PICTURES, *flags)
    workdir = folder / f"runs/trajectory_{own}_{words.replace('x1', 'x2')}_max_steps2"
    assert (code, errors) == (0, [])
    with np.load(workdir / "trajectories.npz") as arrays:
        assert arrays["standard"].shape == arrays["linearized"].shape == (3, 3, 7)

    code, printed, errors = call("sweep", *PICTURES, "--epochs=1", "--widths=1,2", "--jobs=1")
    assert (code, errors) == (0, [])
    assert printed[-2:] == [
        "4 runs: 4 done, 2 of them before",
        "tables and figures: python -m ntk_tf.report --runs_dir=runs --output_dir=report/runs",
    ]
    assert sum(line.startswith("done ") for line in printed) == 2  # the others were there
    code, printed, errors = call("report", "--output_dir=report")
    assert (code, errors, printed[-1]) == (0, [], "report in report/index.html")
    assert any("4 of 4 rows have runs of ours" in line for line in printed)
    assert "pictures.npz" in (folder / "report" / "index.html").read_text()


def test_trajectory_of_a_subclassed_model(call):
    flags = ("--experiment=trajectory", "--max_steps=1", "--workdir=subclassed")
    code, _, errors = call("main", "--arch=ownnets:subclass", PICTURES[1], *flags)
    assert (code, errors) == (0, [])


def test_layers_of_another_precision_are_refused(call):
    flags = ("--centered", "--alpha=1e6", "--epochs=1", "--workdir=single")
    code, _, errors = call("main", "--arch=ownnets:single", PICTURES[1], *flags)
    assert (code, len(errors)) == (2, 1)
    assert "--precision=float64: dense of ownnets:single computes in float32" in errors[0]


def _fingerprint(folder):
    from ntk_tf import data

    return data.card(str(folder / "pictures.npz")).fingerprint


@pytest.mark.parametrize(
    ("arch", "file", "flags", "shape"),
    [
        ("mlp", "vectors", ("--linearized",), "27"),
        ("mlp", "vectors", ("--experiment=rank", "--examples=20"), "27"),
        ("mlp", "grey", ("--normalization=unit", "--padding=1"), "22x22x1"),
        ("cnn", "grey", ("--image_size=12", "--augment=flip_crop"), "12x12x1"),
        ("cnn", "floats", ("--normalization=half", "--linearized"), "20x20x3"),
    ],
)
def test_vectors_and_grey_and_float_pictures(call, folder, arch, file, flags, shape):
    flags = (f"--arch=ownnets:{arch}", f"--dataset={file}.npz", *flags)
    if "--experiment=rank" not in flags:
        flags += ("--max_steps=2",)
    before = content(folder)
    code, printed, errors = call("main", *flags, "--dry_run")
    assert (code, errors) == (0, [])
    shown = dict(line.split(maxsplit=1) for line in printed)
    assert (shown["data"], shown["input"], shown["classes"]) == ("file", shape, "7")
    assert content(folder) == before
    code, printed, errors = call("main", *flags)
    assert (code, errors) == (0, [])
    result = read(pathlib.Path(printed[-1].removeprefix("run directory ")) / "result.json")
    assert result["status"] == "completed"
    if "parameters" in result:
        assert f"{result['parameters']:,}" == shown["parameters"]


def test_arguments_of_the_function(call):
    flags = ("--arch=ownnets:mlp", "--dataset=vectors.npz", "--max_steps=1", "--width=2")
    code, printed, _ = call("main", *flags, "--arch_args=depth=2,activation=tanh")
    name = printed[-1].removeprefix("run directory runs/")
    assert code == 0
    assert name.endswith("_max_steps1_depth2,activationtanh")
    result = read(pathlib.Path("runs") / name / "result.json")
    assert result["parameters"] == (27 * 10 + 10) + (10 * 10 + 10) + (10 * 7 + 7)


def test_weights_of_a_run_with_moving_statistics(call, folder, tmp_path):
    """At a learning rate of almost 0 the linearization at a trained network is that network."""
    flags = (*PICTURES, "--batch_size=8", f"--workdir={tmp_path / 'run'}")
    assert call("main", *flags, "--max_steps=40")[0] == 0
    trained = read(tmp_path / "run" / "result.json")
    flags = (*PICTURES, "--linearized", "--learning_rate=1e-12", "--max_steps=1")
    flags += (f"--from_run={tmp_path / 'run'}", f"--workdir={tmp_path / 'linearized'}")
    assert call("main", *flags)[0] == 0
    linearized = read(tmp_path / "linearized" / "result.json")
    for name in ("train_accuracy", "test_accuracy"):
        assert linearized[name] == trained[name]
    assert linearized["test_loss"] == pytest.approx(trained["test_loss"], rel=1e-5)
    # The statistics have moved, and the network evaluates with them, by NumPy's count.
    model, step = network.build(
        resolve(arch="ownnets:cnn", dataset="pictures.npz", from_run=str(tmp_path / "run"))
    )
    moving = next(w for w in model.weights if w.path.endswith("moving_mean"))
    assert step == 40
    assert np.abs(moving.numpy()).max() > 0
    given = pictures()
    mean, std = (f(given["x_train"] / 255, axis=(0, 1, 2)) for f in (np.mean, np.std))
    answers = model.predict((given["x_test"] / 255 - mean) / std, verbose=0).argmax(1)
    assert np.mean(answers == given["y_test"]) == pytest.approx(trained["test_accuracy"])


def test_an_interrupted_run_goes_on(call, tmp_path):
    settings = {"arch": "ownnets:cnn", "dataset": "pictures.npz", "train_examples": 96, "epochs": 3}
    settings |= {"arch_args": None, "image_size": None}
    whole = in_process(tmp_path / "whole", **settings)
    with pytest.MonkeyPatch.context() as patch:
        interrupted(tmp_path / "again", 4, patch, **settings)
    again = in_process(tmp_path / "again", **settings)
    assert whole["steps"] == again["steps"] == 9
    assert metrics(tmp_path / "again") == metrics(tmp_path / "whole")
    arrays = final_arrays(tmp_path / "again")
    for name, expected in final_arrays(tmp_path / "whole").items():
        np.testing.assert_array_equal(arrays[name], expected)
    assert any(name.endswith("moving_variance") for name in arrays)


def test_other_data_under_the_same_name(call, folder):
    """A run does not go on with another file, and by default has a folder for each."""
    flags = ("--arch=ownnets:cnn", "--dataset=mine.npz", "--max_steps=1")
    np.savez(folder / "mine.npz", **pictures())
    assert call("main", *flags, "--workdir=mine")[0] == 0
    first = call("main", *flags)[1][-1]
    np.savez(folder / "mine.npz", **changed(pictures(), x_train=lambda x: 255 - x))
    before = content(folder)
    code, printed, errors = call("main", *flags, "--workdir=mine")
    assert (code, printed, len(errors), content(folder)) == (2, [], 1, before)
    assert errors[0].startswith("error: --workdir=mine: holds a run with other settings (data is ")
    assert call("main", *flags)[1][-1] != first


def test_the_same_data_by_another_path(call, folder):
    """A finished run is found, and its weights serve another experiment."""
    flags = ("--arch=ownnets:cnn", "--max_steps=1")
    np.savez(folder / "mine.npz", **pictures())
    assert call("main", *flags, "--dataset=mine.npz", "--workdir=mine")[0] == 0
    for path in ("./mine.npz", str(folder / "mine.npz")):
        code, printed, _ = call("main", *flags, f"--dataset={path}", "--workdir=mine")
        assert (code, printed[0]) == (0, "finished earlier; --noresume starts anew")
    rank = ("--arch=ownnets:cnn", "--experiment=rank", "--examples=4", "--from_run=mine")
    assert call("main", *rank, "--dataset=./mine.npz", "--workdir=rank")[0] == 0


def test_a_sweep_goes_on_beside_a_network_that_cannot_be_built(call, folder):
    """The same command again does not refuse the others because of the one that failed."""
    flags = ["--arch=ownnets:odd", "--dataset=vectors.npz", "--max_steps=1", "--models=standard"]
    for before in ("", ", 1 of them before"):
        code, printed, _ = call("sweep", *flags, "--widths=1,2", "--runs_dir=odd")
        assert code == 1
        counts = [line for line in printed if re.match(r"\d runs: ", line)]
        assert counts[-1] == f"2 runs: 1 done, 1 failed{before}"


@pytest.mark.parametrize("name", ["main", "sweep"])
def test_weights_that_are_not_there_are_refused_before_anything_runs(name, call, folder):
    before = content(folder)
    flags = ("--arch=ownnets:cnn", "--dataset=pictures.npz", "--from_run=nosuch")
    for more in ([], ["--dry_run"]):
        code, printed, errors = call(name, *flags, *more)
        assert (code, printed, content(folder)) == (2, [], before)
        assert errors[0].startswith("error: --from_run=nosuch: must be a directory of --experiment")


def test_logistic_regression_of_pictures_too_small_for_the_default_network(call, folder):
    small = {"x_train": lambda x: x[:, :8, :8], "x_test": lambda x: x[:, :8, :8]}
    np.savez(folder / "small.npz", **changed(pictures(), **small))
    assert call("main", "--experiment=baseline", "--dataset=small.npz")[0] == 0


# What is refused.

NETWORK_CASES = {
    "nosuch:cnn": "--arch=nosuch:cnn: there is no module nosuch in {folder} or on Python's path",
    "ownnets:nosuch": "--arch=ownnets:nosuch: {folder}/ownnets.py has no function nosuch",
    "builtins:dict": "--arch=builtins:dict: must be a function whose arguments Python can tell",
    "ownnets:fails": "--arch=ownnets:fails: it raised KeyError: 'depth' at {folder}/ownnets.py:",
    "ownnets:ten_outputs": (
        "--arch=ownnets:ten_outputs: its model outputs [b, 10]; must be [b, 7], as the data has 7"
        " classes"
    ),
    "ownnets:large_inputs": (
        "--arch=ownnets:large_inputs: its model takes inputs [b, 32, 32, 3], and the data has"
        " [b, 20, 20, 3]"
    ),
    "ownnets.cnn": "--arch=ownnets.cnn: must be one of lenet, ",
}
EVERYWHERE = {
    "train": (),
    "linearized": ("--linearized",),
    "trajectory": ("--experiment=trajectory",),
    "rank": ("--experiment=rank", "--examples=9"),
    "dry run": ("--dry_run",),
}


def refused(call, folder, *args, program="main"):
    """The one line that a command is answered with, which writes nothing."""
    before = content(folder)
    code, printed, errors = call(program, *args)
    assert (code, printed, len(errors)) == (2, [], 1), (code, printed, errors)
    assert content(folder) == before
    return errors[0]


@pytest.mark.parametrize("where", EVERYWHERE)
@pytest.mark.parametrize("arch", NETWORK_CASES)
def test_networks_that_are_refused(call, folder, arch, where):
    flags = (f"--arch={arch}", "--dataset=pictures.npz", *EVERYWHERE[where])
    expected = NETWORK_CASES[arch].format(folder=folder)
    assert refused(call, folder, *flags).startswith(f"error: {expected}")


def test_a_sweep_refuses_before_its_first_run(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    before = content(folder)
    flags = ("--arch=ownnets:large_inputs", "--dataset=digits", "--widths=1,2", "--epochs=1")
    command = [sys.executable, "-m", "ntk_tf.sweep", *flags]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch("error: --arch=ownnets:large_inputs: its model takes .*\n", done.stderr)
    assert content(folder) == before


def test_a_network_or_data_that_has_changed_does_not_run_under_the_old_name(call, folder):
    """What a sweep starts later, by whatever means, is what it has listed."""
    flags = ("--arch=ownnets:mlp", "--dataset=vectors.npz", "--models=standard", "--epochs=1")
    code, (line,), _ = call("sweep", *flags, "--emit_commands")
    assert code == 0
    command = shlex.split(line)[3:]
    (mark,) = (part for part in command if part.startswith("--fingerprint="))
    assert call("main", *command, "--dry_run")[0] == 0
    stem, _, data = mark.removeprefix("--fingerprint=").partition("-")
    for other in (f"{stem}-00000000", f"00000000-{data}"):
        changed = [part.replace(mark, f"--fingerprint={other}") for part in command]
        expected = f"error: --fingerprint={other}: the network's code or the data has been changed"
        assert refused(call, folder, *changed).startswith(expected)


FILE_CASES = {
    "foreign": "y_test has label 7, which y_train never has (its 7 labels go from 0 to 6)",
    "nan": "x_test has NaN or infinite values in 1 of 100 pictures, the first of which is number 3",
    "objects": "y_train is objects, which are never unpickled, [400]; must be integers",
    "empty": "x_test is empty; each split needs pictures",
    "none_train": "x_train is empty; each split needs pictures",
    "missing": "no such file; it must hold x_train, y_train, x_test, y_test",
}


@pytest.mark.parametrize(
    "flags",
    [(), ("--experiment=rank", "--examples=9"), ("--experiment=baseline",), ("--prepare_data",)],
    ids=str,
)
@pytest.mark.parametrize("file", FILE_CASES)
def test_files_that_are_refused(call, folder, file, flags):
    line = refused(call, folder, "--arch=ownnets:mlp", f"--dataset={file}.npz", *flags)
    assert line.startswith(f"error: --dataset={file}.npz: {FILE_CASES[file]}")
    assert not (folder / "unpickled").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("width=2", "--arch_args=width=2: width has a flag of its own"),
        ("depht=2", "--arch_args=depht=2: depht=2: the architecture ownnets:mlp takes depth, act"),
        ("depth", "--arch_args=depth: must be different name=value pairs"),
        ("depth=1,depth=2", "--arch_args=depth=1,depth=2: must be different name=value pairs"),
        ("depth=two", "--arch=ownnets:mlp: it raised TypeError: 'str' object cannot be"),
    ],
)
def test_arguments_that_are_refused(call, folder, given, message):
    flags = ("--arch=ownnets:mlp", "--dataset=vectors.npz", f"--arch_args={given}")
    assert refused(call, folder, *flags).startswith(f"error: {message}")


@pytest.mark.parametrize(
    ("arch", "flags", "message"),
    [
        ("lenet", (), "--dataset=vectors.npz: has vectors of 27 numbers; --arch=lenet takes pic"),
        ("ownnets:cnn", (), "--arch=ownnets:cnn: it raised ValueError: Input 0 "),
        ("ownnets:mlp", ("--padding=1",), "--padding=1: --dataset=vectors.npz has vectors"),
        ("ownnets:mlp", ("--image_size=9",), "--image_size=9: --dataset=vectors.npz has vectors"),
        ("ownnets:mlp", ("--train_examples=401",), "--train_examples=401: vectors.npz has 400"),
    ],
)
def test_vectors_that_are_refused(call, folder, arch, flags, message):
    line = refused(call, folder, f"--arch={arch}", "--dataset=vectors.npz", *flags)
    assert line.startswith(f"error: {message}")


def test_a_builtin_network_on_pictures_that_are_too_small(call, folder):
    np.savez(folder / "small.npz", **of_pictures(pictures(), lambda x: x[:, :8, :8]))
    line = refused(call, folder, "--arch=lenet", "--dataset=small.npz")
    assert "the input of lenet is 8 pixels wide; it must be at least 16" in line
    line = refused(call, folder, "--arch=lenet", "--dataset=small.npz", "--arch_args=kernel_size=3")
    assert "cannot be built for input_shape=(8, 8, 3)" in line
