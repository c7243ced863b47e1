"""Kills, signals, full disks, divergence, hostile input: `tests/tools/crash_test.py` in short.

An interrupted run must end exactly as the undisturbed one, so that is what all compare with.
"""

import errno
import fcntl
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time
import types

import commands
import crash_test
import numpy as np
import pytest
import tensorflow as tf
from helpers import LENET, QUICK, carry_out

from ntk_tf import runs
from ntk_tf.experiments.resolving import resolve
from ntk_tf.experiments.train import run as train
from ntk_tf.experiments.trajectory import run as trajectory
from ntk_tf.process import memory, signals
from ntk_tf.runs import checkpoint
from ntk_tf.settings import Options
from ntk_tf.sweeps import slurm
from ntk_tf.training.callbacks import divergence
from ntk_tf.training.loop import Plan

ROOT = pathlib.Path(__file__).resolve().parent.parent


def run(workdir, minutes=1e-6, **settings):
    """Train in this process, saving after every execution of the graph."""
    options = Options(workdir, checkpoint_minutes=minutes)
    return carry_out(resolve(**(QUICK | settings)), options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What the undisturbed run ends with."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    run(workdir)
    return crash_test.outcome(workdir)


@pytest.fixture
def listening():
    """Signals are listened to, as in a real command."""
    before = {number: signal.getsignal(number) for number in signals._EXIT_CODES}
    signals.listen()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    signals._came = None


def test_killed_runs_lose_nothing(tmp_path):
    """kill -9 of real commands at random instants, while they save too."""
    flags = ["--dataset=digits", "--batch_size=4", "--epochs=3", "--checkpoint_minutes=0.001"]
    flags += ["--train_examples=480", "--test_examples=50"]
    count = crash_test.kill_runs(tmp_path, 3, 2, [flags, [*flags, "--linearized"]], each=2)
    assert count["kills"] >= 3
    assert count["lost"] == 0


@pytest.mark.parametrize(
    ("number", "code", "step"),
    [(signal.SIGTERM, 75, 3), (signal.SIGUSR2, 75, 14), (signal.SIGINT, 130, 21)],
)
def test_signal_saves_and_ends(number, code, step, whole, listening, tmp_path, monkeypatch):
    """In the middle of an epoch, and at its end only after its row has been written."""
    monkeypatch.setattr(train, "Plan", lambda *a: train_plan(*a[:3], pauses=frozenset({step})))

    def send(self, batch, logs=None):
        self.save.saved = time.monotonic() + 1000  # nothing but the signal saves
        if batch == step:
            os.kill(os.getpid(), number)
        save(self, batch, logs)

    save = train.Save.on_train_batch_end
    monkeypatch.setattr(train.Save, "on_train_batch_end", send)
    with pytest.raises(signals.Interrupted) as stopped:
        run(tmp_path / "run", minutes=10)
    monkeypatch.undo()
    signals.listen()
    assert stopped.value.exit_code == code
    assert checkpoint.restore(tmp_path / "run/checkpoint").step == step
    assert len(crash_test.table(tmp_path / "run/metrics.csv")) == step // 7
    assert not runs.is_finished(tmp_path / "run")
    run(tmp_path / "run")
    assert crash_test.outcome(tmp_path / "run") == whole


def train_plan(*args, **kwargs):
    from ntk_tf.training.loop import Plan

    return Plan(*args, **kwargs)


def test_terminated_command_says_that_it_goes_on(tmp_path):
    arguments = [*crash_test.TRAIN, "--epochs=50", f"--workdir={tmp_path / 'run'}"]
    with open(tmp_path / "errors", "w") as errors:
        process = commands.start(commands.command(*arguments), stderr=errors)
    crash_test._wait_for(lambda: list(tmp_path.glob("run/checkpoint/*.npz")), process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == signals.REQUEUE == 75
    error = (tmp_path / "errors").read_text()
    assert error == "stopped by SIGTERM; the same command goes on where this one was\n"
    assert not runs.is_owned(tmp_path / "run")


def test_what_starts_anew_says_how_it_would_go_on(tmp_path):
    """And is not queued again, as it would then never end."""
    arguments = [*crash_test.TRAIN, "--epochs=50", f"--workdir={tmp_path / 'run'}", "--noresume"]
    with open(tmp_path / "errors", "w") as errors:
        process = commands.start(commands.command(*arguments), stderr=errors)
    crash_test._wait_for(lambda: list(tmp_path.glob("run/checkpoint/*.npz")), process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 1
    error = (tmp_path / "errors").read_text()
    assert error == "stopped by SIGTERM; without --noresume the same command goes on from here\n"


@pytest.mark.parametrize("elsewhere", [False, True])
def test_noresume_begins_without_a_checkpoint(tmp_path, elsewhere):
    run(tmp_path / "run")
    (tmp_path / "run/result.json").unlink()
    folder = tmp_path / "run/checkpoint"
    if elsewhere:
        folder.rename(tmp_path / "scratch")
        folder.symlink_to(tmp_path / "scratch")
    runs.open_workdir(tmp_path / "run", runs.read_json(tmp_path / "run/config.json"), resume=False)
    assert checkpoint.restore(folder) is None
    assert folder.is_symlink() == elsewhere


@pytest.fixture
def full(monkeypatch):
    """A function after which so many writes of files of a name fail for want of space."""
    left = {}
    fsync = os.fsync

    def fail(descriptor):
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        for name in left:
            if name in path and left[name] > 0:
                left[name] -= 1
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    monkeypatch.setattr(runs.files, "INSIST_SECONDS", 0.01)
    return left.update


@pytest.mark.parametrize("name", ["metrics.csv", "step-0000", "result.json"])
def test_a_disk_that_is_full_for_a_while_changes_nothing(name, whole, full, tmp_path):
    full({name: 3})
    with pytest.warns(UserWarning, match=rf"{name}.*: cannot be written \(No space left"):
        run(tmp_path / "run", minutes=0.1)
    assert crash_test.outcome(tmp_path / "run") == whole


@pytest.mark.parametrize("name", ["metrics.csv", "step-0000", "result.json"])
def test_a_disk_that_stays_full_ends_the_run_with_its_name(name, whole, full, tmp_path):
    """Nothing half written remains, and with space the same run ends as the undisturbed one."""
    full({name: 10**6})
    with (
        pytest.warns(UserWarning, match="will try again|trying again"),
        pytest.raises(runs.WriteError, match=rf"{name}.*No space left on device"),
    ):
        run(tmp_path / "run", minutes=0.0005)
    assert not list(tmp_path.rglob("*.tmp"))
    assert not runs.is_finished(tmp_path / "run")
    full({name: 0})
    run(tmp_path / "run")
    assert crash_test.outcome(tmp_path / "run") == whole


def test_event_files_are_made_anew_after_a_failure(whole, tmp_path, monkeypatch):
    """TensorBoard's curves are complete although its disk was full for two epochs."""
    create, failures = tf.summary.create_file_writer, iter(range(2))

    def fail(path):
        if next(failures, None) is not None:
            raise tf.errors.ResourceExhaustedError(None, None, f"{path}; No space left on device")
        return create(path)

    monkeypatch.setattr(tf.summary, "create_file_writer", fail)
    with pytest.warns(UserWarning, match=r"tensorboard: cannot be written \(No space left on devi"):
        run(tmp_path / "run")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "run/tensorboard"))
    events.Reload()
    assert [event.step for event in events.Tensors("test_accuracy")] == [7, 14, 21, 28]
    assert crash_test.outcome(tmp_path / "run") == whole


def test_trajectory_on_a_full_disk_goes_on(full, tmp_path):
    settings = {"experiment": "trajectory", "epochs": None, "max_steps": 10}
    run(tmp_path / "whole", **settings)
    full({"trajectories.npz": 2, "trajectories.svg": 1})
    with pytest.warns(UserWarning, match=r"trajectories\.\w+: cannot be written"):
        run(tmp_path / "run", minutes=0.1, **settings)
    for name in ("trajectories.npz", "trajectory.json"):
        found = [(tmp_path / place / name).read_bytes() for place in ("run", "whole")]
        assert found[0] == found[1]


def test_trajectory_killed_between_its_last_files(tmp_path, monkeypatch):
    """The last checkpoint is there, what was to follow is not: it is made up for."""
    settings = {"experiment": "trajectory", "epochs": None, "max_steps": 10}
    run(tmp_path / "whole", **settings)

    write = trajectory._Trajectory.write_files

    def die(self, step):
        if step == 10:  # on a slow machine files are written before the end too
            raise KeyboardInterrupt
        write(self, step)

    monkeypatch.setattr(trajectory._Trajectory, "write_files", die)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", minutes=10, **settings)
    monkeypatch.undo()
    assert checkpoint.restore(tmp_path / "run/checkpoint").step == 10
    run(tmp_path / "run", **settings)
    name = "trajectories.npz"
    assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_small_disk(tmp_path):
    """A real file system that fills, before real commands."""
    arguments = [*crash_test.TINY, "--epochs=2", "--workdir=DISK/run"]
    problem, code, named = crash_test.fill(tmp_path, "disk", 400, arguments)
    if code is None:
        pytest.skip(problem)
    assert problem == ""
    assert code == 2
    assert named == {"step-N.npz"}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
def test_output_that_cannot_be_written_ends_nothing():
    with open("/dev/full", "w") as full:
        command = crash_test.command("--help")
        assert subprocess.run(command, stdout=full, stderr=full).returncode == 0


@pytest.mark.parametrize("linearized", [False, True])
def test_last_finite_state_survives_divergence(linearized, tmp_path):
    """At this learning rate the weights grow for some updates before the outputs overflow."""
    result = run(tmp_path / "run", learning_rate=30.0, linearized=linearized, **LENET)
    assert result["status"] == "diverged"
    assert result["diverged_at_learning_rate"] == 30.0
    found = checkpoint.restore(tmp_path / "run/checkpoint")
    assert 0 < found.step < result["diverged_at_step"]
    assert all(np.isfinite(value).all() for value in found.arrays.values())
    # A run that is cut off just before the outputs overflow has diverged all the same: so say
    # the outputs of its final weights.
    last = result["diverged_at_step"] - 1
    cut = run(tmp_path / "cut", learning_rate=30.0, linearized=linearized, **LENET, max_steps=last)
    assert (cut["status"], cut["diverged_at_step"]) == ("diverged", last)
    assert checkpoint.restore(tmp_path / "cut/checkpoint").step <= last


def test_divergence_names_the_dropped_learning_rate():
    drops = {"learning_rate": 8.0, "lr_drop_every": 1, "lr_drop_factor": 2.0}
    settings = resolve(**(QUICK | drops))
    plan = Plan(steps_per_epoch=7, total_steps=28)
    assert divergence(15, plan, settings.learning_rate_in)["diverged_at_learning_rate"] == 2.0
    assert divergence(14, plan, settings.learning_rate_in)["diverged_at_learning_rate"] == 4.0


def test_out_of_memory_says_what_helps(tmp_path):
    """A hundred terabytes of weights, which no machine grants."""
    done = crash_test.call("--dataset=digits", "--width=30000", f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "out of memory: the run needs about" in done.stderr
    assert "a smaller --width than 30000" in done.stderr


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor"), True),
        (tf.errors.InternalError(None, None, "CUDA_ERROR_OUT_OF_MEMORY: out of memory"), True),
        (tf.errors.ResourceExhaustedError(None, None, "x; No space left on device"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_is_out_of_memory(error, expected):
    assert memory.is_out_of_memory(error) is expected


def test_damaged_checkpoint_is_passed_over_by_name_and_goes(whole, tmp_path, monkeypatch):
    """A flipped bit in the newest: the one before it is taken, and the end is the same."""
    finish = train.Save.complete
    monkeypatch.setattr(train.Save, "complete", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(tmp_path / "run")
    monkeypatch.setattr(train.Save, "complete", finish)
    folder = tmp_path / "run/checkpoint"
    older, newest = sorted(folder.glob("step-*.npz"))
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 4
    newest.write_bytes(content)
    (folder / "step-000000999.npz").write_bytes(b"PK")
    with pytest.warns(UserWarning, match="is damaged and is passed over") as warned:
        assert checkpoint.restore(folder).step == int(older.stem[5:])
    assert [str(w.message).split()[0] for w in warned] == [
        str(folder / "step-000000999.npz"),
        str(newest),
    ]
    with pytest.warns(UserWarning, match="is damaged"):
        run(tmp_path / "run")
    assert crash_test.outcome(tmp_path / "run") == whole
    assert not (folder / "step-000000999.npz").exists()


@pytest.mark.parametrize("error", [OSError(errno.ESTALE, "Stale file handle"), MemoryError()])
def test_what_cannot_be_read_now_is_not_taken_for_damaged(error, tmp_path, monkeypatch):
    for step in (1, 2):
        checkpoint.save(tmp_path, checkpoint.Checkpoint(step, {"a": np.ones(3)}, {}))

    def fail(*_, **__):
        raise error

    with monkeypatch.context() as context:
        context.setattr(np.lib.npyio, "NpzFile", fail)
        with pytest.raises(runs.RunDirectoryError, match="cannot be read") as raised:
            checkpoint.restore(tmp_path)
    assert not isinstance(raised.value, runs.DamagedError)
    assert checkpoint.restore(tmp_path).step == 2


def test_nothing_is_unpickled(tmp_path):
    """A file that would create another when unpickled."""

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "boom"),)

    np.savez(tmp_path / "bomb.npz", a=np.array([Bomb()], object))
    with pytest.raises(runs.RunDirectoryError, match=r"bomb\.npz: cannot be read"):
        runs.read_arrays(tmp_path / "bomb.npz")
    assert not (tmp_path / "boom").exists()


def test_checkpoint_of_another_version(tmp_path):
    run(tmp_path / "run", max_steps=3)
    (tmp_path / "run/result.json").unlink()
    found = checkpoint.restore(tmp_path / "run/checkpoint")
    old = checkpoint.Checkpoint(found.step, found.arrays, {"rows": []})
    checkpoint.save(tmp_path / "run/checkpoint", old)
    with pytest.raises(runs.RunDirectoryError, match="checkpoint: made by another version"):
        run(tmp_path / "run", max_steps=3)


def test_second_process_is_refused(tmp_path):
    holder = "import sys, time; from ntk_tf import runs; import pathlib\n"
    holder += "runs.own(pathlib.Path(sys.argv[1])); time.sleep(60)"
    workdir = tmp_path / "run"
    workdir.mkdir()
    other = subprocess.Popen([sys.executable, "-c", holder, str(workdir)])
    while not runs.is_owned(workdir):
        time.sleep(0.02)
    with pytest.raises(runs.RunDirectoryError, match="another process is at work there"):
        run(workdir)
    other.kill()
    other.wait()
    assert run(workdir, max_steps=2)["status"] == "completed"


def test_fuzz(tmp_path):
    import fuzz

    found = fuzz.fuzz_flags(fuzz._new(tmp_path / "flags"), 10)
    assert found["flag sets"] == 10
    assert 0 < found["accepted"] < 10
    found = fuzz.fuzz_files(fuzz._new(tmp_path / "files"), 32)
    assert found["files"] >= 32
    assert found["refused"] > 12


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(number, whole, tmp_path, monkeypatch):
    """What a killed run leaves there keeps nobody away."""

    def flock(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.lock").write_text("4711\nanother-node\n")
    assert not runs.is_owned(tmp_path / "run")
    run(tmp_path / "run")
    assert crash_test.outcome(tmp_path / "run") == whole
    assert not runs.is_owned(tmp_path / "run")


#: A run that notes that it was asked to save, and by which signal.
POLITE = """
import pathlib, signal, sys, time
def leave(number, frame):
    pathlib.Path(sys.argv[1]).write_text(signal.Signals(number).name)
    sys.exit(75)
for number in (signal.SIGTERM, signal.SIGUSR2):
    signal.signal(number, leave)
pathlib.Path(sys.argv[1] + ".ready").touch()
while True:  # Python would sleep through a signal that comes just before a long sleep
    time.sleep(0.02)
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
@pytest.mark.parametrize(("number", "requeued"), [(signal.SIGUSR2, True), (signal.SIGTERM, False)])
def test_slurm_script_requeues_on_the_exit_code(number, requeued, tmp_path):
    """With a `scontrol` that notes how it is called."""
    script, saved = tmp_path / "polite.py", tmp_path / "saved"
    script.write_text(POLITE)
    (tmp_path / "commands.txt").write_text(f"false\n{sys.executable} '{script}' '{saved}'\n")
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/called\n')
    scontrol.chmod(0o755)
    place = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "17"}
    job = subprocess.Popen(
        ["bash", ROOT / "scripts/slurm_array.sh", tmp_path / "commands.txt"],
        env=os.environ | place | {"SLURM_ARRAY_TASK_ID": "2"},
    )
    crash_test._wait_for(lambda: pathlib.Path(f"{saved}.ready").exists(), job)
    job.send_signal(number)
    assert job.wait(30) == 75
    assert saved.read_text() == number.name
    called = tmp_path / "called"
    assert (called.read_text() if called.exists() else None) == (
        "requeue 17\n" if requeued else None
    )


def test_slurm_script_keeps_the_code_of_a_run_that_ends_at_once(tmp_path):
    """Even while the trap is still carried out, which is made slow here."""
    text = (ROOT / "scripts/slurm_array.sh").read_text()
    slow = """kill -TERM "$run"; sleep 0.3'"""
    assert text.count("""kill -TERM "$run"'""") == 1
    (tmp_path / "array.sh").write_text(text.replace("""kill -TERM "$run"'""", slow))
    ready = tmp_path / "ready"
    quick = f"trap 'exit 75' TERM; touch {ready}; while :; do sleep 0.01; done"
    (tmp_path / "quick.sh").write_text(quick)
    (tmp_path / "commands.txt").write_text(f"bash {tmp_path}/quick.sh\n")
    job = subprocess.Popen(
        ["bash", tmp_path / "array.sh", tmp_path / "commands.txt"],
        env=os.environ | {"SLURM_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "1"},
    )
    crash_test._wait_for(ready.exists, job)
    job.terminate()
    assert job.wait(30) == 75


def test_slurm_job_lets_its_run_save_before_it_is_queued_again(tmp_path, monkeypatch):
    """As submitit does it: `checkpoint` is called from a signal handler, amid the job's call."""
    helpers = types.SimpleNamespace(DelayedSubmission=lambda job: job)
    monkeypatch.setitem(sys.modules, "submitit", types.SimpleNamespace(helpers=helpers))
    script, saved = tmp_path / "polite.py", tmp_path / "saved"
    script.write_text(POLITE)
    job = slurm.Job([sys.executable, str(script), str(saved)], tmp_path / "log")
    again = []
    before = signal.signal(signal.SIGUSR1, lambda *_: again.append(job.checkpoint()))

    def send():
        while not pathlib.Path(f"{saved}.ready").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGUSR1)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        assert job() == 75
    finally:
        sender.join()
        signal.signal(signal.SIGUSR1, before)
    assert saved.read_text() == "SIGTERM"
    assert again == [job]
