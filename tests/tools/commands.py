"""The program's commands in processes of their own, forked from one that has imported TensorFlow.

Everything but the time that Python and TensorFlow take to load is as in `python -m ntk_tf.main`:
its own process, session, environment, standard streams and exit code. Where a fork cannot stand for
a command, as with another PYTHONPATH, and on other systems than Linux, the command starts cold.
"""

import contextlib
import functools
import os
import subprocess
import sys
import tempfile

from ntk_tf.experiments import EXPERIMENTS
from ntk_tf.process import warm

#: What the commands import besides TensorFlow.
MODULES = ["ntk_tf.cli", "ntk_tf.data.digits"]
MODULES += [m for name in ("train", "trajectory", "rank") for m in EXPERIMENTS[name].modules]


def command(*arguments, module="main"):
    return [sys.executable, "-m", f"ntk_tf.{module}", *map(str, arguments)]


@functools.cache
def _server():
    return warm.Server(os.environ, MODULES) if warm.is_possible() else None


def start(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=None):
    """Start a command line that `command` made; stdout and stderr are files or DEVNULL."""
    environment = os.environ if env is None else env
    with contextlib.ExitStack() as stack:
        null = stack.enter_context(open(os.devnull, "wb"))
        out, err = (null if file == subprocess.DEVNULL else file for file in (stdout, stderr))
        with contextlib.suppress(warm.ColdError):
            if _server():
                return _server().start(arguments, out.fileno(), err.fileno(), environment)
        return subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment
        )


def run(arguments, timeout=300, env=None):
    """As `subprocess.run`: a command line to its end; exit code, standard output and error."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = start(arguments, out, err, env)
        try:
            code = process.wait(timeout)
        except BaseException:
            process.kill()
            raise
        printed = [_read(file) for file in (out, err)]
    return subprocess.CompletedProcess(arguments, code, *printed)


def _read(file):
    file.seek(0)
    return file.read().decode(errors="replace")
