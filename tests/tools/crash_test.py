"""Does a run survive kills, full disks and hostile input? Reports counts; exits with 1 if not.

    python tests/tools/crash_test.py runs     [--kills=100]      # kill -9 at random instants
    python tests/tools/crash_test.py converged [--kills=10]      # the same while solving
    python tests/tools/crash_test.py sweep    [--kills=20]       # the runner of a sweep of 8 runs
    python tests/tools/crash_test.py tiles    [--kills=2]     # a kernel on SLURM: command and jobs
    python tests/tools/crash_test.py disk                     # a small tmpfs that fills; needs root
    python tests/tools/crash_test.py fuzz     [--flag_sets=2000] [--files=500]
    python tests/tools/crash_test.py parallel [--runs=20] --manual_dir=MNIST_FILES

Every interrupted run is continued by the same command and must end as the undisturbed one does: the
same `metrics.csv` and `result.json`, wall-clock fields aside, and bit-identical weights.
"""

import argparse
import contextlib
import csv
import itertools
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent import futures

import commands
import numpy as np
from commands import command

from ntk_tf import runs
from ntk_tf.process import slurm

#: Digits in long epochs of small batches, saved as often as possible.
TRAIN = ["--dataset=digits", "--batch_size=2", "--epochs=6", "--checkpoint_minutes=0.001"]
#: The fewest updates of everything.
TINY = [
    "--dataset=digits",
    "--train_examples=64",
    "--test_examples=20",
    "--checkpoint_minutes=0.001",
]
#: A solution by the preconditioner of some pictures, and several without.
CONVERGED = ["--experiment=converged", "--dataset=digits", "--checkpoint_minutes=0.001"]
MODES = ("runs", "converged", "sweep", "tiles", "disk", "fuzz", "parallel")
#: A thousand pictures in 18 tiles, behind max poolings.
TILES = ["--experiment=infinite", "--arch=lenet", "--dataset=digits", "--train_examples=1000"]
TILES += ["--image_size=16", "--channels=32,64", "--kernel_seeds=1", "--keep_kernels"]
#: Nothing takes longer than so many seconds, on a machine that is shared with others.
LIMIT = 900
ENVIRONMENT = os.environ | {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}


def call(*arguments, module="main"):
    """Run a command to its end; its exit code, standard output and error."""
    return commands.run(command(*arguments, module=module), LIMIT, ENVIRONMENT)


def table(path):
    """The rows of a metrics.csv without its wall-clock column."""
    with open(path, newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def outcome(workdir):
    """What a finished run must have in common with the undisturbed one."""
    rows = table(workdir / "metrics.csv")
    result = json.loads((workdir / "result.json").read_text())
    machine = ("seconds", "seconds_in", "performance", "provenance")
    result = {k: v for k, v in result.items() if k not in machine}
    newest = max((workdir / "checkpoint").glob("step-*.npz"))
    with np.load(newest) as file:
        weights = {name: file[name].tobytes() for name in file.files if name != "meta"}
    return rows, result, weights


def is_saving(process, workdir):
    """Whether a process is just writing a checkpoint."""
    ending = f".{process.pid}.tmp"
    with contextlib.suppress(FileNotFoundError):
        return any(e.name.endswith(ending) for e in os.scandir(workdir / "checkpoint"))
    return False


class Killer:
    """Starts a run, kills it at random instants, continues it, and compares its end.

    Args:
        folder: for the run directories.
        settings: the flags of each run.
        expected: the undisturbed run's outcome, and its seconds, by position in `settings`.
        kills: to carry out in all.
        each: kills of one run.
    """

    def __init__(self, folder, settings, expected, kills, each=8):
        self.folder, self.settings, self.expected = folder, settings, expected
        self.kills, self.each = kills, each
        self.lock, self.numbers = threading.Lock(), itertools.count()
        self.count = dict.fromkeys(("runs", "kills", "kills while saving", "resumes", "lost"), 0)
        self.random = random.Random(0)

    def work(self):
        """Run after run, until there have been enough kills."""
        while self.count["kills"] < self.kills:
            with self.lock:
                number = next(self.numbers)
            self.one(number % len(self.settings), self.folder / f"run{number}")

    def one(self, which, workdir):
        """One run, killed several times and then left alone."""
        expected, seconds = self.expected[which]
        arguments = command(*self.settings[which], f"--workdir={workdir}")
        killed = 0
        while not runs.is_finished(workdir):
            with self.lock:
                self.count["resumes"] += any(workdir.glob("checkpoint/step-*.npz"))
                last = killed >= self.each or self.count["kills"] >= self.kills
            with open(f"{workdir}.log", "ab") as log:
                process = commands.start(arguments, log, log, ENVIRONMENT)
            if last:
                process.wait(LIMIT)
                break
            if self.kill(process, workdir, seconds):
                killed += 1
        same = runs.is_finished(workdir) and outcome(workdir) == expected
        with self.lock:
            self.count["runs"] += 1
            self.count["lost"] += not same
        if same:
            shutil.rmtree(workdir)

    def kill(self, process, workdir, seconds):
        """Kill at a random instant; every other time at the next save from there on."""
        within = self.random.random() < 0.5
        deadline = time.monotonic() + self.random.uniform(0.2, 1) * seconds
        while process.poll() is None:
            if time.monotonic() > deadline and (not within or is_saving(process, workdir)):
                process.kill()
                break
            time.sleep(0.0003 if within else 0.01)
        if process.wait() != -signal.SIGKILL:
            return False
        with self.lock:
            self.count["kills"] += 1
            self.count["kills while saving"] += is_saving(process, workdir)
        return True


def undisturbed(folder, settings):
    """Outcome and seconds of each run, without a disturbance."""
    found = []
    for i, flags in enumerate(settings):
        started = time.monotonic()
        done = call(*flags, f"--workdir={folder / f'whole{i}'}")
        if done.returncode:
            sys.exit(f"the undisturbed run failed: {done.stderr}")
        found.append((outcome(folder / f"whole{i}"), time.monotonic() - started))
    return found


def kill_runs(folder, kills, jobs=2, settings=None, each=8):
    """Kill single runs; counts."""
    if settings is None:
        settings = [
            [*TRAIN, f"--seed={seed}", *model]
            for seed in (0, 1)
            for model in ([], ["--linearized"])
        ]
    killer = Killer(folder, settings, undisturbed(folder, settings), kills, each)
    with futures.ThreadPoolExecutor(jobs) as workers:
        for future in [workers.submit(killer.work) for _ in range(jobs)]:
            future.result()
    return killer.count


def kill_sweeps(folder, kills):
    """Kill the runner of a sweep of 8 runs; counts."""
    flags = [*TRAIN, "--epochs=2", "--models=standard,linearized", "--seeds=0,1,2,3", "--jobs=2"]
    if call(*flags, f"--runs_dir={folder / 'whole'}", module="sweep").returncode:
        sys.exit("the undisturbed sweep failed")
    expected = {
        path.parent.name: outcome(path.parent) for path in folder.glob("whole/*/result.json")
    }
    count = {"sweeps": 0, "runs": 0, "kills": 0, "orphans": 0, "lost": 0}
    instants = random.Random(0)
    while count["kills"] < kills:
        place = folder / f"sweep{count['sweeps']}"
        for _ in range(kills):
            process = subprocess.Popen(
                command(*flags, f"--runs_dir={place}", module="sweep"),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            if count["kills"] < kills:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(instants.uniform(1, 20))
                process.kill()
            if process.wait(LIMIT) != -signal.SIGKILL:
                break
            count["kills"] += 1
            time.sleep(1)
            count["orphans"] += sum(runs.is_owned(path.parent) for path in place.glob("*/.lock"))
        else:
            call(*flags, f"--runs_dir={place}", module="sweep")
        count["sweeps"] += 1
        for name, theirs in expected.items():
            finished = runs.is_finished(place / name)
            count["runs"] += 1
            count["lost"] += not (finished and outcome(place / name) == theirs)
    return count


def kill_tiles(folder, kills):
    """Kill a kernel's command and all its SLURM jobs as soon as some more tiles are there."""
    one, several = (command(*TILES, f"--workdir={folder / name}") for name in ("one", "several"))
    commands.run([*one, "--jobs=1"], LIMIT, ENVIRONMENT).check_returncode()
    tiles, count = folder / "several/tiles", {"kills": 0, "jobs killed": 0, "tiles kept": 0}

    def there():
        return len(list(tiles.glob("*.npz")))

    for kill in range(kills + 1):
        before = there()
        process = commands.start([*several, "--executor=slurm", "--slurm_minutes=60"])
        if kill == kills:
            process.wait(LIMIT)
            break
        _wait_for(lambda: there() >= before + 3, process)  # noqa: B023
        process.kill()
        process.wait()
        jobs = {path.name.split("_")[0] for path in (folder / "several/slurm").glob("*_submitted*")}
        count["jobs killed"] += len(slurm.queue())
        subprocess.run(["scancel", *jobs], check=True)
        while slurm.queue():
            time.sleep(0.5)
        count["kills"] += 1
        count["tiles kept"] = there()
    found = [np.load(folder / name / "kernel.npz") for name in ("one", "several")]
    same = [found[0][name].tobytes() == found[1][name].tobytes() for name in found[0].files]
    return count | {"kernels": len(same), "lost": same.count(False)}


@contextlib.contextmanager
def small_disk(folder, kibibytes):
    """A tmpfs of so many KiB; None where this user cannot mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True)
    except FileNotFoundError:
        done = None
    if done is None or done.returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remount(folder, options):
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def message_problem(done):
    """What is wrong with how a command ended; empty if it told all it should."""
    if "Traceback" in done.stderr:
        return f"a traceback: {done.stderr}"
    if done.returncode not in (0, 1, 2):
        return f"exit code {done.returncode}: {done.stderr}"
    if done.returncode == 2 and "error: " not in done.stderr:
        return f"no message: {done.stdout} {done.stderr}"
    return ""


def written_files(text):
    """Kinds of the files that messages of failed writes name."""
    found = re.findall(r"(\S+): cannot be written", text)
    names = [pathlib.Path(path.split("=")[-1]).name for path in found]
    return {re.sub(r"\d+", "N", name) for name in names}


def fill(folder, name, kibibytes, arguments, module="main", expected=None):
    """One command on a disk of so many KiB, then again on a large one.

    With `expected`, the undisturbed run's outcome, the end must be the same.

    Returns:
        What went wrong, the exit code on the small disk, and kinds of the files that it named.
    """
    with small_disk(folder / name, kibibytes) as disk:
        if disk is None:
            return "no tmpfs can be mounted here", None, set()
        arguments = [str(a).replace("DISK", str(disk)) for a in arguments]
        first = call(*arguments, module=module)
        kept = {path: table(path) for path in disk.rglob("metrics.csv")}
        problem = message_problem(first)
        if any(not path.read_bytes().endswith(b"\n") for path in kept):
            problem += " half a line in metrics.csv"
        logs = "".join(path.read_text(errors="replace") for path in disk.rglob("*.log"))
        remount(disk, "size=1g")
        second = call(*arguments, module=module)
        problem += message_problem(second)
        if second.returncode:
            problem += f" does not finish: {second.stderr}"
        for path, rows in kept.items():
            if table(path)[: len(rows)] != rows:
                problem += f" {path} lost what it held"
        if expected and outcome(disk / "run") != expected:
            problem += " another outcome"
        return problem, first.returncode, written_files(first.stderr + logs)


def fill_disks(folder, jobs=2, mnist=None):
    """Fill the disk at every kind of write; counts."""
    train = [*TINY, "--epochs=3", "--workdir=DISK/run"]
    trajectory = [*TINY, "--experiment=trajectory", "--workdir=DISK/run"]
    rank = ["--dataset=digits", "--experiment=rank", "--examples=20", "--workdir=DISK/run"]
    rank += ["--checkpoint_minutes=0.0001"]
    sweep = [*TINY, "--epochs=2", "--seeds=0", "--runs_dir=DISK/runs"]
    tasks = [("train", size, train, "main") for size in (4, 8, 12, 16, 32, 400, 600, 1100)]
    tasks += [("trajectory", size, trajectory, "main") for size in (8, 16, 64, 600, 2000)]
    tasks += [("rank", size, rank, "main") for size in (4, 12, 48, 120, 400)]
    tasks += [("sweep", size, sweep, "sweep") for size in (4, 16, 400)]
    if mnist:
        prepare = [f"--manual_dir={mnist}", "--data_dir=DISK/tfds", "--prepare_data"]
        tasks += [("tfds", size, prepare, "main") for size in (64, 14_000)]
    source = folder / "finished"
    call(*TINY, "--epochs=2", f"--workdir={source / 'run'}")
    report = [f"--runs_dir={source}", "--output_dir=DISK/report"]
    tasks += [("report", size, report, "report") for size in (4, 64)]
    call(*train[:-1], f"--workdir={folder / 'whole'}")
    expected = {"train": outcome(folder / "whole")}
    count = {"disks": 0, "refused": 0, "finished although full": 0, "problems": 0}
    kinds = {}

    def one(task):
        name, size, arguments, module = task
        place = f"{name}{size}"
        return name, size, *fill(folder, place, size, arguments, module, expected.get(name))

    with futures.ThreadPoolExecutor(jobs) as workers:
        for name, size, problem, code, named in workers.map(one, tasks):
            count["disks"] += 1
            count["refused"] += bool(code)
            count["finished although full"] += code == 0 and bool(named)
            kinds.setdefault(name, set()).update(named)
            if problem:
                count["problems"] += 1
                print(f"{name} on {size} KiB: {problem}", file=sys.stderr)
    for name, named in kinds.items():
        print(f"{name}: messages named {', '.join(sorted(named))}")
    count["problems"] += sum(map(bool, (full_for_a_while(folder), read_only_for_a_while(folder))))
    return count


def _disturb(folder, name, disturb, mend):
    """A run whose disk breaks after the first checkpoint and is mended after the first warning."""
    whole = folder / f"{name}_whole"
    call(*TRAIN, f"--workdir={whole}")
    with small_disk(folder / name, 20_000) as disk:
        if disk is None:
            return "no tmpfs can be mounted here"
        workdir = disk / "run"
        with open(folder / f"{name}.log", "w+") as log:
            arguments = command(*TRAIN, f"--workdir={workdir}")
            process = commands.start(arguments, log, log, ENVIRONMENT)
            _wait_for(lambda: list(workdir.glob("checkpoint/*.npz")), process)
            disturb(disk)
            text = pathlib.Path(log.name)
            _wait_for(lambda: "the run goes on" in text.read_text(), process)
            mend(disk)
            code = process.wait(LIMIT)
            problem = "" if code == 0 else f"exit code {code}: {text.read_text()}"
        if not problem and outcome(workdir) != outcome(whole):
            problem = "another outcome"
    print(f"{name} and mended while the run goes on: {problem or 'as the undisturbed run'}")
    return problem


def _wait_for(condition, process):
    deadline = time.monotonic() + LIMIT
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)


def full_for_a_while(folder):
    def disturb(disk):
        with contextlib.suppress(OSError), open(disk / "ballast", "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    return _disturb(folder, "full", disturb, lambda disk: (disk / "ballast").unlink())


def read_only_for_a_while(folder):
    # Event files stay open, so an ordinary remount is refused; the checkpoint's folder is made
    # immovable by a read-only bind mount over it.
    def bind(disk):
        place = str(disk / "run/checkpoint")
        subprocess.run(["mount", "--bind", place, place], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)

    def unbind(disk):
        subprocess.run(["umount", "--lazy", str(disk / "run/checkpoint")], check=True)

    return _disturb(folder, "read-only", bind, unbind)


def start_together(folder, count, manual_dir):
    """So many runs that share a TFDS folder which does not exist yet; counts."""
    flags = ["--dataset=mnist", "--train_examples=64", "--test_examples=32", "--epochs=1"]
    flags += [f"--manual_dir={manual_dir}", f"--data_dir={folder / 'tfds'}"]
    processes = [
        subprocess.Popen(
            command(*flags, f"--seed={i}", f"--workdir={folder / f'run{i}'}"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )
        for i in range(count)
    ]
    errors = [process.communicate()[1] for process in processes]
    codes = [process.returncode for process in processes]
    for error in filter(None, errors):
        print(error, file=sys.stderr)
    finished = sum(runs.is_finished(folder / f"run{i}") for i in range(count))
    return {"runs": count, "exit code 0": codes.count(0), "lost": count - finished}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("--kills", type=int)
    parser.add_argument("--flag_sets", type=int, default=2000)
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--manual_dir", help="folder of the original MNIST files")
    given = parser.parse_args()
    if given.mode == "parallel" and not given.manual_dir:
        parser.error("parallel needs --manual_dir")
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        if given.mode == "runs":
            count = kill_runs(folder, given.kills or 100, given.jobs)
        elif given.mode == "converged":
            some = ["--preconditioner_examples=100", "--weight_decays=1e-3,1e-4"]
            settings = [[*CONVERGED, "--tolerance=1e-5", flag] for flag in some]
            count = kill_runs(folder, given.kills or 10, given.jobs, settings, each=5)
        elif given.mode == "sweep":
            count = kill_sweeps(folder, given.kills or 20)
        elif given.mode == "tiles":
            count = kill_tiles(folder, given.kills or 2)
        elif given.mode == "disk":
            count = fill_disks(folder, given.jobs, given.manual_dir)
        elif given.mode == "parallel":
            count = start_together(folder, given.runs, given.manual_dir)
        else:
            import fuzz

            count = fuzz.fuzz(folder, given.flag_sets, given.files)
    for name, value in count.items():
        print(f"{name}: {value}")
    print(f"seconds: {time.monotonic() - started:.0f}")
    return 1 if count.get("lost") or count.get("problems") or count.get("orphans") else 0


if __name__ == "__main__":
    sys.exit(main())
