"""All missing tiles computed: here, by several processes on this machine, or on a cluster."""

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence

from rich.console import Console

from ntk_tf import runs
from ntk_tf.experiments.infinite import Infinite, array, tiles, worker
from ntk_tf.process import signals
from ntk_tf.settings import Options

#: Seconds between looks at the other processes.
_POLL = 0.2


def carry_out(
    work: tiles.Work,
    config: Infinite,
    options: Options,
    console: Console,
    after: Callable[[], None],
) -> None:
    """Compute all tiles that are missing.

    Args:
        work: the tiles.
        config: the run's settings.
        options: with the number of processes.
        console: where to write.
        after: called every now and then; may raise `Interrupted`, and all processes end.

    Raises:
        SlurmError: if that is where to run, and it does not work.
        RunDirectoryError: if one of several processes fails.
    """
    (options.workdir / "tiles").mkdir(exist_ok=True)
    if options.executor == "slurm":
        array.spread(work, config, options, console, after)
        return
    missing = work.missing()
    jobs = min(tiles.at_once(options), len(missing))
    if jobs > 1:
        _in_processes(config, options, [missing[i::jobs] for i in range(jobs)], after)
    else:
        tiles.compute(work, options, missing, after)


def _in_processes(
    config: Infinite,
    options: Options,
    shares: Sequence[Sequence[int]],
    after: Callable[[], None],
) -> None:
    """Let several processes compute tiles of some numbers each.

    Raises:
        RunDirectoryError: if one of them fails.
    """
    context = multiprocessing.get_context("spawn")
    arguments = [(config, options, share, os.getpid()) for share in shares]
    processes = [context.Process(target=worker.child, args=a, daemon=True) for a in arguments]
    try:
        for process in processes:
            process.start()
        while any(process.is_alive() for process in processes):
            after()
            time.sleep(_POLL)
            if any(process.exitcode for process in processes):
                break
        after()  # a signal to the whole process group has ended the others first
        codes = [process.exitcode for process in processes if process.exitcode]
    finally:
        for process in processes:
            if process.pid is not None:
                process.terminate()
                process.join()
    if codes:
        killed = signals.KILLED in codes
        reason = " (killed, perhaps for memory: --memory_gib, --jobs)" if killed else ""
        raise runs.RunDirectoryError(
            f"--workdir={options.workdir}: a process that computes its kernels ended with exit code"
            f" {codes[0]}{reason}; the same command goes on with what is missing"
        )
