"""Who may use a run directory, and for which settings."""

import contextlib
import pathlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import filelock

from ntk_tf.process import locks
from ntk_tf.runs.files import RunDirectoryError, read_json, write_json
from ntk_tf.runs.provenance import commit_at_work

#: The file in a run directory that its owner holds locked.
LOCK = ".lock"
#: The folder in a run directory that holds the training before the run, a run of its own.
PRETRAINING = "pretraining"
#: Locks of the run directories that this process owns; they end with it, however it ends.
_owned: dict[pathlib.Path, filelock.BaseFileLock] = {}


def own(workdir: pathlib.Path) -> None:
    """Make this process the owner of a run directory until it ends.

    Args:
        workdir: an existing folder.

    Raises:
        RunDirectoryError: if another process owns it. Without locks nothing can be known.
    """
    path = workdir.resolve() / LOCK
    if path in _owned:
        return
    lock = locks.lock(path, timeout=1)  # `is_owned` of another may hold it a moment
    if lock is None:
        return
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise RunDirectoryError(
            f"workdir={workdir}: another process is at work there; wait for it or end it"
        ) from error
    _owned[path] = lock


def is_owned(workdir: pathlib.Path) -> bool:
    """Whether another process is at work in a run directory, as far as can be known."""
    path = workdir.resolve() / LOCK
    if path in _owned or not path.exists():
        return False
    try:
        with locks.lock(path, timeout=0) or contextlib.nullcontext():
            return False
    except filelock.Timeout:
        return True
    except OSError:
        return False


def check_workdir(
    workdir: pathlib.Path, settings: Mapping[str, Any], added: Mapping[str, Any] | None = None
) -> None:
    """Refuse a folder that a run with these settings cannot use, writing nothing.

    Args:
        workdir: the run directory; need not exist.
        settings: of the run.
        added: settings that the config.json of an earlier version may lack, with the values that
            it stands for.

    Raises:
        RunDirectoryError: if the folder cannot be written, holds something else, or holds a run
            with other settings.
    """
    place = workdir
    try:
        while not place.exists() and place != place.parent:
            place = place.parent
        with tempfile.TemporaryFile(dir=place):
            pass
    except (OSError, ValueError) as error:  # ValueError: the path contains a null byte
        reason = getattr(error, "strerror", None) or error
        raise RunDirectoryError(
            f"workdir={workdir}: cannot be written ({place}: {reason})"
        ) from error
    config_path = workdir / "config.json"
    if not config_path.exists():
        # Hidden files are the lock and what a process left that was killed while it wrote.
        if workdir.exists() and any(not p.name.startswith(".") for p in workdir.iterdir()):
            raise RunDirectoryError(
                f"workdir={workdir}: is not empty and holds no run; choose a new or empty folder"
            )
        return
    found = dict(added or {}) | read_json(config_path)
    found.pop("classes", None)  # known only when the data is read: see `open_workdir`
    relocate_data(found, settings)
    if found.get("experiment") != settings.get("experiment"):
        found = {"experiment": found.get("experiment")}
        settings = {"experiment": settings.get("experiment")}
    other = [
        f"{name} is {found.get(name)} there and {settings.get(name)} here"
        for name in sorted(found.keys() | settings.keys())
        if found.get(name) != settings.get(name)
    ]
    if other:
        raise RunDirectoryError(
            f"workdir={workdir}: holds a run with other settings ({'; '.join(other)});"
            " choose another folder"
        )


def relocate_data(settings: dict[str, Any], here: Mapping[str, Any]) -> None:
    """Give a run's settings this run's path to the user's data where both have the same content."""
    if "data" in here and settings.get("data") == here["data"]:
        settings["dataset"] = here["dataset"]


def open_workdir(
    workdir: pathlib.Path,
    settings: Mapping[str, Any],
    resume: bool,
    classes: tuple[str, ...] | None = None,
    *,
    added: Mapping[str, Any] | None = None,
    files: Sequence[str] = (),
) -> None:
    """Take the folder and write config.json; without `resume`, remove an earlier run's files.

    Args:
        workdir: the run directory, which `check_workdir` has accepted.
        settings: of the run.
        resume: keep what an earlier process left.
        classes: what the labels stand for, where the data decided that; goes into config.json.
        added: see `check_workdir`.
        files: patterns of what the experiment writes besides what every run has.

    Raises:
        RunDirectoryError: if the folder cannot be written, is another process's, or holds a run
            on other classes.
    """
    commit_at_work()  # for the result: the checkout may be another by then
    config_path = workdir / "config.json"
    complete = dict(settings) | ({} if classes is None else {"classes": list(classes)})
    if resume and config_path.exists():
        found = read_json(config_path).get("classes")
        if found != complete.get("classes"):
            raise RunDirectoryError(
                f"workdir={workdir}: holds a run on other classes ({found}, and the data has"
                f" {complete.get('classes')}); choose another folder"
            )
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        own(workdir)
        check_workdir(workdir, settings, added)  # again: its owner so far may have just written
        for left_over in workdir.rglob(".*.tmp"):  # of a process killed while it wrote
            left_over.unlink()
        if not resume:
            _clear(workdir, files)
        write_json(config_path, complete)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RunDirectoryError(f"workdir={workdir}: {reason}") from error


def _clear(workdir: pathlib.Path, files: Sequence[str]) -> None:
    """Remove what an earlier run left, the result first, lest a part of it look like a whole."""
    for pattern in ("result.json", "metrics.csv", *files):
        for path in workdir.glob(pattern):
            path.unlink(missing_ok=True)
    shutil.rmtree(workdir / "tensorboard", ignore_errors=True)
    checkpoint = workdir / "checkpoint"
    if checkpoint.is_symlink():  # to another disk
        for path in checkpoint.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    elif checkpoint.exists():  # a run with one would go on
        shutil.rmtree(checkpoint)
