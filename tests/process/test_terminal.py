"""What fits on a terminal, and what stays as it is."""

import io

import pytest
from rich.console import Console
from rich.table import Table

from ntk_tf.process import terminal
from ntk_tf.training.loop import Plan
from ntk_tf.training.progress import ShowProgress

NAME = "lenet_x1_digits_seed0_epochs3_learning_rate0.01_train_examples400"


def console(width):
    return Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None)


def test_lines_are_printed_as_they_are():
    out = console(20)
    line = "runs/lr[/old]/[bold]x 'text' 12.5 " + "long " * 10 + "end"
    terminal.say(out, line)
    assert out.file.getvalue() == line + "\n"


@pytest.mark.parametrize("width", [14, 20, 30, 64, 65])
def test_names_break_after_underscores_and_slashes(width):
    lines = terminal.break_name(NAME, width)
    assert "".join(lines) == NAME
    assert all(line.endswith("_") for line in lines[:-1])
    assert max(map(len, lines)) <= width
    assert len(lines) == 1 or all(
        len(a + b.split("_")[0] + "_") > width for a, b in zip(lines, lines[1:], strict=False)
    )


def test_names_in_a_narrow_table():
    table = Table("run", "result", box=None, pad_edge=False)
    table.columns[1].no_wrap = True
    table.add_row(terminal.Name(NAME), "x" * 40)
    out = console(80)
    out.print(table)
    text = out.file.getvalue()
    assert "x" * 40 in text
    first = [line.split()[0] for line in text.splitlines()[1:] if line.strip()]
    assert "".join(first) == NAME
    assert all(part.endswith("_") for part in first[:-1])


def test_the_least_important_parts_go_first():
    parts = [(3, "title"), (5, "epoch 1/9"), (1, "loss 0.1"), (2, "train 9%"), (4, "")]
    assert terminal.fit(parts, 36) == "title  epoch 1/9  loss 0.1  train 9%"
    assert terminal.fit(parts, 35) == "title  epoch 1/9  train 9%"
    assert terminal.fit(parts, 25) == "title  epoch 1/9"
    assert terminal.fit(parts, 1) == "epoch 1/9"


@pytest.mark.parametrize("width", [60, 80, 120])
def test_progress_keeps_its_bar_and_the_time_left(width):
    out, plan = console(width), Plan(1875, 187_500)
    title = "LinLeNet x10 on /data/[a]/pictures.npz"
    with ShowProgress(title, plan, out) as shown:
        shown.on_train_batch_end(100_000, {"loss": 0.0123, "accuracy": 0.97})
        shown.on_epoch_end(53, {"test_accuracy": 0.961})
        screen = Console(width=width, file=io.StringIO())
        screen.print(shown.progress.get_renderable())
    (line,) = screen.file.getvalue().splitlines()
    assert len(line) <= width
    assert line.count("━") >= 3
    assert line.rstrip().endswith("left")
    assert "53%" in line
    assert "epoch 54/100" in line
    assert (title in line) == (width == 120)


def test_lines_where_there_is_no_terminal(monkeypatch):
    """Of what has a bar alone a line a minute, if there is news, and the time that is left."""
    clock = iter(range(0, 10_000, 25))
    monkeypatch.setattr(terminal.time, "monotonic", lambda: next(clock))
    out = Console(width=80, file=io.StringIO(), force_terminal=False)
    with terminal.progress(out) as shown:
        task = shown.add_task("NTK of LeNet x1", total=8)
        for step in (3, 3, 3, 3, 3, 3, 4, 4, 4, 5, 6):  # 25 seconds apart
            shown.update(task, completed=step)
    assert out.file.getvalue().splitlines() == [
        "NTK of LeNet x1  38%",
        "NTK of LeNet x1  50%  10 min left",  # a step in 150 s, four steps
        "NTK of LeNet x1  62%  6 min left",  # two steps in 225 s, three steps
    ]


def test_long_epochs_print_lines(monkeypatch):
    out = Console(width=80, file=io.StringIO(), force_terminal=False)
    with ShowProgress("LeNet x1", Plan(1000, 2000), out, within_seconds=0.0) as shown:
        shown.on_train_batch_end(500, {"loss": 0.0123, "accuracy": 0.97})
    (line,) = out.file.getvalue().splitlines()
    assert line.startswith("LeNet x1  epoch 1/2  loss 0.0123  train 97.0%  ")
    assert line.endswith(" s left")
