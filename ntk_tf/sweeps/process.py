"""One run as a process of its own: with a log file, and not outliving the sweep."""

import contextlib
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from ntk_tf import runs
from ntk_tf.process import signals, warm

#: Exit code of a run whose settings or data cannot be used: it would end the same way again.
REFUSED = 2
#: Seconds that a process has to save what it has before it is killed; SLURM gives it 30.
PATIENCE = 25.0
#: A process that was started cold or warm.
Started = subprocess.Popen | warm.Process


def start(
    command: Sequence[str],
    log: pathlib.Path,
    environment: Mapping[str, str],
    server: warm.Server | None = None,
) -> Started:
    """Start a command whose output is appended to a log file.

    But for Windows it does not hear the terminal's Ctrl-C, and on Linux it is killed when this
    process ends, however that ends. Elsewhere it may outlive a killed sweep; then the lock of its
    run directory keeps others away.

    Args:
        command: program and arguments.
        log: created with its folder where it does not exist.
        environment: of the process.
        server: starts it warm where it can; None for a cold start.

    Returns:
        The process.

    Raises:
        WriteError: if the log cannot be opened.
    """
    with contextlib.ExitStack() as stack:
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(open(log, "ab", buffering=0))
        except OSError as error:
            raise runs.WriteError(log, error.strerror or str(error)) from error
        with contextlib.suppress(OSError):  # a full disk shall not keep the run from trying
            file.write(f"$ {shlex.join(command)}\n".encode())
        if server:
            with contextlib.suppress(warm.ColdError):
                return server.start(command, file.fileno(), file.fileno(), environment)
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            start_new_session=True,
            preexec_fn=None if sys.platform == "win32" else signals.die_with_parent(),
        )


def end(processes: Sequence[Started]) -> None:
    """Terminate processes; kill those that are still there after some seconds.

    On Windows to terminate is to kill: there they have heard a Ctrl-C themselves.

    Args:
        processes: started by `start`.
    """
    for process in processes if sys.platform != "win32" else ():
        process.terminate()
    deadline = time.monotonic() + PATIENCE
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def ask_to_end(child: int) -> None:
    """Ask a child to save and end, and wait for that; for signal handlers, where Popen locks.

    Args:
        child: its process id; its exit code is left for `Popen.poll`.
    """
    os.kill(child, signal.SIGTERM)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return
        time.sleep(0.1)


def tail(log: pathlib.Path) -> list[str]:
    """The last 15 lines of a log file; none where there is no file."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 20_000))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip()][-15:]


def explain(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:  # a real-time signal
        name = f"signal {-code}"
    return f"{name} (out of memory?)" if name == "SIGKILL" else name
