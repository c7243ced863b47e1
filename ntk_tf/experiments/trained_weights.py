"""Weights of a finished or running training run, for experiments on trained networks."""

import pathlib
from collections import Counter
from collections.abc import Iterable
from typing import Any

import keras

from ntk_tf import runs
from ntk_tf.data import DataError
from ntk_tf.runs import checkpoint
from ntk_tf.training import state

#: What must agree for a run's weights to fit and to mean the same.
_SAME = (
    *("arch", "arch_args", "parametrization", "width"),
    "output_factor",
    *("dataset", "data", "image_size", "padding", "normalization", "snake_synsets"),
)


def load(model: keras.Model, config: Any, run_dir: pathlib.Path | str) -> int:
    """Give a network the weights of the newest checkpoint of a training run.

    Args:
        model: the network at its initialization.
        config: of the experiment that uses it.
        run_dir: of the training run.

    Returns:
        The number of updates that the weights have seen.

    Raises:
        DataError: if the folder holds no fitting run of a network with a checkpoint.
    """
    folder = pathlib.Path(run_dir).expanduser()
    said = f"from_run={run_dir}"
    _check(folder, config, said)
    found = checkpoint.restore(folder / "checkpoint")
    if found is None:
        raise DataError(f"{said}: holds no checkpoint")
    wanted = _by_path(state.values(model.variables))
    by_path = _by_path(found.arrays)
    missing = [name for key, name in wanted.items() if key not in by_path]
    if missing:
        raise DataError(f"{said}: its checkpoint lacks {missing[0]}")
    arrays = {name: found.arrays[by_path[key]] for key, name in wanted.items()}
    state.assign(model.variables, arrays, folder)
    return found.step


def _check(folder: pathlib.Path, config: Any, said: str) -> None:
    """Refuse a folder whose run is of something else.

    Raises:
        DataError: if it is.
    """
    try:
        settings = runs.read_json(folder / "config.json")
    except runs.RunDirectoryError as error:
        raise DataError(f"{said}: must be a directory of --experiment=train ({error})") from error
    if settings.get("experiment") != "train" or settings.get("linearized"):
        raise DataError(
            f"{said}: must hold --experiment=train of a network; the kernel of a linearization is"
            " that of its initialization"
        )
    here = config.to_dict()
    settings = {name: value for name, value in config.added().items() if name in _SAME} | settings
    for name in _SAME:
        if settings.get(name) != here.get(name):
            raise DataError(
                f"{said}: has --{name}={settings.get(name)}, and this run --{name}={here.get(name)}"
            )


def _by_path(names: Iterable[str]) -> dict[tuple[str, int], str]:
    """Names of a state's arrays by path, and by number where variables share one, in their order.

    They do where models within the model have layers of the same name.
    """
    counts: Counter[str] = Counter()
    found = {}
    for name in sorted(names):
        path = _path(name)
        found[path, counts[path]] = name
        counts[path] += 1
    return found


def _path(name: str) -> str:
    """A variable's path without its position, which depends on whether biases were trained."""
    return name.partition("/")[2]
