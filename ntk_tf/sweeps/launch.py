"""A sweep from beginning to end: what is missing is prepared, run and counted."""

import contextlib
import pathlib
import shlex
import subprocess
from collections.abc import Sequence

from rich.console import Console

from ntk_tf import runs
from ntk_tf.catalogue import architectures
from ntk_tf.experiments import trained_weights
from ntk_tf.process import devices, signals
from ntk_tf.process import slurm as cluster
from ntk_tf.process.terminal import say
from ntk_tf.settings import Config
from ntk_tf.sweeps import environments, listing, process, slurm
from ntk_tf.sweeps.display import Display
from ntk_tf.sweeps.grid import Run, Sweep
from ntk_tf.sweeps.local import Runner
from ntk_tf.sweeps.state import DONE, FAILED, Entry


def run(sweep: Sweep, console: Console) -> int:
    """Do what the command line of a sweep asks for.

    Args:
        sweep: what it asks for.
        console: where to write.

    Returns:
        The exit code: 0 if all runs are finished, 1 if some failed, 2 if the data cannot be had,
        that of `signals.Interrupted` if a signal ended the sweep.

    Raises:
        RunDirectoryError: if a run directory cannot be used.
        SlurmError: if SLURM is asked for and cannot be used.
    """
    if sweep.emit_commands:
        with contextlib.suppress(BrokenPipeError):  # as in `| head`
            print("\n".join(listing.commands(sweep.runs)), flush=True)
        return 0
    if sweep.prepare_data:
        signals.listen()
        try:
            return prepare(sweep.runs)
        except signals.Interrupted as stopped:
            say(console, f"{stopped}: the data may not be at hand")
            return stopped.exit_code
    for each in sweep.runs:
        runs.check_workdir(each.options.workdir, each.config.to_dict(), each.config.added())
        if not runs.is_finished(each.options.workdir):
            trained_weights.check(each.config)
    gpus = devices.gpus()
    jobs = sweep.jobs or max(1, len(gpus))
    if sweep.dry_run:
        listing.describe(sweep, jobs, gpus, console)
        return 0
    entries = [Entry(each, sweep.runs_dir / "logs" / f"{each.name}.log") for each in sweep.runs]
    signals.listen()
    try:
        code = prepare([entry.run for entry in entries if not runs.is_finished(entry.workdir)])
        if code and not any(entry.log.exists() for entry in entries):
            return code  # later it may be one of the runs that cannot be carried out
        if sweep.executor == "slurm":
            return _submit(sweep, entries, console)
        return _carry_out(entries, environments.of_jobs(jobs, gpus), console)
    except signals.Interrupted as stopped:
        done = sum(runs.is_finished(entry.workdir) for entry in entries)
        say(
            console,
            f"{stopped}: {done} of {len(entries)} runs finished;"
            " the same command goes on with the others",
        )
        return stopped.exit_code


def prepare(missing: Sequence[Run]) -> int:
    """See in a process of its own that data and network can be used, before any run starts.

    Args:
        missing: the runs that are not finished.

    Returns:
        0, or the exit code of the process, which has said on standard error what is wrong.
    """
    if not missing or not _needs_preparation(missing[0].config):
        return 0
    command = [*missing[0].command, "--prepare_data"]
    child = subprocess.Popen(command, start_new_session=True)
    try:
        return child.wait()
    finally:
        process.end([child])


def _needs_preparation(config: Config) -> bool:
    return not config.card.embedded or architectures.is_own(config.arch)


def _carry_out(
    entries: Sequence[Entry], environments: Sequence[dict[str, str]], console: Console
) -> int:
    """Carry out the runs on this machine, and report."""
    with Display(entries, environments, console) as display:
        Runner(entries, environments, display.tell, display.tick).run()
    return report(entries, display, console)


def _submit(sweep: Sweep, entries: Sequence[Entry], console: Console) -> int:
    """Carry out the runs as SLURM jobs, and report.

    Raises:
        Interrupted: by a signal; the jobs go on.
    """
    folder = sweep.runs_dir / "logs" / "slurm"
    submit = cluster.executor(folder.resolve(), sweep.jobs, sweep.slurm)
    with Display(entries, [{}] * (sweep.jobs or len(entries)), console) as display:
        runner = slurm.SlurmRunner(entries, submit, display.tell, display.tick)
        try:
            runner.run()
        except signals.Interrupted:
            if ids := runner.job_ids():
                say(console, f"the jobs go on; to end them: scancel {' '.join(ids)}")
            raise
    return report(entries, display, console)


def report(entries: Sequence[Entry], display: Display, console: Console) -> int:
    """Say how the sweep went, with the end of each failed run's log.

    Returns:
        0, or 1 if a run failed.
    """
    failed = [entry for entry in entries if entry.status == FAILED]
    for entry in failed:
        say(console, f"\nfailed: {entry.run.name} ({entry.problem}); {entry.log} ends with")
        for line in process.tail(entry.log):
            say(console, f"    {line}")
    display.say_counts()  # runs that had been finished before say nothing
    parent: pathlib.Path = entries[0].workdir.parent
    if any(entry.status == DONE for entry in entries):
        say(
            console,
            "tables and figures: python -m ntk_tf.report "
            + shlex.join([f"--runs_dir={parent}", f"--output_dir=report/{parent.name}"]),
        )
    return 1 if failed else 0
