"""A network trained for some updates, whose weights an experiment then starts from.

Linearizing there in place of the initialization shows how soon a network's kernel has become the
one that it ends with (Fort et al. 2020, "Deep learning versus kernel learning"). The training is a
run of `--experiment=train` of its own in the folder `pretraining` of the run directory: it has its
own files and goes on after an interruption.
"""

import dataclasses
import math
from typing import Any

from rich.console import Console

from ntk_tf import runs
from ntk_tf.experiments import EXPERIMENTS
from ntk_tf.experiments.resolving import resolve
from ntk_tf.settings import Config, Options, SettingError
from ntk_tf.settings.setting import declarations

#: What the experiment's settings say of itself and not of the training before it.
_NOT_SHARED = {
    *("experiment", "linearized", "centered", "alpha", "decay_toward"),
    *("pretrain_steps", "from_run", "epochs", "max_steps"),
}
#: What an experiment that trains by no SGD means by these is something else.
_OF_SGD = {"weight_decay", "targets", "precision"}


def settings(config: Any, pictures: int) -> Config:
    """Those of the training: the experiment's own where it has them, and defaults.

    Args:
        config: of an experiment with `pretrain_steps` above 0.
        pictures: number of those that it trains with.
    """
    train = declarations(EXPERIMENTS["train"].settings)
    without = _NOT_SHARED if hasattr(config, "learning_rate") else _NOT_SHARED | _OF_SGD
    shared = {
        name: value
        for name, value in config.changed().items()
        if name in train and name not in without
    }
    shared |= {"arch": config.arch, "dataset": config.dataset}
    if hasattr(config, "learning_rate"):
        shared |= {name: getattr(config, name) for name in _descent(config)}
    found = resolve(
        lambda _: config.card, experiment="train", max_steps=config.pretrain_steps, **shared
    )
    epochs = math.ceil(config.pretrain_steps / math.ceil(pictures / found.batch_size))
    longer: Any = {"epochs": max(found.epochs, epochs)}
    return dataclasses.replace(found, **longer)


def _descent(config: Any) -> list[str]:
    """What fixes the updates, whose defaults differ between a network and its linearization."""
    names = ("batch_size", "learning_rate", "momentum", "weight_decay", "schedule")
    if config.schedule != "step":
        return [*names]
    return [*names, "lr_drop_every", *(["lr_drop_factor"] if config.lr_drop_every else [])]


def run(config: Any, options: Options, console: Console) -> None:
    """Train, or go on, in the run directory; afterwards `trained_weights.load` finds it.

    Raises:
        DataError: if the data cannot be had.
        RunDirectoryError: if the run directory cannot be used.
        SettingError: if the network cannot be trained so, or its training diverges.
    """
    from ntk_tf.experiments.inputs import Inputs

    inputs = Inputs(config, options)
    inputs.open_workdir(Console(quiet=True))
    place = dataclasses.replace(options, workdir=options.workdir / runs.PRETRAINING)
    result = EXPERIMENTS["train"].run(settings(config, len(inputs.source.train)), place, console)
    if result["status"] == "diverged":
        raise SettingError(
            f"--pretrain_steps={config.pretrain_steps}: this training diverges at update"
            f" {result['diverged_at_step']}; allowed: a smaller --learning_rate, or fewer updates"
        )
