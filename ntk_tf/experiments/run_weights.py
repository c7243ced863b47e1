"""Weights of a finished or running training run, for experiments on trained networks."""

import pathlib

import keras

from ntk_tf import data, runs
from ntk_tf.config import Config
from ntk_tf.training import checkpoint

#: What must agree for a run's weights to fit and to mean the same.
_SAME = ("arch", "width", "dataset", "image_size", "padding", "snake_synsets")


def load_weights(model: keras.Model, config: Config) -> int:
    """Give a network the weights of the newest checkpoint in `config.from_run`.

    Args:
        model: the network at its initialization.
        config: of the experiment that uses it.

    Returns:
        The number of updates that the weights have seen.

    Raises:
        DataError: if the folder holds no fitting run of a network with a checkpoint.
    """
    folder = pathlib.Path(config.from_run).expanduser()
    flag = f"--from_run={config.from_run}"
    try:
        settings = runs.read_json(folder / "config.json")
    except runs.RunDirectoryError as error:
        raise data.DataError(
            f"{flag}: must be a directory of --experiment=train ({error})"
        ) from error
    if settings.get("experiment") != "train" or settings.get("linearized"):
        raise data.DataError(
            f"{flag}: must hold --experiment=train of a network; the kernel of a linearization is"
            " that of its initialization"
        )
    here = config.to_dict()
    for name in _SAME:
        if name in settings and settings[name] != here.get(name):
            raise data.DataError(
                f"{flag}: has --{name}={settings[name]}, and this run --{name}={here.get(name)}"
            )
    found = checkpoint.restore(folder / "checkpoint")
    if found is None:
        raise data.DataError(f"{flag}: holds no checkpoint")
    wanted = checkpoint.values(model.trainable_variables)
    by_path = {_path(name): array for name, array in found.arrays.items()}
    missing = [name for name in wanted if _path(name) not in by_path]
    if missing:
        raise data.DataError(f"{flag}: its checkpoint lacks {missing[0]}")
    arrays = {name: by_path[_path(name)] for name in wanted}
    checkpoint.assign(model.trainable_variables, arrays, folder)
    return found.step


def _path(name: str) -> str:
    """A variable's path without its position, which depends on whether biases were trained."""
    return name.partition("/")[2]
