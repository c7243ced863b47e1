"""What `--experiment` names: each is a module with a `run` that composes the floors below."""

import importlib
from typing import Any

from rich.console import Console

from ntk_tf.config import Config, Options


def run(config: Config, options: Options, console: Console) -> dict[str, Any]:
    """Carry out an experiment in its run directory, or go on with it.

    Args:
        config: what to run; `options.workdir` must have passed `runs.check_workdir`.
        options: where and how.
        console: for progress and the result.

    Returns:
        The content of result.json.

    Raises:
        DataError: if the data cannot be had.
        RunDirectoryError: if the run directory cannot be used.
    """
    import tensorflow as tf

    tf.config.experimental.enable_tensor_float_32_execution(config.precision == "tf32")
    experiment = importlib.import_module(f"ntk_tf.experiments.{config.experiment}")
    return experiment.run(config, options, console)
