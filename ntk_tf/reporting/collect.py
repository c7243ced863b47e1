"""Read run directories, put runs of the same settings together, and choose among settings."""

import csv
import dataclasses
import pathlib
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from ntk_tf import runs
from ntk_tf.experiments.resolving import from_json
from ntk_tf.settings import Config, SettingError

#: What may differ between the runs of one study: the rest makes another study.
_WITHIN = ("width", "linearized", "seed", "learning_rate", "weight_decay")


@dataclasses.dataclass(frozen=True)
class Record:
    """A finished run.

    Attributes:
        path: the run directory.
        config: its settings.
        result: the content of result.json.
    """

    path: pathlib.Path
    config: Config
    result: dict[str, Any]

    @property
    def diverged(self) -> bool:
        """Whether its loss became infinite or no number."""
        return self.result.get("status") == "diverged"

    def best_epoch(self) -> tuple[float, int] | None:
        """The best test accuracy in metrics.csv and the first epoch that has it.

        Returns:
            The accuracy in [0, 1] and the epoch, counted from 1; None where no epoch has one.

        Raises:
            RunDirectoryError: if the file cannot be read or holds no accuracies.
        """
        path = self.path / "metrics.csv"
        if not path.exists():
            return None
        try:
            with open(path, newline="") as file:
                rows = [row for row in csv.DictReader(file) if row["test_accuracy"]]
            found = [(float(row["test_accuracy"]), int(row["epoch"])) for row in rows]
        except (LookupError, TypeError, ValueError, OSError, csv.Error) as error:
            raise runs.RunDirectoryError(f"{path}: holds no metrics ({error})") from error
        if not all(0 <= accuracy <= 1 for accuracy, _ in found):
            raise runs.RunDirectoryError(f"{path}: its test_accuracy must be between 0 and 1")
        return max(found, key=lambda pair: pair[0], default=None)


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


def read(runs_dir: pathlib.Path) -> list[Record]:
    """The finished runs in a folder and in its folders; of equal settings the first.

    Args:
        runs_dir: parent or grandparent of run directories.

    Returns:
        The runs, ordered by path.

    Raises:
        RunDirectoryError: if there is none, or a file cannot be read.
    """
    found: dict[str, Record] = {}
    paths = [*runs_dir.glob("*/result.json"), *runs_dir.glob("*/*/result.json")]
    for path in sorted(paths):
        config = read_config(path.parent / "config.json")
        record = Record(path.parent, config, runs.read_result(path.parent))
        found.setdefault(str(sorted(config.to_dict().items())), record)
    if not found:
        raise runs.RunDirectoryError(f"runs_dir={runs_dir}: holds no finished run")
    return list(found.values())


def unfinished(runs_dir: pathlib.Path) -> list[pathlib.Path]:
    """The run directories without a result, as in `read`."""
    paths = [*runs_dir.glob("*/config.json"), *runs_dir.glob("*/*/config.json")]
    return sorted(path.parent for path in paths if not runs.is_finished(path.parent))


@dataclasses.dataclass(frozen=True)
class Setting:
    """Runs that differ in nothing but their seed.

    Attributes:
        width: width factor.
        linearized: whether it is the linearization.
        learning_rate: at the start.
        weight_decay: coupled.
        records: one a seed.
    """

    width: int
    linearized: bool
    learning_rate: float
    weight_decay: float
    records: tuple[Record, ...]

    @property
    def diverged(self) -> int:
        """How many of the runs diverged."""
        return sum(record.diverged for record in self.records)

    @property
    def seeds(self) -> int:
        """How many runs did not diverge."""
        return len(self.records) - self.diverged

    def mean(self, split: str) -> float | None:
        """Mean accuracy in percent of the runs that did not diverge; None if there is none."""
        values = self._accuracies(split)
        return statistics.fmean(values) if values else None

    def std(self, split: str) -> float | None:
        """Standard deviation of the accuracy in points (n - 1); None for less than two runs."""
        values = self._accuracies(split)
        return statistics.stdev(values) if len(values) > 1 else None

    def _accuracies(self, split: str) -> list[float]:
        found = [record.result[f"{split}_accuracy"] for record in self.records]
        return [100 * value for value in found if value is not None]


def settings(records: Iterable[Record]) -> list[Setting]:
    """Put runs together that differ in nothing but their seed, ordered by settings."""
    groups: dict[tuple, list[Record]] = {}
    for record in records:
        c = record.config
        key = (c.linearized, c.width, -float(c.learning_rate), -float(c.weight_decay))
        groups.setdefault(key, []).append(record)
    return [
        Setting(width, linearized, -rate, -decay, tuple(groups[linearized, width, rate, decay]))
        for linearized, width, rate, decay in sorted(groups)
    ]


def choose(candidates: Sequence[Setting]) -> Setting | None:
    """The setting with the best mean test accuracy, as in the paper (section 3.1).

    One of whose runs diverged is never chosen; of equals the first is. Means are over the seeds
    that all the others have, if there are any: a lucky seed must not decide.

    Returns:
        The setting, or None if there is none to choose.
    """
    eligible = [setting for setting in candidates if setting.seeds and not setting.diverged]
    if not eligible:
        return None
    shared = set.intersection(*({r.config.seed for r in s.records} for s in eligible))

    def test_accuracy(setting: Setting) -> float:
        among = [r for r in setting.records if not shared or r.config.seed in shared]
        return statistics.fmean(r.result["test_accuracy"] for r in among)

    return max(eligible, key=test_accuracy)


@dataclasses.dataclass(frozen=True)
class Study:
    """Training runs of one architecture on one dataset that can be compared with each other.

    Attributes:
        arch: architecture.
        dataset: its pictures.
        differences: settings that are not the paper's, by name.
        settings: what was run.
    """

    arch: str
    dataset: str
    differences: dict[str, Any]
    settings: tuple[Setting, ...]

    @property
    def note(self) -> str:
        """The differences in words; empty if all is as in the paper."""
        return ", ".join(f"{name} {value}" for name, value in self.differences.items())


def studies(records: Iterable[Record]) -> list[Study]:
    """Sort training runs into studies, those with the fewest differences to the paper first."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        if record.config.experiment == "train":
            c = record.config
            groups.setdefault(str((c.arch, c.dataset, differences(c))), []).append(record)
    found = []
    for group in groups.values():
        config = group[0].config
        study = Study(config.arch, config.dataset, differences(config), tuple(settings(group)))
        found.append(study)
    return sorted(found, key=lambda s: (s.arch, s.dataset, len(s.differences), s.note))


def differences(config: Config) -> dict[str, Any]:
    """The settings that are not the paper's, besides those that a study varies."""
    return {name: value for name, value in config.changed().items() if name not in _WITHIN}
