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
from ntk_tf.sweeps.state import DONE, FAILED, INTERRUPTED, RUNNING, WAITING, Entry, last_row


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


@pytest.mark.parametrize(
    "names", [(), ("--epochs=5", "--learning_rates=.05", "--train_examples=200")], ids=len
)
def test_many_failed_runs_hide_neither_the_counts_nor_what_runs(tmp_path, names):
    args = ["--dataset=digits", f"--runs_dir={tmp_path}", "--models=standard"]
    args += names
    found = cli.parse_sweep(["sweep", *args, f"--seeds={','.join(map(str, range(40)))}"]).runs
    entries = [Entry(run, tmp_path / "log") for run in found]
    console = Console(
        file=io.StringIO(), width=80, height=24, force_terminal=True, color_system=None
    )
    display = Display(entries, [{}] * 2, console)
    for entry in entries[:30]:
        entry.status, entry.problem = FAILED, "exit code 1"
        display.tell(entry)
    for entry in entries[30:35]:
        entry.status, entry.slot = RUNNING, 0
    screen = Console(file=io.StringIO(), width=80)
    screen.print(display._table())
    lines = screen.file.getvalue().splitlines()
    assert len(lines) <= 24
    assert lines[0].startswith("40 runs: 30 failed, 5 running, 5 waiting")
    assert sum(" running " in line for line in lines[1:]) == 5
    failed = sum(" failed " in line for line in lines[1:])
    assert failed == (5 if names else 6)  # where names take two lines
    assert f"and {30 - failed} more" in lines[-1]


def test_the_last_row_is_read_from_the_end(tmp_path):
    path = tmp_path / "metrics.csv"
    rows = [{"epoch": i, "test_accuracy": i / 1000} for i in range(1, 1000)]
    runs.write_table(path, runs.METRICS_COLUMNS, rows)
    assert last_row(path) == {"epoch": 999, "test_accuracy": 0.999}
    for text in ("", "epoch,test_accuracy\n", "epoch,test_accuracy\n7\n", "\xff\n"):
        path.write_text(text)
        assert last_row(path) is None
    runs.write_table(path, runs.METRICS_COLUMNS, rows[:1])
    assert last_row(path) == {"epoch": 1, "test_accuracy": 0.001}
