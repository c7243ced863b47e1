"""How and where a run is carried out: declared as settings are; its numbers do not depend on it."""

import dataclasses
import pathlib
from typing import Any

from ntk_tf.process.paths import expanded
from ntk_tf.settings.cluster import Cluster
from ntk_tf.settings.setting import (
    ABOVE_0,
    TRUE_OR_FALSE,
    Condition,
    declarations,
    integer,
    one_of,
    optional,
    setting,
    text,
)

_TRAIN = Condition("--experiment=train", lambda config: config.experiment == "train")
_INFINITE = Condition("--experiment=infinite", lambda config: config.experiment == "infinite")
_KERNEL = Condition(
    "--experiment=rank, converged or infinite",
    lambda config: config.experiment in ("rank", "converged", "infinite"),
)
_JPEG = Condition("--dataset=imagenet_snakes", lambda config: config.dataset == "imagenet_snakes")
_FOLDER = optional(text("a folder", placeholder="DIR"))


@dataclasses.dataclass(frozen=True)
class Options(Cluster):
    """How and where a run is carried out.

    Attributes:
        workdir: the run directory.
    """

    workdir: pathlib.Path
    data_dir: str | None = setting(
        None, _FOLDER, "where TFDS keeps prepared datasets (default: TFDS' own)"
    )
    manual_dir: str | None = setting(
        None, _FOLDER, "folder of original data files, only read (default: none)"
    )
    resume: bool = setting(
        True, TRUE_OR_FALSE, "go on with an unfinished run and keep a finished one (default: on)"
    )
    checkpoint_minutes: float = setting(
        10.0,
        ABOVE_0,
        "between saves within a long epoch; so long a full disk is waited for (default: 10)",
    )
    cache_decoded: bool | None = setting(
        None,
        optional(TRUE_OR_FALSE),
        "keep JPEG files decoded in memory (default: where that is smaller)",
        when=_JPEG,
    )
    strategy: str = setting(
        "one_device",
        dataclasses.replace(
            one_of("one_device", "mirrored"),
            allowed="one of one_device, mirrored; training over several machines fails with Keras 3"
            " on TensorFlow 2.21",
        ),
        "mirrored splits each batch over the GPUs of one machine (default: one_device)",
        when=_TRAIN,
    )
    profile: int | None = setting(
        None,
        optional(integer(1)),
        "write a TensorBoard profile of so many updates (default: none)",
        when=_TRAIN,
    )
    memory_gib: float | None = setting(
        None,
        optional(ABOVE_0),
        "memory for a kernel, itself included (default: of rank half of what is free, else what it"
        " is fastest with)",
        when=_KERNEL,
    )
    jobs: int | None = setting(
        None,
        optional(integer(1)),
        "processes at once, on one thread each (default: one a core, or one with a GPU); of SLURM,"
        " jobs (default: 256)",
        when=_INFINITE,
    )

    def changed(self) -> dict[str, Any]:
        """The options that are not their default, the run directory first."""
        found = {
            name: getattr(self, name)
            for name, declaration in declarations(self).items()
            if getattr(self, name) != declaration.default
        }
        return {"workdir": self.workdir} | found


def options(workdir: pathlib.Path | str, **given: Any) -> Options:
    """Complete and validate the options that are given.

    Args:
        workdir: the run directory.
        **given: attributes of `Options`; those absent or None take their default.

    Raises:
        SettingError: if one has a value that it cannot take.
    """
    values = {name: d.default for name, d in declarations(Options).items()}
    for name, value in given.items():
        if value is not None:
            declarations(Options)[name].check(name, value)
            values[name] = value
    for name in ("data_dir", "manual_dir"):
        if values[name] is not None:
            values[name] = str(expanded(values[name]))
    return Options(workdir=expanded(workdir), **values)


def check_for(config: Any, chosen: Options) -> None:
    """Refuse options that an experiment does not read.

    Raises:
        SettingError: naming the flag, its value and what is allowed.
    """
    for name, value in chosen.changed().items():
        if name in declarations(Options):
            declarations(Options)[name].check_read(name, value, config)
