"""The runs of a sweep: every combination of the values of some settings."""

import dataclasses
import itertools
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ntk_tf import settings
from ntk_tf.catalogue.datasets import Card
from ntk_tf.experiments.resolving import all_declarations, resolve
from ntk_tf.settings import Config, Options, SettingError

#: The axes that vary slowest and fastest; the others lie between, in the order of declaration.
_OUTERMOST, _INNERMOST = ("width", "linearized", "loss"), ("seed",)


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a sweep.

    Attributes:
        config: its settings.
        options: where and how it is carried out.
    """

    config: Config
    options: Options

    @property
    def name(self) -> str:
        """The name of its run directory."""
        return self.options.workdir.name

    @property
    def arguments(self) -> list[str]:
        """What follows `python` to carry it out."""
        return ["-m", "ntk_tf.main", *settings.flags_of(self.config, self.options)]

    @property
    def command(self) -> list[str]:
        """The command line that carries it out with this Python."""
        return [sys.executable, *self.arguments]


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What the command line of a sweep asks for.

    Attributes:
        runs: in the order in which they start.
        runs_dir: parent of the run directories.
        jobs: how many runs at once; None for one a GPU, or one.
        executor: `local` or `slurm`.
        slurm: what a job asks SLURM for, by submitit's parameter names.
        prepare_data: see that the data is at hand and start nothing.
        dry_run: list the runs and start nothing.
        emit_commands: print the runs' command lines and start nothing.
    """

    runs: tuple[Run, ...]
    runs_dir: pathlib.Path
    jobs: int | None = None
    executor: str = "local"
    slurm: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    prepare_data: bool = False
    dry_run: bool = False
    emit_commands: bool = False


def combine(
    common: Mapping[str, Any],
    axes: Mapping[str, Sequence[Any]],
    options: Options,
    card_of: Callable[[str], Card] | None = None,
) -> tuple[Run, ...]:
    """The runs of a grid.

    A point that does not read the setting of an axis, as a linearization does not read `alpha`, is
    one run for all its values.

    Args:
        common: settings that all runs share.
        axes: the values of each setting that varies.
        options: of all runs; `workdir` is the parent of the run directories.
        card_of: see `resolve`.

    Returns:
        The runs, the seed varying fastest.

    Raises:
        SettingError: if settings are not valid together, or two runs would be the same.
    """
    runs: dict[str, Run] = {}
    for point in _points(common, axes, card_of):
        config = resolve(card_of, **common, **point)
        name = settings.run_name(config)
        if name in runs:
            raise SettingError(f"--experiment={config.experiment}: the grid holds {name} twice")
        place = dataclasses.replace(options, workdir=options.workdir / name)
        runs[name] = Run(config, place)
    return tuple(runs.values())


def _points(
    common: Mapping[str, Any],
    axes: Mapping[str, Sequence[Any]],
    card_of: Callable[[str], Card] | None,
) -> list[dict[str, Any]]:
    """The grid's points, each without the settings that it does not read but another point does."""
    between = [name for name in axes if name not in _OUTERMOST + _INNERMOST]
    names = [name for name in (*_OUTERMOST, *between, *_INNERMOST) if name in axes]
    products = itertools.product(*(axes[name] for name in names))
    points = [dict(zip(names, values, strict=True)) for values in products]
    conditional = {name for name in names if all_declarations()[name].when}
    if not conditional:
        return points
    unread = [_unread(common, point, conditional, card_of) for point in points]
    by_none = set.intersection(*unread)  # an error, which names what would read it
    found: dict[str, dict[str, Any]] = {}
    for point, dropped in zip(points, unread, strict=True):
        kept = {name: v for name, v in point.items() if name not in dropped - by_none}
        found.setdefault(str(kept), kept)
    return list(found.values())


def _unread(
    common: Mapping[str, Any],
    point: Mapping[str, Any],
    conditional: set[str],
    card_of: Callable[[str], Card] | None,
) -> set[str]:
    """Which of some settings a point does not read."""
    plain = {name: value for name, value in point.items() if name not in conditional}
    return conditional - resolve(card_of, **common, **plain).read().keys()
