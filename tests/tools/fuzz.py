"""Random flags and mutated files: what `crash_test.py fuzz` and the tests throw at ntk_tf.

A flag set goes through `ntk_tf.main` with `--dry_run`, in this process; a file through the function
that reads it. Whatever is wrong with them, the answer is exit code 0 or 2 and one line.
"""

import contextlib
import io
import itertools
import os
import pathlib
import shutil
import subprocess
import sys
import time
import warnings
from unittest import mock

from ntk_tf.process import startup

startup.import_tensorflow()

import keras  # noqa: E402
import numpy as np  # noqa: E402
import safetensors.numpy  # noqa: E402
import tensorflow_datasets as tfds  # noqa: E402
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from PIL import Image  # noqa: E402
from rich.console import Console  # noqa: E402

from ntk_tf import cli, data, main, models, runs  # noqa: E402
from ntk_tf.catalogue.datasets import SNAKE_SYNSETS  # noqa: E402
from ntk_tf.data import decode, source, tfds_files  # noqa: E402
from ntk_tf.data.imagenet_snakes import builder, files  # noqa: E402
from ntk_tf.experiments import EXPERIMENTS, trained_weights  # noqa: E402
from ntk_tf.experiments.pretrained import run as pretrained  # noqa: E402
from ntk_tf.experiments.pretrained import torch_weights  # noqa: E402
from ntk_tf.experiments.rank import figure as rank  # noqa: E402
from ntk_tf.experiments.resolving import all_declarations, resolve  # noqa: E402
from ntk_tf.experiments.trajectory import figure as trajectories  # noqa: E402
from ntk_tf.process import signals  # noqa: E402
from ntk_tf.reporting import collect, summary, write  # noqa: E402
from ntk_tf.runs import checkpoint  # noqa: E402
from ntk_tf.settings import Options  # noqa: E402
from ntk_tf.settings.setting import declarations  # noqa: E402
from ntk_tf.sweeps.grid import Run  # noqa: E402
from ntk_tf.sweeps.state import Entry  # noqa: E402

#: No answer takes longer, in seconds.
LIMIT = 60
#: What a hostile file may be answered with.
EXPECTED = (runs.RunDirectoryError, data.DataError)


def _plan(examples):
    quiet = {"database": None, "deadline": None, "suppress_health_check": list(HealthCheck)}
    return settings(max_examples=examples, derandomize=True, print_blob=False, **quiet)


# --- flags ---------------------------------------------------------------------------------------

_NAMES = {name: d.rule.placeholder for name, d in all_declarations().items()}
_NAMES |= {name: d.rule.placeholder for name, d in declarations(Options).items()}
_NAMES |= {"widths": "N,N..."}
_HOSTILE = ["", "0", "-1", "1", "2", "3,3", "1,2", "nan", "inf", "-inf", "1e400", "1e-320", "١"]
_HOSTILE += ["9" * 30, "true", "a b", "\n", "\x00", "é", "../..", "~", "~nobody", "/", "/dev/null"]
_HOSTILE += ["x" * 300, "=", "--", "[red]", "%s", "/proc/self/mem", "weights.npz", "None"]


def _values(name):
    """Good values of a flag, and all kinds of others."""
    placeholder = _NAMES[name]
    good = [st.sampled_from(_HOSTILE), st.text(max_size=8)]
    if not placeholder:
        good.append(st.sampled_from(["true", "false"]))
    elif "|" in placeholder:
        good += [st.sampled_from(placeholder.split("|"))] * 4
    elif placeholder[0] in "NX":
        good += [st.integers(0, 300).map(str)] * 3
        good += [st.integers().map(str), st.floats().map(str)]
    return st.one_of(good)


#: What would read or change more than it should here.
_LEFT_OUT = {"data_dir"}


def _flag_sets():
    names = [name for name in _NAMES if name not in _LEFT_OUT]
    one = st.sampled_from(names).flatmap(
        lambda name: _values(name).map(lambda value: f"--{name}={value}")
    )
    stray = st.one_of(
        st.text(max_size=6), st.sampled_from(names).map(lambda name: f"--{name}"), st.just("-h")
    )
    return st.lists(st.one_of(one, one, one, one, one, one, stray), max_size=5)


def answer(arguments):
    """Exit code and standard error of `ntk_tf.main` in this process."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["main", *arguments]),
        mock.patch.object(signals, "listen"),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            code = main.main()
        except SystemExit as error:
            code = error.code or 0
    return code, err.getvalue()


def _check(arguments, code, error, seconds):
    """Raise AssertionError for an answer that is not as promised."""
    right = code in (0, 2) and "Traceback" not in error and seconds < LIMIT
    if code == 2:
        *warned, last = error.splitlines() or [""]
        right = right and last.startswith("error: ")
        right = right and all(line.startswith("warning: ") for line in warned)
    if not right:
        raise AssertionError(f"{arguments}: exit code {code} after {seconds:.0f} s: {error}")


def fuzz_flags(folder, count):
    """Answer so many random flag sets; how many were accepted."""
    accepted = tried = 0
    os.environ["TFDS_OFFLINE"] = "1"
    common = ["--dry_run", f"--runs_dir={folder / 'runs'}", f"--data_dir={folder / 'tfds'}"]
    common.append("--dataset=digits")

    @_plan(count)
    @given(_flag_sets())
    def one(arguments):
        nonlocal accepted, tried
        started = time.monotonic()
        code, error = answer([*common, *arguments])
        _check(arguments, code, error, time.monotonic() - started)
        tried += 1
        accepted += code == 0
        if tried % 50 == 0:
            keras.backend.clear_session()

    one()
    if list(folder.iterdir()):
        raise AssertionError(f"--dry_run left {list(folder.iterdir())}")
    return {"flag sets": tried, "accepted": accepted}


def fuzz_processes(folder, count):
    """Real command lines, without --dry_run if they are refused anyway."""
    arguments = []

    @_plan(count)
    @given(_flag_sets())
    def collect(found):
        if not any("\x00" in text for text in found):
            arguments.append(found)

    collect()
    for found in arguments[:count]:
        command = [sys.executable, "-m", "ntk_tf.main", "--dry_run", f"--runs_dir={folder}"]
        started = time.monotonic()
        done = subprocess.run([*command, "--dataset=digits", *found], capture_output=True)
        error = done.stderr.decode(errors="replace")
        _check(found, done.returncode, error, time.monotonic() - started)
    return {"real command lines": len(arguments[:count])}


# --- files ---------------------------------------------------------------------------------------


def mutations(content):
    """Strategy of what becomes of a file: cut off, bits flipped, bytes replaced, others' bytes."""
    size = len(content)
    place = st.integers(0, max(0, size - 1))

    def flip(bits):
        changed = bytearray(content)
        for position, bit in bits:
            changed[position] ^= 1 << bit
        return bytes(changed)

    def insert(at):
        position, text = at
        return content[:position] + text + content[position + len(text) :]

    words = [b"null", b"[]", b"{}", b'"x"', b"-1", b"1e999", b"NaN", b"9" * 40, b"\x00" * 8, b"["]
    return st.one_of(
        place.map(lambda n: content[:n]),
        st.lists(st.tuples(place, st.integers(0, 7)), min_size=1, max_size=20).map(flip),
        st.tuples(place, st.sampled_from(words)).map(insert),
        st.tuples(place, st.binary(min_size=1, max_size=40)).map(insert),
        st.binary(max_size=200),
        st.sampled_from([b"", b"[" * 100_000, b"null", b"{}", b"[]", b"\xff\xfe", content * 2]),
    )


def readers(folder):
    """A good file of each kind and what reads it: name -> (path, function)."""
    rng = np.random.default_rng(0)
    found = {}
    small = {"dataset": "digits", "arch": "mlp", "arch_args": "depth=2", "image_size": 8}
    network = [f"--{name}={value}" for name, value in small.items()]
    flags_ = [*network, "--train_examples=64", "--test_examples=20"]
    # Reports are of the first alone, or their figures would take most of the time.
    train, trajectory, spectrum = (folder / name for name in ("runs/train", "trajectory", "rank"))
    for workdir, arguments in {
        train: [*flags_, "--epochs=2"],
        trajectory: [*flags_, "--experiment=trajectory", "--kernel_every=1", "--kernel_examples=4"],
        spectrum: [*network, "--experiment=rank", "--examples=8"],
    }.items():
        code, error = answer([*arguments, f"--workdir={workdir}"])
        if code:
            raise AssertionError(error)
    settings_ = cli.parse(["main", *flags_, "--epochs=2"]).config
    entry = Entry(Run(settings_, Options(train)), folder / "log")

    def report():
        with contextlib.redirect_stdout(io.StringIO()):
            write.write(folder / "runs", folder / "report")
            summary.show(collect.read(folder / "runs"), Console(file=io.StringIO()))

    def describe(workdir):
        EXPERIMENTS["train"].describe(workdir)

    def resume():
        runs.check_workdir(train, settings_.to_dict(), settings_.added())

    def sweep():
        entry.status = "waiting"
        if entry.read_result():
            entry.outcome()
        entry.status = "running"
        entry.fraction()

    def weights_of_run():
        rank_settings = resolve(experiment="rank", examples=8, **small)
        trained_weights.load(models.build("mlp", 1, 10, (8, 8, 1), depth=2), rank_settings, train)

    newest = max((train / "checkpoint").glob("*.npz"))
    found["config.json"] = (train / "config.json", _each(resume, report, weights_of_run))
    found["result.json"] = (
        train / "result.json",
        _each(lambda: describe(train), sweep, report),
    )
    found["metrics.csv"] = (train / "metrics.csv", _each(sweep, report))
    found["checkpoint"] = (newest, _each(lambda: checkpoint.restore(newest.parent), weights_of_run))
    for name in ("trajectories.npz", "trajectory.json", "kernel.csv"):
        found[name] = (
            trajectory / name,
            lambda: trajectories.draw([trajectory], folder),
        )
    for name in ("spectrum.npz", "rank.json"):
        found[name] = (spectrum / name, lambda: rank.draw([spectrum, spectrum], folder))

    layers = _small_alexnet(rng)
    for suffix in ("npz", "safetensors"):
        path = folder / f"weights.{suffix}"
        np.savez(path, **layers) if suffix == "npz" else safetensors.numpy.save_file(layers, path)
        found[path.name] = (path, lambda path=path: _weights(path))
    found |= _pictures(folder, rng) | _prepared(folder, rng) | _in_folders(folder, rng)
    path = folder / "some.flags"
    path.write_text("--dataset=digits\n--epochs=3\n# comment\n--width=2\n--linearized\n")

    def flagfile():
        code, error = answer([f"--flagfile={path}", "--dry_run", "--undefok=x"])
        _check([path], code, error, 0)

    found["flagfile"] = (path, flagfile)
    return found


def _each(*functions):
    """Calls all, then raises the first expected error."""

    def call():
        errors = []
        for function in functions:
            try:
                function()
            except EXPECTED as error:
                errors.append(error)
        if errors:
            raise errors[0]

    return call


def _small_alexnet(rng):
    """Tensors of AlexNet at width 1/64 with 1,000 outputs."""
    model = models.build("alexnet", 1 / 64, 1000, (64, 64, 3))
    numbers = {"Conv2D": [0, 3, 6, 8, 10], "Dense": [1, 4, 6]}
    tensors, seen = {}, {"Conv2D": 0, "Dense": 0}
    for layer in model.layers:
        kind = type(layer).__name__
        if kind not in numbers:
            continue
        part = "features" if kind == "Conv2D" else "classifier"
        name = f"{part}.{numbers[kind][seen[kind]]}"
        seen[kind] += 1
        order = (3, 2, 0, 1) if kind == "Conv2D" else (1, 0)
        tensors[f"{name}.weight"] = rng.normal(size=layer.kernel.shape).astype("f").transpose(order)
        tensors[f"{name}.bias"] = rng.normal(size=layer.bias.shape).astype("f")
    return {name: np.ascontiguousarray(value) for name, value in tensors.items()}


def _weights(path):
    try:
        pretrained.network(path, (64, 64, 3))
    except torch_weights.WeightsError as error:
        raise data.DataError(str(error)) from error


def _in_folders(folder, rng):
    """A picture of the user's in each of two formats."""
    place = folder / "own"
    for split, label, ending in itertools.product(("train", "test"), "ab", ("png", "jpg")):
        path = place / split / label / f"1.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (12, 9, 3), dtype=np.uint8)).save(path)

    def read():
        data.load(f"{place}/", image_size=8)

    return {
        f"{ending} in a folder": (place / "train/a" / f"1.{ending}", read)
        for ending in ("png", "jpg")
    }


def _pictures(folder, rng):
    """A JPEG file and archives of ILSVRC 2012's kind."""
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
    import snake_files

    synsets = SNAKE_SYNSETS[:2]
    place = snake_files.write_archives(folder / "imagenet", snake_files.make(rng, synsets))
    jpeg = folder / "picture.JPEG"
    jpeg.write_bytes(snake_files.jpeg(rng, 80, 60))

    def picture():
        content = builder.rgb_jpeg(jpeg.read_bytes())
        if content is None:
            raise data.DataError(f"{jpeg}: cannot be decoded")
        split = source.Split(tfds_tensor([content]), np.array([0]))
        decode.cached(source.Source(split, split, (0.5,), (0.5,)), 32, True)

    def members(split):
        for found in files.pictures(place / files.ARCHIVES[split], split, synsets):
            found.read()

    found = {"JPEG": (jpeg, picture)}
    for split, name in files.ARCHIVES.items():
        found[name] = (place / name, lambda split=split: members(split))
    return found


def tfds_tensor(values):
    import tensorflow as tf

    return tf.constant(values)


def _prepared(folder, rng):
    """A small dataset as TFDS keeps it."""

    class Fuzzed(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            image = tfds.features.Image(shape=(4, 4, 1))
            label = tfds.features.ClassLabel(num_classes=3)
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict({"image": image, "label": label}),
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i in range(5):
                yield i, {"image": rng.integers(0, 256, (4, 4, 1), np.uint8), "label": i % 3}

    data_dir = folder / "tfds"
    origin = data.Origin(str(data_dir))

    def read():
        made = tfds_files.opened("fuzzed", origin, lambda: Fuzzed(data_dir=data_dir))
        if not made.is_prepared():
            raise data.DataError("not prepared")
        tfds_files.read(made, "train")

    tfds.disable_progress_bar()
    Fuzzed(data_dir=data_dir).download_and_prepare()
    place = next(data_dir.rglob("*.tfrecord*")).parent
    names = {"tfrecord": "*.tfrecord*", "dataset_info.json": "dataset_info.json"}
    names["features.json"] = "features.json"
    return {kind: (next(place.glob(name)), read) for kind, name in names.items()}


def fuzz_files(folder, count):
    """Read so many mutated files, in turn of each kind; how many were refused."""
    total = {"files": 0, "kinds of files": 0, "refused": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kinds = readers(folder)
        for kind, (path, read) in kinds.items():
            tried, refused = _fuzz_kind(kind, path, read, -(-count // len(kinds)))
            total["files"] += tried
            total["kinds of files"] += 1
            total["refused"] += refused
    return total


def fuzz_file_processes(folder):
    """Damaged files of a run before the real commands; how many."""
    run = ["--dataset=digits", "--train_examples=64", "--test_examples=20", "--epochs=2"]
    answer([*run, f"--workdir={folder / 'good'}"])
    (folder / "some.flags").write_text("--dataset=digits\n--dry_run\n")
    commands = {
        "config.json": ["main", *run, "--workdir=RUN"],
        "result.json": ["main", *run, "--workdir=RUN"],
        "result.json of a report": ["report", "--runs_dir=FOLDER"],
        "step-000000004.npz": ["main", *run, "--workdir=RUN"],
        "step-000000004.npz of --from_run": ["main", "--experiment=rank", "--examples=4"],
        "some.flags": ["main", "--flagfile=RUN/some.flags"],
    }
    commands["step-000000004.npz of --from_run"] += ["--dataset=digits", "--from_run=RUN"]
    tried = 0
    for (kind, command), damage in itertools.product(commands.items(), ("cut off", "garbage")):
        name, place = kind.split()[0], _new(folder / "runs") / "run"
        shutil.copytree(folder / "good", place)
        shutil.copy(folder / "some.flags", place)
        if kind == "step-000000004.npz":
            (place / "result.json").unlink()
        path = next(place.rglob(name))
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2] if damage == "cut off" else b"\xff\x00[{" * 9)
        changed = [a.replace("RUN", str(place)) for a in command]
        changed = [a.replace("FOLDER", str(place.parent)) for a in changed]
        changed += [f"--runs_dir={folder / 'others'}"] if "--examples=4" in command else []
        started = time.monotonic()
        found = [sys.executable, "-m", f"ntk_tf.{changed[0]}", *changed[1:]]
        done = subprocess.run(found, capture_output=True, text=True, errors="replace")
        _check([kind, damage], done.returncode, done.stderr, time.monotonic() - started)
        if not (done.returncode or name in done.stderr or name == "some.flags"):
            raise AssertionError(f"{kind}, {damage}: no word of it: {done.stdout}")
        tried += 1
    return {"damaged files before real commands": tried}


def _fuzz_kind(kind, path, read, count):
    content = path.read_bytes()
    tried = refused = 0

    @_plan(count)
    @given(mutations(content))
    def one(changed):
        nonlocal tried, refused
        tried += 1
        path.write_bytes(changed)
        started = time.monotonic()
        try:
            read()
        except EXPECTED as error:
            refused += 1
            if not str(error).strip():
                raise AssertionError(f"{kind}: no message") from error
        if time.monotonic() - started > LIMIT:
            raise AssertionError(f"{kind}: took too long")

    one()
    path.write_bytes(content)
    read()  # the good file is still accepted
    return tried, refused


def fuzz(folder, flag_sets, files_):
    """Everything; counts."""
    count = fuzz_flags(_new(folder / "flags"), flag_sets)
    count |= fuzz_processes(_new(folder / "processes"), min(24, flag_sets))
    count |= fuzz_files(_new(folder / "files"), files_)
    return count | fuzz_file_processes(_new(folder / "real")) | {"problems": 0}


def _new(folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
