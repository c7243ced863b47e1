"""What a sweep looks like on the screen."""

import dataclasses
import io
import signal
import time

import pytest
from rich.console import Console

from ntk_tf import cli, runs
from ntk_tf.process import signals
from ntk_tf.sweeps.display import Display
from ntk_tf.sweeps.local import Runner
from ntk_tf.sweeps.state import DONE, INTERRUPTED, RUNNING, WAITING, Entry


@pytest.fixture
def entries(tmp_path):
    """Three runs: one done, one in its second epoch of four, one waiting."""
    args = ["--dataset=digits", "--models=standard", "--epochs=4", "--learning_rates=0.01"]
    found = cli.parse_sweep(["sweep", *args, "--seeds=0,1,2", f"--runs_dir={tmp_path}"]).runs
    found = [Entry(run, tmp_path / "log") for run in found]
    for entry in found[:2]:
        entry.workdir.mkdir()
        rows = [{"epoch": 2, "test_accuracy": 0.5}]
        runs.write_table(entry.workdir / "metrics.csv", runs.METRICS_COLUMNS, rows)
    result = {"status": "completed", "test_accuracy": 0.9}
    runs.write_json(found[0].workdir / "result.json", result)
    found[0].status, found[0].seconds, found[0].attempts = DONE, 60.0, 1
    found[1].status, found[1].started, found[1].slot = RUNNING, time.monotonic() - 30, 0
    return found


class Process:
    """A process that goes on until it is told to end."""

    def poll(self):
        return None

    def terminate(self):
        pass

    def wait(self, timeout):
        return 0


def stop(entries, terminal):
    """A sweep that a signal ends while the second run is running; what was written."""
    entries[1].process = Process()
    console = Console(file=io.StringIO(), width=80, force_terminal=terminal, color_system=None)
    display = Display(entries, [{}], console)
    before = display.counts()

    def interrupt():
        raise signals.Interrupted(signal.SIGINT)

    with pytest.raises(signals.Interrupted), display:
        Runner(entries, [{}], display.tell, interrupt).run()
    return before, display.counts(), console.file.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_a_stopped_sweep_has_interrupted_runs_and_no_time_left(entries, terminal):
    before, after, text = stop(entries, terminal)
    assert before.startswith("3 runs: 1 done, 1 running, 1 waiting; about ")
    assert [entry.status for entry in entries] == [DONE, INTERRUPTED, WAITING]
    assert after == "3 runs: 1 done, 1 interrupted, 1 waiting"
    assert text.count("interrupted") >= 1
    assert "epoch 2/4" in text
    assert 25 < entries[1].elapsed() < 600


def test_names_on_80_columns_break_after_underscores(entries, tmp_path):
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    options = dataclasses.replace(entries[1].run.options, workdir=tmp_path / ("ab_" * 25 + "end"))
    entries[1].run = dataclasses.replace(entries[1].run, options=options)
    with Display(entries, [{}], console):
        pass
    lines = console.file.getvalue().rpartition("run ")[2].splitlines()  # the last table
    pieces = [line.split()[0] for line in lines if line.startswith("ab_") or "end" in line[:40]]
    assert "".join(pieces) == "ab_" * 25 + "end"
    assert all(piece.endswith("_") for piece in pieces[:-1])


@pytest.mark.parametrize("experiment", ["rank", "trajectory", "baseline", "train"])
def test_every_experiment_has_a_cost_a_fraction_and_an_outcome(experiment, tmp_path):
    args = ["--dataset=digits", f"--experiment={experiment}", f"--runs_dir={tmp_path}"]
    (first, *_) = cli.parse_sweep(["sweep", *args]).runs
    entry = Entry(first, tmp_path / "log", status=RUNNING, slot=0)
    entry.workdir.mkdir()
    assert entry.cost() > 0
    assert entry.fraction() == 0
    result = {"status": "completed", "effective_rank": 9.5, "rows": 20, "relative_distance": 0.25}
    runs.write_json(entry.workdir / "result.json", result)
    expected = {"rank": "effective rank 9.5 of 20", "trajectory": "relative distance 0.250"}
    assert entry.read_result()
    assert entry.outcome() == expected.get(experiment, "")
    display = Display([entry], [{}], Console(file=io.StringIO()))
    display.tell(entry)
    assert display.counts() == "1 runs: 1 done"
