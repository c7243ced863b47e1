"""What an experiment is: its settings, its files, and where its work is done."""

import dataclasses
import importlib
import pathlib
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from rich.console import Console

from ntk_tf import runs
from ntk_tf.process.speed import Speed
from ntk_tf.process.terminal import duration
from ntk_tf.settings import Config, Options


@dataclasses.dataclass(frozen=True)
class Time:
    """How long something will take.

    Attributes:
        seconds: estimated.
        of: what takes so long, if that is not the whole run.
    """

    seconds: float
    of: str = ""

    def __str__(self):
        """For readers, such as `12 min` or `4 s a pass`."""
        return f"{duration(self.seconds)} {self.of}".rstrip()


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The card of an experiment, which imports no TensorFlow.

    Attributes:
        name: on the command line.
        settings: what it reads.
        module: with `run(config, options, console) -> result`, which carries it out in
            `options.workdir`.
        summary: its result in words, from the content and the path of result.json.
        memory: parameters, and bytes that it needs besides the pictures, of its settings.
        time: how long it takes, of its settings and the machine's speed; None if nobody knows.
        files: patterns of what it writes besides what every run has.
        figure: module with `draw(run_dirs, output_dir)`, for several widths; empty if it has none.
        more: whether the module has `more(config, options)`, what a dry run says besides.
        keeps_inputs: whether the training pictures are kept in memory as inputs.
    """

    name: str
    settings: type[Config]
    module: str
    summary: Callable[[Mapping[str, Any], pathlib.Path], str]
    memory: Callable[[Any], tuple[int, float]]
    time: Callable[[Any, Speed], Time] | None = None
    files: tuple[str, ...] = ()
    figure: str = ""
    more: bool = False
    keeps_inputs: bool = False

    @property
    def modules(self) -> list[str]:
        """What it loads, beyond what every run does."""
        return [self.module, *([self.figure] if self.figure else [])]

    def run(self, config: Config, options: Options, console: Console) -> dict[str, Any]:
        """Carry the experiment out in its run directory, or go on with it.

        Args:
            config: what to run; `options.workdir` must have passed `runs.check_workdir`.
            options: where and how.
            console: for progress.

        Returns:
            The content of result.json.

        Raises:
            DataError: if the data cannot be had.
            RunDirectoryError: if the run directory cannot be used.
            SettingError: if the settings do not go together with the data or the devices.
        """
        import tensorflow as tf

        tf32 = getattr(config, "precision", None) == "tf32"
        if getattr(config, "pretrain_steps", 0):
            from ntk_tf.experiments import pretraining

            pretraining.run(config, options, console)
        tf.config.experimental.enable_tensor_float_32_execution(tf32)
        return self.load().run(config, options, console)

    def describe(self, workdir: pathlib.Path) -> str:
        """A finished run's result in a line; of a divergence, that and nothing else.

        Raises:
            RunDirectoryError: if the run directory holds no result.
        """
        result = runs.read_result(workdir)
        summary = self.summary(result, workdir / "result.json")
        if result["status"] == "diverged":
            at, rate = (result[f"diverged_at_{name}"] for name in ("step", "learning_rate"))
            summary = f"diverged at update {at} (learning rate {rate})"
        updates = "" if result["steps"] is None else f"{result['steps']:,} updates, "
        return f"{summary}  ({updates}{result['seconds'] or 0:.0f} s)"

    def load(self) -> ModuleType:
        """The module, which imports TensorFlow."""
        return importlib.import_module(self.module)

    def draw(self, run_dirs: list[pathlib.Path], output_dir: pathlib.Path) -> None:
        """Draw the figure of several runs."""
        importlib.import_module(self.figure).draw(run_dirs, output_dir)


def accuracies(result: Mapping[str, Any], path: pathlib.Path) -> str:
    """The accuracies of a result in words."""
    names = ("train_accuracy", "test_accuracy")
    known = [name for name in names if result.get(name) is not None]
    return "  ".join(f"{name.replace('_', ' ')} {result[name]:.2%}" for name in known)
