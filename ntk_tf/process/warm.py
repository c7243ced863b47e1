"""Processes that start warm: forks of one that has imported TensorFlow and computed nothing.

Importing TensorFlow takes seconds; a fork of a process that has imported it takes milliseconds. A
fork has only the thread that called it, so the server forks only while it has no threads besides
those of NumPy's linear algebra, which looks after forks itself, and has opened no GPU: TensorFlow
starts its threads and CUDA at the first operation, that is, in each fork for itself. What
TensorFlow reads from the environment then, such as TF_NUM_INTRAOP_THREADS and CUDA_VISIBLE_DEVICES,
each fork has of its own; what is read while modules load (`AT_IMPORT`) is the server's.
"""

import contextlib
import gc
import importlib
import json
import os
import pathlib
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ntk_tf.process import signals, startup

#: How the names of variables begin that are read by Python's start or while modules load.
AT_IMPORT: tuple[str, ...] = (
    "PYTHON",
    "LD_",
    "MALLOC_",
    "LC_",
    "LANG",
    "OMP_",
    "OPENBLAS_",
    "MKL_",
    "GOTO_",
)
AT_IMPORT += ("KERAS_", "MPL", "TF_CPP_", "TF_ENABLE_ONEDNN_OPTS", "TF_USE_LEGACY_KERAS")


class ColdError(Exception):
    """The server cannot start this command; it has to be started cold."""


class Process:
    """A process that was started warm, with what `subprocess.Popen` has for looking after one.

    Attributes:
        pid: its process id, which is also that of its session and process group.
        returncode: None while it runs, then as `Popen` has it: -9 after SIGKILL.
    """

    def __init__(self, status: socket.socket):
        """Wait until it has been forked.

        Raises:
            ColdError: if it was not.
        """
        self._status = status
        pid = status.recv(16)
        if not pid:
            raise ColdError("the server has ended")
        self.pid = int(pid)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        return self._ended(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; the exit code.

        Raises:
            TimeoutExpired: if it still runs after so many seconds.
        """
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        return code

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            self._status.settimeout(timeout)
            try:
                code = self._status.recv(16)
            except (BlockingIOError, TimeoutError):
                return None
            self._status.close()
            # Without a word it has been killed together with the server.
            self.returncode = int(code) if code else -signal.SIGKILL
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


class Server:
    """A process that imports TensorFlow once and forks for every command; for Linux alone.

    It ends with the process that made it, and its forks with it, however that happens.

    Args:
        environment: what it imports TensorFlow with.
        modules: what else it imports; nothing that runs an operation.
    """

    def __init__(self, environment: Mapping[str, str], modules: Sequence[str] = ()):
        self._environment = dict(environment)
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ntk_tf.process.warm", str(theirs.fileno()), *modules],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=self._environment,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                preexec_fn=signals.die_with_parent(),
            )

    def start(
        self,
        command: Sequence[str],
        stdout: int,
        stderr: int,
        environment: Mapping[str, str],
    ) -> Process:
        """Start a command in a session of its own; the first waits until the server is warm.

        Args:
            command: `[sys.executable, "-m", module, argument, ...]`.
            stdout: file descriptor.
            stderr: file descriptor.
            environment: of the process.

        Returns:
            The process.

        Raises:
            ColdError: if the command is of another form or needs another environment while modules
                load, or if the server cannot fork.
        """
        if list(command[:2]) != [sys.executable, "-m"]:
            raise ColdError(f"command={command}: is no module of this Python")
        if _at_import(environment) != _at_import(self._environment):
            raise ColdError("the environment differs in what is read while modules load")
        request = {"arguments": command[2:], "environment": dict(environment), "cwd": os.getcwd()}
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            descriptors = [theirs.fileno(), stdout, stderr]
            try:
                socket.send_fds(self._requests, [json.dumps(request).encode()], descriptors)
            except OSError as error:
                raise ColdError(str(error)) from error
        return Process(ours)

    def close(self) -> None:
        """End the server, and the processes that it has started and that still run."""
        self._requests.close()
        self._process.kill()
        self._process.wait()


def is_possible() -> bool:
    """Whether this system has what a server needs: forks that end with their parent."""
    return sys.platform.startswith("linux")


def _at_import(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(AT_IMPORT)}


def _serve() -> None:
    """The server: `python -m ntk_tf.process.warm DESCRIPTOR MODULE...`."""
    requests = socket.socket(fileno=int(sys.argv[1]))
    import numpy as np
    import scipy.linalg  # noqa: F401 - it has a linear algebra of its own

    threads = _threads()
    startup.load_tensorflow()
    for module in sys.argv[2:]:
        importlib.import_module(module)
    if _threads() > threads or _has_opened_gpu():
        return
    gc.freeze()  # the collector shall not write to, and so copy, what the forks share
    arguments = _accept(requests)
    np.random.seed()  # as after a start of its own; Python's generator does this itself
    sys.argv[1:] = arguments[1:]
    sys.orig_argv[1:] = ["-m", *arguments]  # which a run records as its command
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)


def _accept(requests: socket.socket) -> list[str]:
    """Fork for every request; returns, with the arguments, in the process that is to run."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the keepers
    first = signals.die_with_parent()
    while True:
        content, descriptors, *_ = socket.recv_fds(requests, 2**20, 3)
        if not content:
            sys.exit()
        with contextlib.suppress(OSError):  # no memory for a fork: it will be started cold
            if not os.fork():
                first()
                requests.close()
                _keep(*descriptors)
                return _prepare(json.loads(content))
        for descriptor in descriptors:
            os.close(descriptor)


def _keep(status: int, stdout: int, stderr: int) -> None:
    """In a fork of the server: fork once more, and tell how that process ends, which returns."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    first = signals.die_with_parent()
    pid = os.fork()
    if not pid:
        first()
        os.setsid()
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
    for descriptor in (stdout, stderr, *([] if pid else [status])):
        os.close(descriptor)
    if pid:
        os.write(status, str(pid).encode())
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.write(status, str(code).encode())
        os._exit(0)


def _prepare(request: Mapping[str, Any]) -> list[str]:
    """Take over environment and folder of a request; its arguments."""
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
    sys.path[0] = request["cwd"]  # as `python -m` has it
    return request["arguments"]


def _threads() -> int:
    return len(os.listdir("/proc/self/task"))


def _has_opened_gpu() -> bool:
    """Whether this process holds a device of NVIDIA's driver; CUDA cannot be used after a fork."""
    for link in pathlib.Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if os.readlink(link).startswith("/dev/nvidia"):
                return True
    return False


if __name__ == "__main__":
    _serve()
