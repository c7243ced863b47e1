"""`--dry_run` and `--emit_commands` of a sweep: what would run, and how large it is."""

import shlex
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from ntk_tf import runs
from ntk_tf.experiments.size import basis, estimate, machine, run_time
from ntk_tf.process import devices
from ntk_tf.process.terminal import Name, duration, say
from ntk_tf.sweeps.grid import Run, Sweep


def commands(runs: Sequence[Run]) -> list[str]:
    """The runs as lines for a shell, started with the `python` on the path."""
    return [shlex.join(["python", *run.arguments]) for run in runs]


def describe(sweep: Sweep, jobs: int, gpus: Sequence[str], console: Console) -> None:
    """List every run with its parameters, memory and estimated time.

    Args:
        sweep: the sweep.
        jobs: how many runs at once.
        gpus: what they may use.
        console: where to print.
    """
    table = Table("run", "parameters", "memory", "time", "", box=None, pad_edge=False)
    for column in table.columns[1:4]:
        column.justify = "right"
        column.no_wrap = True
    speed = machine(gpus, jobs)
    memory, left = 0.0, []
    for run in sweep.runs:
        size = estimate(run.config, run.options.cache_decoded)
        finished = runs.is_finished(run.options.workdir)
        time = run_time(run.config, speed)
        if not finished:
            left.append(None if time is None or time.of else time.seconds)
        memory = max(memory, size.memory)
        table.add_row(
            Name(run.name),
            f"{size.parameters:,}",
            f"{size.memory / 2**30:.1f} GiB",
            "?" if time is None else str(time),
            "finished" if finished else "",
        )
    number, unit = (len(gpus), "GPU") if gpus else (devices.cores(), "core")
    place, count = f"{number} {unit}{'' if number == 1 else 's'}", len(sweep.runs)
    console.print(table)
    say(
        console,
        f"{count} run{'' if count == 1 else 's'} under {sweep.runs_dir}, {jobs} at once on {place};"
        f" {_in_all(left, jobs, gpus)}",
    )
    _warn(min(jobs, max(1, len(left))) * memory, size.available, console)


def _in_all(left: Sequence[float | None], jobs: int, gpus: Sequence[str]) -> str:
    """How long the runs that are left take; None for one whose time is not known before."""
    known = [seconds for seconds in left if seconds is not None]
    unknown = len(left) - len(known)
    if unknown and not known:
        return "how long they take is not known before"
    besides = f" besides {unknown} of unknown time" if unknown else ""
    return f"about {duration(max([*known, sum(known) / jobs]))} in all{besides}, {basis(gpus)}"


def _warn(needed: float, available: float, console: Console) -> None:
    if needed > available:
        say(
            console,
            f"warning: the largest runs together need about {needed / 2**30:.1f} GiB of memory and"
            f" the machine has {available / 2**30:.1f} GiB; fewer --jobs need less",
        )
