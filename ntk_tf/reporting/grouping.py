"""Put runs together that can be compared, choose among settings, and name what sets them apart."""

import dataclasses
import functools
import pathlib
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from ntk_tf.catalogue import architectures, datasets
from ntk_tf.reporting import paper
from ntk_tf.reporting.collect import Record
from ntk_tf.reporting.paper import LINEARIZATION, NETWORK, Curve, Model
from ntk_tf.settings import Config

#: What a study's title tells anyway.
_NAMED = ("experiment", "arch", "dataset")
#: What may differ between the runs of one study: the rest makes another study.
_WITHIN = (
    *("width", "linearized", "centered", "alpha"),
    *("seed", "learning_rate", "weight_decay"),
)
#: The same for an experiment other than training, where a learning rate is not chosen.
_WITHIN_OTHERS = ("width", "seed")
#: And for converged linearizations, of which each weight decay is shown.
_WITHIN_CONVERGED = ("weight_decay", "weight_decays", "preconditioner_examples", "max_passes")


@dataclasses.dataclass(frozen=True)
class Setting:
    """Runs that differ in nothing but their seed.

    Attributes:
        model: what was trained.
        width: width factor.
        learning_rate: at the start.
        weight_decay: coupled.
        precision: of its numbers.
        records: one a seed.
    """

    model: Model
    width: int
    learning_rate: float
    weight_decay: float
    precision: str
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
        rate, decay = float(c.learning_rate), float(c.weight_decay)
        key = (model_of(c), c.width, -rate, -decay, c.precision)
        groups.setdefault(key, []).append(record)
    return [
        Setting(model, width, -rate, -decay, precision, tuple(found))
        for (model, width, rate, decay, precision), found in sorted(groups.items())
    ]


def model_of(config: Config) -> Model:
    """What a training run trains."""
    return Model(config.linearized, config.centered, float(config.alpha))


def choose(candidates: Sequence[Setting]) -> Setting | None:
    """The setting with the best mean test accuracy, as in the paper (section 3.1).

    One of whose runs diverged is never chosen; of equals the first is. Means are over the seeds
    that all the others have, if there are any: a lucky seed must not decide, nor a lucky subset.

    Returns:
        The setting, or None if there is none to choose.
    """
    eligible = [setting for setting in candidates if setting.seeds and not setting.diverged]
    if not eligible:
        return None
    shared = set.intersection(*({_seeds(r) for r in s.records} for s in eligible))

    def test_accuracy(setting: Setting) -> float:
        among = [r for r in setting.records if not shared or _seeds(r) in shared]
        return statistics.fmean(r.result["test_accuracy"] for r in among)

    return max(eligible, key=test_accuracy)


def _seeds(record: Record) -> tuple[int, int | None]:
    """Those of a run's network and of its pictures."""
    return record.config.seed, record.config.subset_seed


@dataclasses.dataclass(frozen=True)
class Study:
    """Runs of one experiment with one architecture on one dataset that can be compared.

    Attributes:
        arch: architecture.
        dataset: its pictures.
        model_title: the architecture for readers.
        data_title: the dataset for readers.
        differences: settings that are not the paper's, by name.
        distinction: in words, those that other studies of the same kind do not share.
        records: the runs.
    """

    arch: str
    dataset: str
    model_title: str
    data_title: str
    differences: dict[str, Any]
    distinction: str
    records: tuple[Record, ...]

    @property
    def title(self) -> str:
        """What it is of, and what sets it apart."""
        of = f"{self.model_title} on {self.data_title}"
        return f"{of}, {self.distinction}" if self.distinction else of

    @property
    def note(self) -> str:
        """All differences in words; empty if all is as in the paper."""
        return in_words(self.differences)

    @functools.cached_property
    def settings(self) -> list[Setting]:
        """What was trained."""
        return settings(self.records)

    def curves(self, known: Sequence[Curve] = ()) -> tuple[Curve, ...]:
        """Curves of the network, its linearization and all else that was trained.

        Args:
            known: the paper's; they come first, and their models have no other curve.
        """
        trained = {NETWORK, LINEARIZATION} | {setting.model for setting in self.settings}
        others = sorted(trained - {curve.model for curve in known})
        return (*known, *paper.plain_curves(self.model_title, others))

    def common(self) -> dict[str, Any]:
        """The settings that all its runs share, and the versions that they ran with."""
        contents = [record.config.to_dict() for record in self.records]
        shared = {
            name: value
            for name, value in contents[0].items()
            if all(content.get(name) == value for content in contents)
        }
        versions: list[Any] = []
        for record in self.records:
            found = record.result.get("versions")
            if found not in (None, *versions):
                versions.append(found)
        return {"settings": shared, "versions": versions}


def in_words(differences: dict[str, Any]) -> str:
    """Settings and their values for readers."""
    words = {True: "on", False: "off"}
    parts = []
    for name, value in differences.items():
        shown = words[value] if isinstance(value, bool) else value
        shown = ", ".join(map(str, shown)) if isinstance(shown, tuple) else shown
        parts.append(f"{name.replace('_', ' ')} {shown}")
    return ", ".join(parts)


def studies(records: Iterable[Record]) -> list[Study]:
    """Sort runs of one experiment into studies, those nearest to the paper's settings first."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        c = record.config
        key = str((c.arch, c.network_code, c.dataset, c.card.fingerprint, differences(c)))
        groups.setdefault(key, []).append(record)
    found = [_study(group, list(groups.values())) for group in groups.values()]
    return sorted(found, key=lambda s: (s.arch, s.dataset, len(s.differences), s.note))


def _study(group: Sequence[Record], groups: Sequence[Sequence[Record]]) -> Study:
    """A study, named beside all the others."""
    config = group[0].config
    others = [other[0].config for other in groups]
    alike = [c for c in others if (c.arch, c.dataset) == (config.arch, config.dataset)]
    several = len({c.network_code for c in alike}) > 1

    def all_differences(c: Config) -> dict[str, Any]:
        return differences(c) | ({"network_code": c.network_code or "unknown"} if several else {})

    own = all_differences(config)
    apart = {k: v for k, v in own.items() if any(all_differences(c).get(k) != v for c in alike)}
    return Study(
        config.arch,
        config.dataset,
        arch_title(config.arch),
        data_title(config, others),
        own,
        in_words(apart),
        tuple(group),
    )


def differences(config: Config) -> dict[str, Any]:
    """The settings that are not the paper's, besides those that a study varies."""
    within = _WITHIN if config.experiment == "train" else _WITHIN_OTHERS
    if config.experiment == "converged":
        within += _WITHIN_CONVERGED
    if config.experiment == "train" and config.centered:
        within += ("precision",)  # float64 is what a large alpha needs
    return {k: v for k, v in config.changed().items() if k not in _NAMED + within}


def alike(one: Config, other: Config, but: Iterable[str]) -> bool:
    """Whether two runs agree in all settings that both experiments read, but for some."""
    ours, theirs = one.to_dict(), other.to_dict()
    return all(ours[name] == theirs[name] for name in (ours.keys() & theirs.keys()) - set(but))


def arch_title(arch: str) -> str:
    """An architecture for readers; a user's with its module, for many are called `build`."""
    if not architectures.is_own(arch):
        return paper.arch_name(arch)
    module, _, function = arch.partition(":")
    return f"{function} ({module})"


def data_title(config: Config, others: Iterable[Config]) -> str:
    """A dataset for readers; a file without its folder, with a checksum where two are alike."""
    name, mark = config.dataset, config.card.fingerprint
    if not datasets.is_own(name):
        return paper.dataset_name(name)
    if name.startswith(datasets.TFDS):
        return name.removeprefix(datasets.TFDS)
    short = pathlib.PurePath(name).name or name
    named = [c for c in others if (pathlib.PurePath(c.dataset).name or c.dataset) == short]
    marks = {c.card.fingerprint for c in named}
    return f"{short} ({mark})" if len(marks) > 1 else short
