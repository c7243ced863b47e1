"""The runs of a sweep: every combination of the values of some settings."""

import dataclasses
import itertools
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ntk_tf import settings
from ntk_tf.catalogue.datasets import Card
from ntk_tf.experiments.resolving import resolve
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
    between = [name for name in axes if name not in _OUTERMOST + _INNERMOST]
    names = [name for name in (*_OUTERMOST, *between, *_INNERMOST) if name in axes]
    for point in itertools.product(*(axes[name] for name in names)):
        config = resolve(card_of, **common, **dict(zip(names, point, strict=True)))
        name = settings.run_name(config)
        if name in runs:
            raise SettingError(f"--experiment={config.experiment}: the grid holds {name} twice")
        place = dataclasses.replace(options, workdir=options.workdir / name)
        runs[name] = Run(config, place)
    return tuple(runs.values())
