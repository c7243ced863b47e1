"""Read the run directories in a folder, however deep they are.

Runs with equal settings are the same run: the first of them, by path, counts everywhere, and the
others are listed beside.
"""

import dataclasses
import os
import pathlib
import re
import warnings
from collections.abc import Iterator
from typing import Any

from ntk_tf import runs
from ntk_tf.experiments import EXPERIMENTS
from ntk_tf.experiments.resolving import from_json
from ntk_tf.settings import Config, SettingError

#: A file of an experiment's that its figures need.
_READ = {"rank": "rank.json", "trajectory": "trajectory.json"}
#: Folders of a run directory that hold no runs, or a part of its own.
_INNER = ("checkpoint", "tensorboard", runs.PRETRAINING)


@dataclasses.dataclass(frozen=True)
class Record:
    """A finished run.

    Attributes:
        path: the run directory.
        name: its path in the folder that was read.
        config: its settings.
        result: the content of result.json.
    """

    path: pathlib.Path
    name: str
    config: Config
    result: dict[str, Any]

    @property
    def diverged(self) -> bool:
        """Whether its loss became infinite or no number."""
        return self.result.get("status") == "diverged"

    def epochs(self) -> list[dict[str, float | None]]:
        """The rows of metrics.csv, accuracies in [0, 1]; none where there is no file.

        Raises:
            RunDirectoryError: if the file cannot be read or holds no accuracies.
        """
        path = self.path / "metrics.csv"
        rows = runs.read_table(path, {"epoch": int} | dict.fromkeys(_ACCURACIES, _number))
        for name in _ACCURACIES:
            if not all(row[name] is None or 0 <= row[name] <= 1 for row in rows):
                raise runs.RunDirectoryError(f"{path}: its {name} must be between 0 and 1")
        return rows

    def best_epoch(self) -> tuple[float, int] | None:
        """The best test accuracy in metrics.csv and the first epoch that has it.

        Returns:
            The accuracy in [0, 1] and the epoch, counted from 1; None where no epoch has one.

        Raises:
            RunDirectoryError: if the file cannot be read or holds no accuracies.
        """
        found = [(row["test_accuracy"], int(row["epoch"])) for row in self.epochs()]
        measured = [pair for pair in found if pair[0] is not None]
        return max(measured, key=lambda pair: pair[0], default=None)


_ACCURACIES = ("test_accuracy", "running_train_accuracy")


def _number(cell: str) -> float | None:
    return float(cell) if cell else None


@dataclasses.dataclass(frozen=True)
class Found:
    """The runs in a folder.

    Attributes:
        folder: that was read.
        records: the finished runs, no two of equal settings, ordered by path.
        repeated: finished runs that are left out, and the record that has their settings.
        unfinished: names of run directories without a result.
        damaged: what keeps finished runs from being read, a line each; they are left out.
    """

    folder: pathlib.Path
    records: tuple[Record, ...]
    repeated: tuple[tuple[str, Record], ...]
    unfinished: tuple[str, ...]
    damaged: tuple[str, ...] = ()

    def of(self, experiment: str) -> list[Record]:
        """The runs of an experiment."""
        return [record for record in self.records if record.config.experiment == experiment]

    def experiments(self) -> list[str]:
        """The experiments that there are runs of."""
        return [name for name in EXPERIMENTS if self.of(name)]

    def describe(self) -> str:
        """How many runs there are of what, in a line."""
        counts = ", ".join(f"{len(self.of(name))} {name}" for name in self.experiments())
        more = {
            "diverged": sum(record.diverged for record in self.records),
            "unfinished": len(self.unfinished),
            "damaged": len(self.damaged),
            "repeated": len(self.repeated),
        }
        return counts + "".join(f"; {number} {word}" for word, number in more.items() if number)


def read(folder: pathlib.Path) -> Found:
    """The runs in a folder: in itself, if it is a run directory, and at any depth below it.

    Raises:
        RunDirectoryError: if there is no finished run, or none whose files can be read.
    """
    if not folder.is_dir():
        raise runs.RunDirectoryError(f"runs_dir={folder}: there is no such folder")
    first: dict[str, Record] = {}
    spellings: dict[tuple[str, str], str] = {}
    repeated, unfinished, damaged = [], [], []
    for path in _run_directories(folder):
        name = path.relative_to(folder).as_posix() if path != folder else path.resolve().name
        name = os.fsencode(name).decode(errors="replace")  # for readers; it may be no UTF-8
        if not runs.is_finished(path):
            unfinished.append(name)
            continue
        try:
            config = _respelt(read_config(path / "config.json"), spellings)
            record = Record(path, name, config, runs.read_result(path))
            _check_files(record)
        except runs.RunDirectoryError as error:
            damaged.append(str(error))
            continue
        kept = first.setdefault(str(sorted(record.config.to_dict().items())), record)
        if kept is not record:
            repeated.append((name, kept))
    if damaged and not first:
        raise runs.RunDirectoryError(damaged[0])
    for line in damaged:
        warnings.warn(f"{line}; the run is left out", stacklevel=2)
    if not first:
        waiting = f" and {len(unfinished)} unfinished" if unfinished else ""
        raise runs.RunDirectoryError(f"runs_dir={folder}: holds no finished run{waiting}")
    return Found(folder, tuple(first.values()), tuple(repeated), tuple(unfinished), tuple(damaged))


def _check_files(record: Record) -> None:
    """See that what a report reads of a run besides its settings and its result can be read.

    Raises:
        RunDirectoryError: if it cannot.
    """
    if name := _READ.get(record.config.experiment):
        runs.read_json(record.path / name)
    if record.config.experiment == "train" and record.config.pretrain_steps:
        runs.read_result(record.path / runs.PRETRAINING)


def _respelt(config: Config, spellings: dict[tuple[str, str], str]) -> Config:
    """Settings with the same path to the same data, which runs of two machines spell differently.

    Args:
        config: of a run.
        spellings: of a user's data by fingerprint and name; gets those not seen before.
    """
    mark, given = config.card.fingerprint, config.dataset
    if mark is None:
        return config
    name = spellings.setdefault((mark, pathlib.PurePath(given).name), given)
    card = dataclasses.replace(config.card, name=name)
    same: dict[str, Any] = {"dataset": name, "card": card}
    return dataclasses.replace(config, **same)


def _run_directories(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """The folders with a config.json, ordered by path; links are followed, but not in circles."""
    seen = set()
    for place, names, files in os.walk(folder, followlinks=True):
        if os.path.realpath(place) in seen:
            names.clear()
            continue
        seen.add(os.path.realpath(place))
        own = _INNER if "config.json" in files else ()
        inner = [n for n in names if n not in own and not n.startswith(".")]
        names[:] = sorted(inner, key=natural)
        if "config.json" in files:
            yield pathlib.Path(place)


def natural(name: str) -> list[Any]:
    """A key that sorts names by the numbers in them: `x2` before `x10`."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def read_config(path: pathlib.Path) -> Config:
    """The settings in a config.json, which may be another version's; see `resolving.from_json`.

    Raises:
        RunDirectoryError: if the file cannot be read or holds no valid settings.
    """
    try:
        return from_json(runs.read_json(path))
    except (SettingError, TypeError, OverflowError) as error:
        reason = str(error).removeprefix("--")
        raise runs.RunDirectoryError(f"{path}: is no run's settings ({reason})") from error
