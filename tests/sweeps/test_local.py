"""The runner, with fake runs: no TensorFlow, fractions of a second."""

import io
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from fake_runs import FAKE, FakeRun, attempts
from rich.console import Console

from ntk_tf import cli, runs
from ntk_tf.sweeps import launch, process
from ntk_tf.sweeps.display import Display
from ntk_tf.sweeps.local import Runner
from ntk_tf.sweeps.state import DIVERGED, DONE, FAILED, RUNNING, Entry, seconds_left


@pytest.fixture
def entries(tmp_path):
    """A function from kinds of fake runs to the entries of a sweep."""

    def make(*kinds):
        seeds = ",".join(str(i) for i in range(len(kinds)))
        args = ["--dataset=digits", "--models=standard", f"--runs_dir={tmp_path}"]
        found = cli.parse_sweep(["sweep", *args, f"--seeds={seeds}"]).runs
        return [
            Entry(FakeRun(run.config, run.options, kind), tmp_path / "logs" / f"{run.name}.log")
            for run, kind in zip(found, kinds, strict=True)
        ]

    return make


def carry_out(entries, jobs=2, terminal=False):
    """Run and report; what was written and the exit code."""
    console = Console(file=io.StringIO(), width=120, force_terminal=terminal)
    environments = [dict(os.environ) for _ in range(jobs)]
    with Display(entries, environments, console) as display:
        Runner(entries, environments, display.tell, display.tick).run()
    code = launch.report(entries, display, console)
    return console.file.getvalue(), code


@pytest.mark.parametrize("terminal", [False, True])
def test_every_fate(entries, terminal):
    """One failure is retried; a lasting one is reported with its log, and the rest goes on."""
    found = entries("fine", "fails", "flaky", "diverges", "fine")
    text, code = carry_out(found, terminal=terminal)
    assert [entry.status for entry in found] == [DONE, FAILED, DONE, DIVERGED, DONE]
    assert [attempts(entry) for entry in found] == [1, 2, 2, 1, 1]
    assert code == 1
    assert "3 done" in text
    assert "1 diverged" in text
    assert "the reason" in text
    assert "exit code 3" in text
    assert found[1].log.read_text().splitlines().count("the reason") == 2


def test_a_run_that_is_refused_is_not_started_again(entries):
    (entry,) = entries("refused")
    _, code = carry_out([entry])
    assert (code, entry.status, attempts(entry)) == (1, FAILED, 1)


def test_a_run_that_was_asked_to_end_has_not_failed(entries):
    """It exits with 75, has saved, and goes on, however often that happens."""
    (entry,) = entries("stopped")
    _, code = carry_out([entry])
    assert (code, entry.status) == (0, DONE)
    assert attempts(entry) == 5
    assert entry.attempts == 1


def test_log_that_cannot_be_opened_is_one_line(entries):
    (entry,) = entries("fine")
    entry.log.parent.mkdir()
    entry.log.mkdir()
    with pytest.raises(runs.WriteError, match="seed0.log: cannot be written"):
        carry_out([entry])


def test_finished_runs_are_not_started_again(entries):
    carry_out(entries("fine", "diverges"))
    again = entries("fine", "diverges")
    text, code = carry_out(again)
    assert [attempts(entry) for entry in again] == [1, 1]
    assert code == 0
    assert text.startswith("2 runs: 1 done, 1 diverged, 2 of them before")


@pytest.mark.parametrize("done_before", [0, 1])
def test_the_last_counts_are_of_all_runs(entries, done_before):
    """Wherever in the order those are that had been finished before, of one run at a time."""
    carry_out(entries("fine", "diverges")[done_before : done_before + 1])
    text, _ = carry_out(entries("fine", "diverges"), jobs=1)
    counts = [line for line in text.splitlines() if line.startswith("2 runs: ")]
    assert counts[-1] == "2 runs: 1 done, 1 diverged, 1 of them before"


def test_jobs_at_once(entries):
    most = 0
    found = entries("fine", "fine", "fine", "fine")

    def tell(_):
        nonlocal most
        most = max(most, sum(entry.status == RUNNING for entry in found))

    Runner(found, [dict(os.environ)] * 3, tell, lambda: None).run()
    assert most == 3


def test_run_owned_by_another_process_is_left_to_it(entries):
    """An orphan, or a second sweep: wait until it is done, and start nothing."""
    (entry,) = entries("fine")
    other = subprocess.Popen([sys.executable, "-c", FAKE, "slow", str(entry.workdir)])
    while not runs.is_owned(entry.workdir):
        time.sleep(0.02)
    with pytest.raises(runs.RunDirectoryError, match="another process"):
        runs.own(entry.workdir)
    seen = []

    def tell(changed):
        seen.append(changed.status)
        if changed.status == "elsewhere":
            (entry.workdir / "result.json").write_text('{"status": "completed"}')
            other.kill()

    Runner([entry], [dict(os.environ)], tell, lambda: None).run()
    other.wait()
    assert seen == ["elsewhere", "done"]
    assert attempts(entry) == 1
    assert not runs.is_owned(entry.workdir)  # the lock died with its owner


#: A sweep of two slow fake runs.
SWEEP = """
import dataclasses, sys
from rich.console import Console
from ntk_tf import cli

from ntk_tf.sweeps import launch
from fake_runs import FakeRun

sweep = cli.parse_sweep(["sweep", "--dataset=digits", f"--runs_dir={sys.argv[1]}", "--jobs=2"])
fakes = tuple(FakeRun(run.config, run.options, "slow") for run in sweep.runs)
sys.exit(launch.run(dataclasses.replace(sweep, runs=fakes), Console(width=100)))
"""


@pytest.fixture
def slow_sweep(tmp_path):
    """A sweep process whose two runs have started, and a function that tells if they live."""
    root = pathlib.Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", SWEEP, str(tmp_path)]
    path = os.pathsep.join([str(root), str(root / "tests/sweeps")])
    process = subprocess.Popen(
        command, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, text=True
    )

    def owned():
        return [path for path in tmp_path.glob("*x1*") if runs.is_owned(path)]

    deadline = time.monotonic() + 60
    while len(owned()) < 2:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    yield process, owned
    process.kill()
    process.wait()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGUSR2, 75)]
)
def test_signals_end_the_runs_too(slow_sweep, number, code):
    process, owned = slow_sweep
    process.send_signal(number)
    text, _ = process.communicate(timeout=20)
    assert process.returncode == code
    assert owned() == []
    assert "0 of 2 runs finished; the same command goes on" in text


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
def test_killed_sweep_leaves_no_orphans(slow_sweep):
    process, owned = slow_sweep
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while owned():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_time_left_is_in_proportion_to_the_work_done(entries):
    found = entries("fine", "fine", "fine")
    assert seconds_left(found, 1) is None
    found[0].status, found[0].seconds = DONE, 30.0
    assert seconds_left(found, 1) == pytest.approx(60.0)
    assert seconds_left(found, 2) == pytest.approx(30.0)
    found[1].status, found[1].skipped = DONE, True
    assert seconds_left(found, 1) == pytest.approx(30.0)
    assert seconds_left(found, 8) == pytest.approx(30.0)  # one run is left
    found[1].status, found[1].skipped, found[1].seconds = DIVERGED, False, 1.0
    assert seconds_left(found, 1) == pytest.approx(30.0)


def test_exit_codes_in_words():
    assert process.explain(3) == "exit code 3"
    assert "out of memory" in process.explain(-9)
    assert process.explain(-40) == "signal 40"  # a real-time one, which has no name
    assert process.explain(-15) == "SIGTERM"


def test_remains_of_a_write_do_not_block_the_run(tmp_path):
    """kill -9 while config.json is written leaves a temporary file and no run."""
    workdir = tmp_path / "run"
    workdir.mkdir()
    (workdir / ".config.json.123.tmp").touch()
    (workdir / ".lock").touch()
    runs.check_workdir(workdir, {"a": 1})
    runs.open_workdir(workdir, {"a": 1}, resume=True)
    assert sorted(path.name for path in workdir.iterdir()) == [".lock", "config.json"]
    assert not runs.is_owned(workdir)  # by another process


def test_time_counts_once(entries):
    """Of a run that was stopped, waited, ran again and ended between two looks at it."""
    (entry,) = entries("fine")
    for status in ("waiting", DONE):
        entry.status, entry.started = RUNNING, time.monotonic() - 10
        entry.leave(status)
        entry.leave(status)
    assert entry.seconds == pytest.approx(20, abs=1)
