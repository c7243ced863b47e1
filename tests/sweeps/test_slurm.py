"""Sweeps through a real SLURM; `scripts/single_node_slurm.sh start` brings one up."""

import contextlib
import io
import os
import shutil
import subprocess
import sys
import time
import types

import pytest
from fake_runs import FakeRun, attempts
from rich.console import Console

from ntk_tf import cli
from ntk_tf.process import slurm as cluster_of
from ntk_tf.sweeps import slurm
from ntk_tf.sweeps.display import Display
from ntk_tf.sweeps.state import DIVERGED, DONE, FAILED, RUNNING, WAITING, Entry


@pytest.fixture
def cluster():
    pytest.importorskip("submitit", reason="submitit is not installed")
    if shutil.which("sinfo") is None:
        pytest.skip("no SLURM here; scripts/single_node_slurm.sh start installs one")
    found = subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True)
    if found.returncode or not {"idle", "mixed", "allocated"} & set(found.stdout.split()):
        pytest.skip("SLURM is installed and has no node up; scripts/single_node_slurm.sh start")


def make_runner(tmp_path, kinds, disturb=lambda entry: None):
    """A runner of fake runs that calls `disturb` when an entry's status has changed."""
    seeds = ",".join(str(i) for i in range(len(kinds)))
    args = ["--dataset=digits", "--models=standard", f"--runs_dir={tmp_path}", f"--seeds={seeds}"]
    sweep = cli.parse_sweep(
        ["sweep", *args, "--executor=slurm", "--slurm_cpus=1", "--slurm_minutes=5"]
    )
    entries = [
        Entry(FakeRun(run.config, run.options, kind), tmp_path / "logs" / f"{run.name}.log")
        for run, kind in zip(sweep.runs, kinds, strict=True)
    ]
    submit = cluster_of.executor(tmp_path / "slurm", None, sweep.slurm)
    display = Display(entries, [{}] * len(entries), Console(file=io.StringIO()))

    def tell(entry):
        display.tell(entry)
        disturb(entry)

    return slurm.SlurmRunner(entries, submit, tell, display.tick)


def test_every_fate(cluster, tmp_path, monkeypatch):
    """A run fails twice, one is requeued, one is cancelled: each is taken care of."""
    monkeypatch.setattr(slurm, "TICK", 0.5)
    runner = None
    disturbed = set()

    def disturb(entry):
        """Once for each run that is slow at first, as soon as it is at work."""
        seed = entry.run.config.seed
        action = {3: ["scontrol", "requeue"], 4: ["scancel"]}.get(seed)
        if entry.status != RUNNING or action is None or seed in disturbed:
            return
        disturbed.add(seed)
        deadline = time.monotonic() + 60
        while not attempts(entry):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        subprocess.run([*action, runner.jobs[entry.run.name]], check=True)

    kinds = ["fine", "fails", "diverges", "slow at first", "slow at first"]
    runner = make_runner(tmp_path, kinds, disturb)
    runner.run()
    assert [entry.status for entry in runner.entries] == [DONE, FAILED, DIVERGED, DONE, DONE]
    assert [attempts(entry) for entry in runner.entries] == [1, 2, 1, 2, 2]
    assert disturbed == {3, 4}
    assert runner.job_ids() == []
    again = make_runner(tmp_path, ["fine", "fine"])
    again.entries[1].run = runner.entries[2].run
    again.run()
    assert [attempts(entry) for entry in again.entries] == [1, 1]
    assert not again.jobs


class FakeExecutor:
    """Takes jobs as submitit does; `arrays`: their number and how many may run at once."""

    def __init__(self, at_once):
        self.parameters, self.arrays = {"array_parallelism": at_once}, []

    def update_parameters(self, **given):
        self.parameters |= given

    @contextlib.contextmanager
    def batch(self):
        self.arrays.append([0, self.parameters["array_parallelism"]])
        yield

    def submit(self, job):
        self.arrays[-1][0] += 1
        return types.SimpleNamespace(job_id=f"{len(self.arrays)}_{self.arrays[-1][0]}")


@pytest.mark.parametrize(
    ("largest", "arrays"), [(2, [[2, 2], [2, 2], [1, 2]]), (4, [[3, 4], [2, 4]]), (5, [[5, 8]])]
)
def test_more_runs_than_an_array_may_have(tmp_path, monkeypatch, largest, arrays):
    monkeypatch.setattr(cluster_of, "largest_array", lambda: largest)
    flags = ["--dataset=digits", "--models=standard", "--seeds=0,1,2,3,4"]
    sweep = cli.parse_sweep(["sweep", *flags, f"--runs_dir={tmp_path}"])
    entries = [Entry(run, tmp_path / "log") for run in sweep.runs]
    submit = FakeExecutor(8)
    runner = slurm.SlurmRunner(entries, submit, lambda entry: None, lambda: None)
    runner._submit(runner._unsubmitted())
    assert submit.arrays == arrays
    assert runner.jobs.keys() == {run.name for run in sweep.runs}
    assert submit.parameters["array_parallelism"] == 8
    assert runner._unsubmitted() == []


def test_there_are_no_more_arrays_than_jobs_at_once(tmp_path, monkeypatch):
    """The others are submitted when the jobs of one have ended."""
    monkeypatch.setattr(cluster_of, "largest_array", lambda: 2)
    flags = ["--dataset=digits", "--models=standard", "--seeds=0,1,2,3,4"]
    sweep = cli.parse_sweep(["sweep", *flags, f"--runs_dir={tmp_path}"])
    entries = [Entry(run, tmp_path / f"{run.name}.log") for run in sweep.runs]
    submit = FakeExecutor(1)
    runner = slurm.SlurmRunner(entries, submit, lambda entry: None, lambda: None)
    for ended in (0, 1, 2, 4, 5):
        for entry in entries[:ended]:
            entry.status = DONE
        runner._submit(runner._unsubmitted())
        assert len(submit.arrays) == min(ended // 2 + 1, 3)
    assert submit.arrays == [[2, 1], [2, 1], [1, 1]]


def ended_job(tmp_path, code):
    """A runner whose only run's job is gone; the run's entry."""
    sweep = cli.parse_sweep(
        ["sweep", "--dataset=digits", "--models=standard", "--seeds=0", f"--runs_dir={tmp_path}"]
    )
    (entry,) = [Entry(run, tmp_path / "logs/run.log") for run in sweep.runs]
    runner = slurm.SlurmRunner([entry], FakeExecutor(8), lambda entry: None, lambda: None)
    runner._submit(runner._unsubmitted())
    if code is not None:
        program = f"import sys; sys.exit({code})"
        assert slurm.Job([sys.executable, "-c", program], entry.log)() == code
    runner._fail(entry)
    return runner, entry


@pytest.mark.parametrize(
    ("code", "status", "problem"),
    [
        (2, FAILED, "SLURM job 1_1: exit code 2"),
        (1, WAITING, "SLURM job 1_1: exit code 1"),
        (None, WAITING, "SLURM job 1_1 left no result"),
    ],
)
def test_a_run_that_was_refused_is_not_started_again(code, status, problem, tmp_path):
    runner, entry = ended_job(tmp_path, code)
    assert (entry.status, entry.problem) == (status, problem)
    if status == WAITING:  # what an earlier job has told is not the next one's
        runner._submit(runner._unsubmitted())
        runner._fail(entry)
        assert (entry.status, entry.problem) == (FAILED, "SLURM job 2_1 left no result")


def test_what_is_not_taken_is_tried_again_after_a_while(tmp_path, monkeypatch):
    class Full(FakeExecutor):
        @contextlib.contextmanager
        def batch(self):
            self.arrays.append([0, 0])
            yield
            if len(self.arrays) > 1:
                raise RuntimeError("sbatch: error: too many jobs")

    now = 1e6
    monkeypatch.setattr(slurm.time, "monotonic", lambda: now)
    sweep = cli.parse_sweep(
        ["sweep", "--dataset=digits", "--models=standard", "--seeds=0,1", f"--runs_dir={tmp_path}"]
    )
    entries = [Entry(run, tmp_path / f"{run.name}.log") for run in sweep.runs]
    submit = Full(8)
    runner = slurm.SlurmRunner(entries, submit, lambda entry: None, lambda: None)
    runner._submit(entries[:1])
    with pytest.warns(UserWarning, match="sbatch failed: .*too many jobs; trying again"):
        runner._submit(entries[1:])
    for seconds, tries in ((3, 2), (50, 2), (10, 3)):
        now += seconds
        runner._submit(entries[1:])
        assert len(submit.arrays) == tries


def test_jobs_that_wait_are_not_submitted_again(tmp_path, monkeypatch):
    """A second sweep finds two of an earlier one's jobs in the queue, and the third gone."""
    flags = ["--dataset=digits", "--models=standard", "--seeds=0,1,2"]
    sweep = cli.parse_sweep(["sweep", *flags, f"--runs_dir={tmp_path}"])

    def runner():
        entries = [Entry(run, tmp_path / "logs" / f"{run.name}.log") for run in sweep.runs]
        return slurm.SlurmRunner(entries, FakeExecutor(8), lambda entry: None, lambda: None)

    first, second = runner(), runner()
    first._submit(first._unsubmitted())
    monkeypatch.setattr(cluster_of, "queue", lambda: {"1_1": "PENDING", "1_3": "RUNNING"})
    second._adopt()
    assert second.jobs == {sweep.runs[i].name: f"1_{i + 1}" for i in (0, 2)}
    assert second.job_ids() == ["1"]
    assert [entry.run.name for entry in second._unsubmitted()] == [sweep.runs[1].name]


def test_largest_array_is_slurms(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cluster_of.largest_array() == 1001
    (tmp_path / "scontrol").write_text("#!/bin/sh\necho 'MaxArraySize            = 77'\n")
    (tmp_path / "scontrol").chmod(0o755)
    assert cluster_of.largest_array() == 77


def test_what_sbatch_says_is_one_line(capsys):
    class Executor:
        @contextlib.contextmanager
        def batch(self):
            yield
            print("submitit says it too", file=sys.stderr)
            raise RuntimeError("\n-----\nsbatch: error: invalid partition specified: nope\n")

    told = "sbatch failed: .*partition specified: nope$"
    with pytest.raises(cluster_of.SlurmError, match=told), cluster_of.batch(Executor()):
        pass
    assert capsys.readouterr() == ("", "")


def test_refused_without_slurm(tmp_path):
    environment = os.environ | {"PATH": str(tmp_path)}
    args = ["--executor=slurm", "--dataset=digits", f"--runs_dir={tmp_path / 'runs'}"]
    command = [sys.executable, "-m", "ntk_tf.sweep", *args]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "--executor=slurm" in done.stderr
    assert list(tmp_path.iterdir()) == []


def squeue(monkeypatch, answers):
    """In place of squeue: what it answers, look by look; None for a failure."""
    looks = iter(answers)

    def run(*_, **__):
        answer = next(looks)
        error = "slurm_load_jobs error: Socket timed out"
        return types.SimpleNamespace(
            returncode=int(answer is None), stdout=answer or "", stderr=f"{error}\n"
        )

    monkeypatch.setattr(cluster_of.subprocess, "run", run)


def test_lines_of_another_form_are_no_jobs(monkeypatch):
    squeue(monkeypatch, ["\n7_0 RUNNING\nslurm\n7_1 DEADLINE\n"])
    assert cluster_of.queue() == {"7_0": "RUNNING"}


def test_without_squeue_it_is_slurm_that_does_not_answer(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(cluster_of.SlurmError, match="squeue cannot be started"):
        cluster_of.queue()


def test_slurm_may_fail_to_answer_for_a_while(tmp_path, monkeypatch):
    """A job is not taken for gone meanwhile; after too long it is an error."""
    squeue(monkeypatch, ["7_0 RUNNING\n", None, None, None, None, "7_0 PENDING\n", None, None])
    queue = cluster_of.Queue()
    assert queue.look() == {"7_0": "RUNNING"}
    with pytest.warns(UserWarning, match="Socket timed out; trying again for 30 minutes") as told:
        assert [queue.look() for _ in range(4)] == [None] * 4
    assert len(told) == 1
    assert queue.look() == {"7_0": "PENDING"}
    monkeypatch.setattr(cluster_of, "PATIENCE", -1.0)
    with (
        pytest.warns(UserWarning, match="Socket timed out"),
        pytest.raises(cluster_of.SlurmError, match="squeue failed: .* Socket timed out$"),
    ):
        queue.look()
