"""The experiment at infinite width on the embedded data: files, resuming, processes, refusals."""

import contextlib
import json
import os
import pathlib
import pickle
import re
import signal
import subprocess
import sys
import types

import numpy as np
import pytest
from helpers import carry_out
from references import dense_jacobian
from rich.console import Console

from ntk_tf import data, models, ntk
from ntk_tf.data import DataError, pipeline
from ntk_tf.data.source import Split
from ntk_tf.experiments import size
from ntk_tf.experiments.infinite import array, finite, forecast, processes, tiles, worker
from ntk_tf.experiments.infinite import run as infinite_run
from ntk_tf.experiments.resolving import resolve
from ntk_tf.ntk import infinite
from ntk_tf.ntk.leave_one_out import leave_one_out
from ntk_tf.process import slurm
from ntk_tf.process.signals import Interrupted
from ntk_tf.runs import RunDirectoryError
from ntk_tf.settings import Options, SettingError

SETTINGS = {
    "experiment": "infinite",
    "arch": "mlp",
    "dataset": "digits",
    "image_size": 8,
    "train_examples": 60,
    "test_examples": 40,  # so that all tiles are of one shape, and one graph
}


def run(workdir, options=None, **settings):
    return carry_out(resolve(**(SETTINGS | settings)), Options(workdir, jobs=1, **(options or {})))


def arrays(path):
    with np.load(path) as file:
        return dict(file)


@pytest.fixture
def pictures():
    source = data.load("digits", train_examples=60, test_examples=40)
    preprocess = pipeline.preprocessing(source, 8, 0, 1)
    x, z = (
        np.concatenate([x for x, _ in pipeline.evaluation_batches(split, preprocess, 10, 30)])
        for split in (source.train, source.test)
    )
    return x, z, source.train.labels, source.test.labels


def test_kernels_and_regression(tmp_path, monkeypatch, pictures):
    """In one tile and in several, against the kernels and a solution with explicit inverses."""
    x, z, labels, test_labels = pictures
    result = run(tmp_path / "whole", keep_kernels=True, arch_args="sigma_b=0.5,depth=3")
    monkeypatch.setattr(tiles, "_SIDE", 25)
    run(tmp_path / "tiles", keep_kernels=True, arch_args="sigma_b=0.5,depth=3")
    found = arrays(tmp_path / "whole/kernel.npz")
    for name, kernel in arrays(tmp_path / "tiles/kernel.npz").items():
        np.testing.assert_allclose(kernel, found[name], rtol=1e-6)
    for kind, (parametrization, attribute) in tiles.KINDS.items():
        arguments = {"depth": 3} | ({"sigma_b": 0.5} if parametrization == "ntk" else {})
        for split, rows in (("train", x), ("test", z)):
            kernel = infinite.kernel(
                *("mlp", rows, x, attribute, arguments), parametrization=parametrization
            )
            np.testing.assert_allclose(found[f"{kind}_{split}"], kernel, rtol=1e-6)
        part, theta = result[kind], found[f"{kind}_train"]
        assert part["trace"] == pytest.approx(np.trace(theta))
        assert part["relative_error"] is None
        targets = np.where(np.arange(10) == labels[:, None], 0.9, -0.1)
        shift = part["ridge"] * targets.size / 2
        dual = np.linalg.solve(theta + shift * np.eye(60), targets)
        predicted = (found[f"{kind}_test"] @ dual).argmax(axis=1)
        assert part["test_accuracy"] == np.mean(predicted == test_labels)
        plain = found[f"{kind}_test"] @ np.linalg.solve(theta, targets)
        accuracy = np.mean(plain.argmax(axis=1) == test_labels)
        assert part["test_accuracy_without_ridge"] == accuracy
        inverse = np.linalg.inv(theta + shift * np.eye(60))
        left_out = dual / np.diag(inverse)[:, None]
        assert part["leave_one_out_error"] == pytest.approx(np.mean(left_out**2), rel=1e-6)
        values = np.sqrt(np.maximum(np.linalg.eigvalsh(theta), 0))
        assert part["effective_rank"] == pytest.approx(ntk.effective_rank(values), rel=1e-6)
    assert result["test_accuracy"] == result["ntk"]["test_accuracy"] > 0.5
    assert not (tmp_path / "tiles/tiles").exists()
    content = json.loads((tmp_path / "whole/infinite.json").read_text())
    assert content["channels"] is None
    assert content["seeds"] == 1
    assert (tmp_path / "whole/spectra.svg").stat().st_size > 5000


def test_accuracies_of_kernels_that_know_the_labels_in_part(rng):
    """Those of the seeds' mean, with a ridge and without, and by seed, by explicit inverses."""
    n, m, classes = 40, 200, 10
    features = rng.standard_normal((3, n + m, 60))
    features[..., :classes] = 3 * features[0, :, :classes]
    kernels = features @ features.transpose(0, 2, 1)
    labels = features[0, :, :classes].argmax(axis=1)
    labels[:n:2] = rng.integers(0, classes, n // 2)
    gram, cross = kernels[:, :n, :n], kernels[:, n:, :n]
    train, test = (Split(np.zeros((len(y), 1)), y) for y in (labels[:n], labels[n:]))
    found, _ = infinite_run._regress(gram, cross, train, test, resolve(**SETTINGS))
    targets = np.where(np.arange(classes) == labels[:n, None], 0.9, -0.1)

    def accuracies(gram, cross, ridge):
        dual = np.linalg.solve(gram + ridge * targets.size / 2 * np.eye(n), targets)
        outputs = np.concatenate([gram, cross]) @ dual
        hits = outputs.argmax(axis=1) == labels
        return hits[:n].mean(), hits[n:].mean()

    mean = gram.mean(axis=0), cross.mean(axis=0)
    best, plain = accuracies(*mean, found["ridge"]), accuracies(*mean, 0.0)
    assert best[0] < plain[0]
    assert best[1] != plain[1]
    names = ("train_accuracy", "test_accuracy")
    assert tuple(found[name] for name in names) == best
    assert tuple(found[f"{name}_without_ridge"] for name in names) == plain
    by_seed = [
        accuracies(g, c, leave_one_out(g, targets).ridge)[1]
        for g, c in zip(gram, cross, strict=True)
    ]
    assert found["test_accuracy_by_seed"] == by_seed
    assert len(set(by_seed)) == 3


def test_max_pooling_is_a_mean_over_seeds(tmp_path):
    sizes = {"train_examples": 12, "test_examples": 12, "image_size": 16}
    result = run(tmp_path / "run", arch="lenet", channels=(8, 16), keep_kernels=True, **sizes)
    assert (result["channels"], result["seeds"]) == ([8, 16], 3)
    assert 0.001 < result["ntk"]["relative_error"] < 0.5
    assert len(result["ntk"]["test_accuracy_by_seed"]) == 3
    doubled = result["extrapolation"]
    assert doubled["pictures"] == 12
    assert 0.001 < doubled["change"] < 3 * doubled["noise"] < 3
    found = arrays(tmp_path / "run/kernel.npz")["ntk_train"]
    source = data.load("digits", train_examples=12, test_examples=12)
    preprocess = pipeline.preprocessing(source, 16, 0, 1)
    (x, _), *_ = pipeline.evaluation_batches(source.train, preprocess, 10, 12)
    function = infinite.KernelFunction("lenet", (16, 16, 1), channels=(8, 16))
    kernels = [function(x.numpy(), seed=seed).ntk for seed in range(3)]
    np.testing.assert_allclose(found, np.mean(kernels, axis=0), rtol=1e-5)


def test_finite_networks_approach_the_limit(tmp_path, monkeypatch, pictures):
    """The cosine of dense gradients, meaned over outputs; a second process adds the last one."""
    x, *_ = pictures
    settings = {"train_examples": 20, "test_examples": 4, "finite_seeds": 2, "keep_kernels": True}
    settings |= {"finite_widths": (1, 32), "arch_args": "sigma_b=0.3,units=20"}
    usual, built = finite._gram, []

    def gram(*arguments):
        if len(built) == 2:
            raise Interrupted(signal.SIGTERM)
        built.append(arguments[3:])
        return usual(*arguments)

    monkeypatch.setattr(finite, "_gram", gram)
    with pytest.raises(Interrupted):
        run(tmp_path / "run", **settings)
    assert built == [(1, 0), (1, 1)]
    monkeypatch.setattr(finite, "_gram", usual)
    found = run(tmp_path / "run", **settings)["finite"]
    pairs = [(row["width"], row["seed"]) for row in found]
    assert pairs == [(1, 0), (1, 1), (32, 0), (32, 1)]
    limit = arrays(tmp_path / "run/kernel.npz")["ntk_paper_widening_train"]
    for seed in (0, 1):
        jacobian = dense_jacobian(models.build("mlp", 1, 10, (8, 8, 1), seed, units=20), x[:20])
        kernel = np.einsum("ilp,jlp->ij", *2 * [jacobian.reshape(20, 10, -1).astype("float64")])
        expected = np.sum(kernel * limit) / np.linalg.norm(kernel) / np.linalg.norm(limit)
        assert found[seed]["cosine"] == pytest.approx(expected, rel=1e-5)
        assert found[seed]["cosine"] < found[2]["cosine"] < 1
    assert (tmp_path / "run/widths.svg").stat().st_size > 5000
    (tmp_path / "run/widths.csv").write_text("width,seed\n1,0\n")
    with pytest.raises(RunDirectoryError, match=r"widths.csv: is damaged"):
        finite.compare(resolve(**(SETTINGS | settings)), Options(tmp_path / "run"), x, limit, None)


def test_goes_on_with_missing_tiles(tmp_path, monkeypatch):
    monkeypatch.setattr(tiles, "_SIDE", 25)
    run(tmp_path / "whole", keep_kernels=True)
    usual, written = tiles.Work.write, []

    def write(self, tile, found):
        if len(written) == 3:
            raise Interrupted(15)
        usual(self, tile, found)
        written.append(tile)

    with monkeypatch.context() as context:
        context.setattr(tiles.Work, "write", write)
        context.setattr(Interrupted, "__init__", lambda self, number: None)
        with pytest.raises(Interrupted):
            run(tmp_path / "run", keep_kernels=True)
    assert len(list((tmp_path / "run/tiles").iterdir())) == 3
    monkeypatch.setattr(tiles.Work, "write", lambda *args: (usual(*args), written.append(args[1])))
    before = sum(float(arrays(path)["seconds"]) for path in (tmp_path / "run/tiles").iterdir())
    result = run(tmp_path / "run", keep_kernels=True)
    assert 0 < before < result["tile_seconds"] < before + result["seconds"]
    assert len(written) == len(set(map(str, written))) == 6 + 2 * 3
    whole = arrays(tmp_path / "whole/kernel.npz")
    for name, kernel in arrays(tmp_path / "run/kernel.npz").items():
        np.testing.assert_array_equal(kernel, whole[name])


def test_a_damaged_tile_is_removed(tmp_path, monkeypatch):
    usual = tiles.Work.write

    def write(self, tile, found):
        usual(self, tile, found)
        if tile.split == "test":
            tile.path(self.workdir).write_bytes(b"PK")

    with monkeypatch.context() as context:
        context.setattr(tiles.Work, "write", write)
        with pytest.raises(RunDirectoryError, match="test-0-0.npz.*the same command"):
            run(tmp_path / "run")
    assert run(tmp_path / "run")["status"] == "completed"


def test_several_processes_compute_the_same(tmp_path, monkeypatch):
    """One tile by another process, and the others here."""
    sizes = {"train_examples": 520, "test_examples": 260, "keep_kernels": True}
    one = run(tmp_path / "one", **sizes)
    config, options = resolve(**(SETTINGS | sizes)), Options(tmp_path / "two", jobs=2)
    usual = processes._in_processes

    def in_processes(config, options, shares, after):
        assert [len(share) for share in shares] == [3, 2]
        usual(config, options, [shares[1][:1]], after)
        for share in (shares[0], shares[1][1:]):
            worker.child(config, options, share, os.getppid())

    monkeypatch.setattr(processes, "_in_processes", in_processes)
    two = carry_out(config, options)
    assert two["ntk"] == one["ntk"]
    found = arrays(tmp_path / "one/kernel.npz")
    for name, kernel in arrays(tmp_path / "two/kernel.npz").items():
        np.testing.assert_array_equal(kernel, found[name])


@pytest.mark.parametrize(
    ("code", "told"), [(3, "exit code 3; the same command"), (-signal.SIGKILL, r"killed.*memory")]
)
def test_a_process_that_fails_is_one_line(tmp_path, monkeypatch, code, told):
    class Ended:
        exitcode, pid = code, 1

        def __init__(self, **_):
            self.start = self.terminate = self.join = lambda: None

        def is_alive(self):
            return True

    context = types.SimpleNamespace(Process=Ended)
    monkeypatch.setattr(processes.multiprocessing, "get_context", lambda _: context)
    shares = [[0], [1]]
    with pytest.raises(RunDirectoryError, match=told) as raised:
        processes._in_processes(None, Options(tmp_path), shares, lambda: None)
    assert "\n" not in str(raised.value)
    calls = []

    def after():  # a signal to all processes, noticed once the others have ended of it
        calls.append(1)
        if len(calls) > 1:
            raise Interrupted(signal.SIGTERM)

    with pytest.raises(Interrupted):
        processes._in_processes(None, Options(tmp_path), shares, after)


def test_only_sigterm_ends_a_process_that_computes_tiles(tmp_path):
    """What reaches a whole process group, such as Ctrl-C, its first process answers."""
    program = """
import os, signal, sys
from ntk_tf.experiments.infinite import worker
def work(*_):
    for name in ("SIGINT", "SIGHUP", "SIGUSR2"):
        os.kill(os.getpid(), getattr(signal, name))
    print("goes on", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
worker.work = work
worker.child(None, None, (), os.getppid())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("goes on\n", "")
    assert done.returncode == -signal.SIGTERM


class Cluster:
    """In place of submitit and SLURM: an array's jobs run at once, but for those that are killed.

    Args:
        killed: how many of the last jobs of each array.
    """

    def __init__(self, folder, killed):
        self.folder, self.killed, self.arrays = folder, list(killed), []

    @contextlib.contextmanager
    def batch(self):
        self.arrays.append([])
        yield
        jobs = self.arrays[-1]
        for job in jobs[: len(jobs) - self.killed.pop(0)]:
            pickle.loads(pickle.dumps(job))()

    def submit(self, job):
        self.arrays[-1].append(job)
        name = f"{len(self.arrays)}_{len(self.arrays[-1])}"
        self.folder.mkdir(exist_ok=True)
        (self.folder / f"{name}_submitted.pkl").touch()
        return types.SimpleNamespace(job_id=name)


@pytest.fixture
def on_cluster(monkeypatch):
    """A function that runs on a fake cluster with arrays of at most three jobs."""
    monkeypatch.setattr(tiles, "_SIDE", 25)
    monkeypatch.setattr(array, "TICK", 0.0)
    monkeypatch.setattr(slurm, "largest_array", lambda: 3)
    monkeypatch.setattr(slurm, "queue", dict)

    def start(workdir, killed):
        cluster = Cluster((workdir / "slurm").resolve(), killed)
        monkeypatch.setattr(slurm, "executor", lambda *_: cluster)
        try:
            run(workdir, {"executor": "slurm"}, keep_kernels=True)
        finally:
            start.sizes = [[len(job.numbers) for job in jobs] for jobs in cluster.arrays]

    return start


def test_slurm_goes_on_with_what_killed_jobs_left(tmp_path, on_cluster):
    on_cluster(tmp_path / "run", [2, 1, 0])
    assert on_cluster.sizes == [[4, 4, 4], [3, 3, 2], [1, 1]]
    assert not {"slurm", "tiles"} & {path.name for path in (tmp_path / "run").iterdir()}
    run(tmp_path / "whole", keep_kernels=True)
    whole = arrays(tmp_path / "whole/kernel.npz")
    for name, kernel in arrays(tmp_path / "run/kernel.npz").items():
        np.testing.assert_array_equal(kernel, whole[name])


def test_slurm_jobs_that_leave_nothing_are_an_error(tmp_path, on_cluster, monkeypatch):
    """After that, jobs that are still in the queue are waited for."""
    with pytest.raises(slurm.SlurmError, match="the jobs left 12 of 12 tiles.*/slurm$"):
        on_cluster(tmp_path / "run", [3, 3, 3])
    assert on_cluster.sizes == [[4, 4, 4]] * 2

    def queue():
        config = resolve(**SETTINGS, keep_kernels=True)
        worker.work(config, Options(tmp_path / "run", jobs=1), range(12), lambda: None)
        return {"2_3": "RUNNING"}

    monkeypatch.setattr(slurm, "queue", queue)
    on_cluster(tmp_path / "run", [])
    assert on_cluster.sizes == []
    assert (tmp_path / "run/result.json").exists()


def test_dry_run_says_memory_disk_and_time(tmp_path, capsys):
    """Of a size that no machine here could compute; memory and disk counted by hand."""
    sizes = {"dataset": "mnist", "train_examples": 60_000, "test_examples": 10_000}
    config = resolve(**(SETTINGS | sizes))
    options = Options(tmp_path / "run", jobs=2)
    size.describe(config, options, "embedded", Console(width=200))
    printed = capsys.readouterr().out
    # A kernel, its mean over the one seed and three more of the training pictures'.
    gib = 8 * 60_000 * (2 * 70_000 + 3 * 60_000) / 2**30
    found = re.search(r"memory +about (\d+\.\d) GiB", printed)
    assert gib < float(found[1]) < gib + 3
    assert "warning: this needs about" in printed
    assert "what helps: a smaller --train_examples" in printed
    assert "60,000 x 60,000 and 10,000 x 60,000 pictures, 1 seeds" in printed
    # 118 x 119 / 2 of training pictures, those on the diagonal whole, and 20 x 118.
    entries = (60_000**2 + 118 * (60_000 / 118) ** 2) / 2 + 10_000 * 60_000
    disk = re.search(r"about (\S+) GiB in (\S+) tiles", printed)
    assert disk[2] == f"{118 * 119 // 2 + 20 * 118:,}"
    assert float(disk[1]) == pytest.approx(3 * 8 * entries / 2**30, rel=0.01)
    assert re.search(r"processes +2, with about \d\.\d GiB each", printed)
    assert re.search(r"time +about .*(min|h|days), and the regression's", printed)
    assert not options.workdir.exists()


@pytest.mark.parametrize(
    ("train", "test", "estimated", "count"),
    [
        (1000, 500, True, 10 + 8),
        (1000, 500, False, 3 + 2),
        (2500, 100, True, 15 + 5),
        (7, 3, True, 2),
    ],
)
def test_tiles_cover_each_pair_once(train, test, estimated, count):
    """Of the training pictures' kernel, which is symmetric, in one of its halves at least."""
    parts = tiles.divide(train, test, estimated)
    assert len(parts) == len({part.path(pathlib.Path()) for part in parts}) == count
    times = {"train": np.zeros((train, train), int), "test": np.zeros((test, train), int)}
    for part in parts:
        assert max(s.stop - s.start for s in (part.rows, part.columns)) <= 512
        times[part.split][part.rows, part.columns] += 1
        if part.split == "train" and not part.mirrored:
            times["train"][part.columns, part.rows] += 1
    assert all(np.all(found == 1) for found in times.values())


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_forecast_is_the_time_of_all_tiles(monkeypatch, split):
    """By a clock that ticks at each of the blocks that are computed."""
    now = 0.0

    def pair(self, left, right):
        nonlocal now
        now += 0.5
        return usual(self, left, right)

    usual = infinite.KernelFunction._of_pairs
    monkeypatch.setattr(infinite.KernelFunction, "_of_pairs", pair)
    monkeypatch.setattr(forecast.time, "monotonic", lambda: now)
    function = infinite.KernelFunction("mlp", (8, 8, 1))
    function._pair, function.block = function._of_pairs, 5
    x = np.ones((24, 8, 8, 1))
    parts = tiles.divide(24, 24, estimated=False)
    part = next(tile for tile in parts if tile.split == split)
    found = forecast._seconds(function, [part], resolve(**SETTINGS))
    now = 0.0
    function(x, None if split == "train" else x)
    assert found == now > 0


@pytest.mark.parametrize(
    ("error", "settings", "options", "message"),
    [
        (SettingError, {"train_examples": 0}, {}, "--train_examples=0: must be"),
        (
            SettingError,
            {"channels": ()},
            {},
            "--channels=: must be values separated by commas, each an integer",
        ),
        (SettingError, {"channels": (8,)}, {}, "channels=.*mlp has no max pooling"),
        (SettingError, {"arch_args": "gamma=1"}, {}, "gamma=1: the architecture mlp takes"),
        (SettingError, {"arch_args": "activation=tanh"}, {}, "--arch=mlp: layer dense1_act"),
        (SettingError, {"arch_args": "activation=selu"}, {}, "--arch=mlp: layer dense1_act"),
        (
            SettingError,
            {"arch": "resnet18", "arch_args": "batch_norm=true"},
            {},
            "--arch=resnet18: layer conv_norm: batch norm",
        ),
        (SettingError, {"finite_seeds": 2}, {}, "--finite_seeds=2: read only with --finite_widths"),
        (SettingError, {"finite_widths": (2, 0)}, {}, "--finite_widths=2,0: must be different"),
        (SettingError, {"arch": "my:own"}, {}, "^arch=my:own: must be one of lenet"),
        (DataError, {"train_examples": 1}, {}, "train_examples=1: all are of one class"),
        (DataError, {}, {"memory_gib": 1e-5}, "memory_gib=1e-05: the kernels of 60 training"),
    ],
)
def test_refusals(error, settings, options, message, tmp_path):
    with pytest.raises(error, match=message) as found:
        run(tmp_path / "run", options, **settings)
    assert "\n" not in str(found.value)
    assert not (tmp_path / "run").exists()


def test_a_kernel_beyond_all_numbers_is_one_line(tmp_path):
    with pytest.raises(SettingError, match="--recursion=float64: the kernel ntk is not fin"):
        run(tmp_path / "run", arch_args="sigma_w=1e100")


def test_a_kernel_of_nothing_is_one_line(tmp_path):
    with pytest.raises(SettingError, match="--dataset=digits: the kernel ntk of these pictures is"):
        run(tmp_path / "run", arch_args="sigma_w=0,sigma_b=0")
