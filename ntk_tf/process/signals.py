"""Signals that ask a process to save what it has and end, so that the same command can go on.

SIGTERM comes from `kill`, from schedulers and from a machine that shuts down, SIGUSR2 from SLURM
before a job is pre-empted or out of time, SIGINT from Ctrl-C, SIGHUP from a terminal that closes.
"""

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator

#: What a process exits with that was asked to end by SIGTERM or SIGUSR2 and can go on: EX_TEMPFAIL
#: of sysexits.h. Batch scripts queue such a run again.
REQUEUE = 75

#: Exit codes after a signal: Ctrl-C and a closed terminal by the shell's convention. Windows has
#: neither SIGUSR2 nor SIGHUP.
_EXIT_CODES = {
    getattr(signal, name): code
    for name, code in (("SIGTERM", REQUEUE), ("SIGUSR2", REQUEUE), ("SIGINT", 130), ("SIGHUP", 129))
    if hasattr(signal, name)
}

#: Exit code, as Python has it, of a process that was killed; Windows has no such signal.
KILLED = -getattr(signal, "SIGKILL", 9)

#: <linux/prctl.h>
_PR_SET_PDEATHSIG = 1

_deferring = False
_came: signal.Signals | None = None


class Interrupted(BaseException):
    """A signal asks the process to end; as `KeyboardInterrupt`, no `Exception`.

    Attributes:
        exit_code: what to exit with.
    """

    def __init__(self, number: signal.Signals):
        super().__init__(f"stopped by {number.name}")
        self.exit_code = _EXIT_CODES[number]


def listen() -> None:
    """Let the signals raise `Interrupted`, at once or where `deferred` code asks for it.

    A SIGHUP that is ignored, as under nohup, stays so. Must be called in the main thread.
    """
    global _came
    _came = None
    for number in _EXIT_CODES:
        if number.name != "SIGHUP" or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _handle)


def leave_to_parent() -> None:
    """Ignore all but SIGTERM, by which a parent ends this process once it has been asked itself."""
    for number in _EXIT_CODES:
        if number.name != "SIGTERM":
            signal.signal(number, signal.SIG_IGN)


def _handle(number: int, frame: object) -> None:
    global _came
    impatient = _came == number == signal.SIGINT  # Ctrl-C twice
    _came = _came or signal.Signals(number)
    if impatient or not _deferring:
        raise Interrupted(_came)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Inside, a signal waits until `obey` is called, or to the end.

    Yields:
        Nothing.
    """
    global _deferring
    _deferring = True
    try:
        yield
    finally:
        _deferring = False
    obey()


def pending() -> bool:
    """Whether a signal has come."""
    return _came is not None


def obey() -> None:
    """End, if a signal has come.

    Raises:
        Interrupted: if so.
    """
    if _came is not None:
        raise Interrupted(_came)


def die_with_parent() -> Callable[[], object]:
    """What a child of this process does first, so that Linux kills it when its parent ends.

    It does nothing on other systems.
    """
    if not sys.platform.startswith("linux"):
        return lambda: None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def first() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before it could be watched
            os._exit(1)

    return first
