"""Weights of a finished or running training run, for experiments on trained networks."""

import contextlib
import pathlib
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ntk_tf import runs
from ntk_tf.data import DataError
from ntk_tf.process.paths import expanded
from ntk_tf.runs import checkpoint

if TYPE_CHECKING:
    import keras

#: What must agree for a run's weights to fit and to mean the same.
_SAME = (
    *("arch", "network_code", "arch_args", "parametrization", "width"),
    "output_factor",
    *("dataset", "data", "image_size", "padding", "normalization", "snake_synsets"),
)
#: And for the network's initialization to be this run's.
_SAME_START = ("seed", "initialization", "gain")


def load(model: "keras.Model", config: Any, run_dir: pathlib.Path | str) -> int:
    """Give a network the weights of the newest checkpoint of a training run.

    Args:
        model: the network at its initialization.
        config: of the experiment that uses it.
        run_dir: of the training run.

    Returns:
        The number of updates that the weights have seen since their initialization.

    Raises:
        DataError: if the folder holds no fitting run of a network with a checkpoint.
    """
    from ntk_tf.training import state

    folder, said = expanded(run_dir), f"from_run={run_dir}"
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
    before = updates_before(_settings(folder, said), folder)
    if before is None:
        warnings.warn(
            f"{said}: how many updates its weights had seen before is not known; counted are those"
            " of this run",
            stacklevel=2,
        )
    return found.step + (before or 0)


def check(config: Any) -> None:
    """Refuse a `from_run` without a fitting run of a network, before TensorFlow is imported.

    Raises:
        DataError: if it holds none.
    """
    if run_dir := getattr(config, "from_run", None):
        _check(expanded(run_dir), config, f"from_run={run_dir}")


def updates_before(settings: Mapping[str, Any], workdir: pathlib.Path) -> int | None:
    """Updates that the weights had seen when a training run began; None if that is not known.

    An earlier version did not record it, and what a run started from may be gone.

    Args:
        settings: of the run.
        workdir: its directory.
    """
    if settings.get("pretrain_steps"):
        return int(settings["pretrain_steps"])
    if not settings.get("from_run"):
        return 0
    with contextlib.suppress(runs.RunDirectoryError, TypeError, ValueError):
        if runs.is_finished(workdir) and "from_step" in runs.read_result(workdir):
            return int(runs.read_result(workdir)["from_step"])
        folder = expanded(settings["from_run"])
        found = checkpoint.restore(folder / "checkpoint")
        before = updates_before(runs.read_json(folder / "config.json"), folder) if found else None
        return None if found is None or before is None else found.step + before
    return None


def recorded_before(history: runs.History, config: Any, workdir: pathlib.Path) -> int | None:
    """What `updates_before` was when a run began: what it started from may change or go later.

    Args:
        history: of the run, which holds it from the first call on.
        config: the run's settings.
        workdir: its directory.
    """
    rows = history.table("before")
    if not rows:
        rows.append({"from_step": updates_before(config.to_dict(), workdir)})
    return rows[0]["from_step"]


def check_start(config: Any) -> None:
    """Refuse a run whose weights started from another initialization than this run's.

    Raises:
        DataError: if they did, or started from another run's.
    """
    said = f"from_run={config.from_run}"
    settings = _settings(expanded(config.from_run), said)
    if settings.get("from_run"):
        raise DataError(
            f"{said}: started --from_run={settings['from_run']}, not from its initialization, which"
            " --kernel_regression compares with"
        )
    here = config.to_dict()
    settings = dict(config.added()) | settings
    for name in _SAME_START:
        if settings.get(name) != here.get(name):
            raise DataError(
                f"{said}: has --{name}={settings.get(name)}, and this run"
                f" --{name}={here.get(name)}; --kernel_regression compares with the initialization"
            )


def _settings(folder: pathlib.Path, said: str) -> dict[str, Any]:
    """Of the run in a folder.

    Raises:
        DataError: if there is none.
    """
    try:
        return runs.read_json(folder / "config.json")
    except runs.RunDirectoryError as error:
        raise DataError(f"{said}: must be a directory of --experiment=train ({error})") from error


def _check(folder: pathlib.Path, config: Any, said: str) -> None:
    """Refuse a folder whose run is of something else.

    Raises:
        DataError: if it is.
    """
    settings = _settings(folder, said)
    if settings.get("experiment") != "train" or settings.get("linearized"):
        raise DataError(
            f"{said}: must hold --experiment=train of a network; the kernel of a linearization is"
            " that of its initialization"
        )
    if not any((folder / "checkpoint").glob("step-*.npz")):
        raise DataError(f"{said}: holds no checkpoint")
    of_outputs = config.experiment != "rank" or config.kernel_regression
    if settings.get("centered") and of_outputs:
        raise DataError(
            f"{said}: is of a network with --centered, f(w) - f(w0), which the weights w alone do"
            " not make; allowed: --experiment=rank without --kernel_regression"
        )
    here = config.to_dict()
    settings = {name: value for name, value in config.added().items() if name in _SAME} | settings
    runs.relocate_data(settings, here)
    for name in _SAME:
        if settings.get(name) != here.get(name):
            flag = name if name in ("data", "network_code") else f"--{name}"
            raise DataError(
                f"{said}: has {flag}={settings.get(name)}, and this run {flag}={here.get(name)}"
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
