"""What an experiment is: its settings, its files, and where its work is done."""

import dataclasses
import importlib
import pathlib
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from ntk_tf.settings import Config


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The card of an experiment, which imports no TensorFlow.

    Attributes:
        name: on the command line.
        settings: what it reads.
        module: with `run(config, options, console) -> result`, which carries it out in
            `options.workdir`, and `memory(config) -> (parameters, bytes)`, which it needs besides
            the pictures.
        summary: its result in words, from the content and the path of result.json.
        files: patterns of what it writes besides what every run has.
        figure: module with `draw(run_dirs, output_dir)`, for several widths; None if it has none.
        keeps_inputs: whether the training pictures are kept in memory as inputs.
    """

    name: str
    settings: type[Config]
    module: str
    summary: Callable[[Mapping[str, Any], pathlib.Path], str]
    files: tuple[str, ...] = ()
    figure: str | None = None
    keeps_inputs: bool = False

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
