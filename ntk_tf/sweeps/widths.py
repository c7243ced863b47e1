"""`--widths`: one experiment at several widths, one process each, and one figure of all."""

import contextlib
import dataclasses
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from ntk_tf import runs
from ntk_tf.experiments import EXPERIMENTS
from ntk_tf.process import signals, warm
from ntk_tf.settings import Options, flags_of
from ntk_tf.sweeps.process import Started


def run(config: Any, options: Options, widths: Sequence[int], dry_run: bool) -> int:
    """Run an experiment at each width in a folder of its own, `x1`, `x3`, ..., then draw.

    Every width has a process to itself, so that one's memory and traces are not the next one's; on
    Linux they share one import of TensorFlow. Finished widths are not run again.

    Args:
        config: of the experiment; its width does not count.
        options: `workdir` is the parent of the run directories, and gets the figure.
        widths: the width factors.
        dry_run: only describe each run.

    Returns:
        The exit code of the first run that failed, or 0.
    """
    parts = [
        (
            dataclasses.replace(config, width=width),
            dataclasses.replace(options, workdir=options.workdir / f"x{width}"),
        )
        for width in widths
    ]
    for part, place in parts:
        runs.check_workdir(place.workdir, part.to_dict(), part.added())
    more = ["--dry_run"] if dry_run else []
    with contextlib.ExitStack() as stack:
        server = None
        if len(parts) > 1 and not dry_run and warm.is_possible():
            server = warm.Server(os.environ, EXPERIMENTS[config.experiment].modules)
            stack.callback(server.close)
        for part, place in parts:
            command = [sys.executable, "-m", "ntk_tf.main", *flags_of(part, place), *more]
            code = _wait(_start(command, server))
            if code:
                return code
    if not dry_run:
        folders = [place.workdir for _, place in parts]
        EXPERIMENTS[config.experiment].draw(folders, options.workdir)
        print(f"figure in {options.workdir}")
    return 0


def _start(command: Sequence[str], server: warm.Server | None) -> Started:
    """Start a command that writes where this process does, warm if possible."""
    sys.stdout.flush()
    if server:
        with contextlib.suppress(warm.ColdError):
            return server.start(command, 1, 2, os.environ)
    return subprocess.Popen(command)


def _wait(child: Started) -> int:
    """The exit code of a child, which gets its time to save if this process is asked to end.

    Raises:
        Interrupted: in that case.
    """
    try:
        return child.wait()
    except signals.Interrupted:
        if sys.platform != "win32":  # there it has heard the Ctrl-C too, and this would kill it
            child.terminate()
        child.wait()
        raise
