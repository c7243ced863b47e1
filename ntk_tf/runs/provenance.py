"""Where a result comes from: device, host, commit, command, versions."""

import functools
import importlib.metadata
import pathlib
import platform
import shlex
import subprocess
import sys
from typing import Any

import ntk_tf
from ntk_tf.process import devices

_PACKAGES = ("tensorflow", "keras", "numpy", "tensorflow-datasets")


def provenance() -> dict[str, Any]:
    """What result.json says of the process that wrote it, and of the versions it ran with."""
    made = {
        "device": devices.describe(),
        "host": platform.node(),
        "commit": commit_at_work(),
        "command": shlex.join(["python", *sys.orig_argv[1:]]),
    }
    return {"provenance": made, "versions": versions()}


@functools.cache
def commit_at_work() -> str | None:
    """The commit of the package's checkout when this process first asked, before its first run.

    Who edits it or switches branches while a run is at work does not change what the run is.
    """
    return commit(pathlib.Path(ntk_tf.__file__).parents[1])


def commit(checkout: pathlib.Path) -> str | None:
    """The commit of a checkout, with `-dirty` where tracked files differ from it.

    Args:
        checkout: a folder; None is returned where it is no root of a checkout.
    """
    if not (checkout / ".git").exists():
        return None
    command = ["git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=40"]
    try:
        found = subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results may depend on."""
    own = {"python": platform.python_version(), "ntk_tf": ntk_tf.__version__}
    return own | {name: importlib.metadata.version(name) for name in _PACKAGES}
