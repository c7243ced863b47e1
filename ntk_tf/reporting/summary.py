"""Networks beside their linearizations, as one table on the screen."""

import pathlib
from typing import Any

from rich.table import Table

from ntk_tf import runs
from ntk_tf.reporting import collect
from ntk_tf.settings import run_name


def find_runs(runs_dir: pathlib.Path) -> dict[str, dict[bool, dict[str, Any]]]:
    """Collect the finished training runs below a folder.

    Args:
        runs_dir: parent of run directories.

    Returns:
        For each setting, by a readable name, the results of the network (False) and of the
        linearization (True), as far as they are there.

    Raises:
        RunDirectoryError: if there is no finished run, or a file cannot be read.
    """
    found: dict[str, dict[bool, dict[str, Any]]] = {}
    for path in sorted(runs_dir.glob("*/result.json")):
        config = collect.read_config(path.parent / "config.json")
        if config.experiment == "train":
            name = run_name(config, linearized="")
            found.setdefault(name, {})[config.linearized] = runs.read_result(path.parent)
    if not found:
        raise runs.RunDirectoryError(f"runs_dir={runs_dir}: holds no finished training run")
    return found


def summary(found: dict[str, dict[bool, dict[str, Any]]]) -> Table:
    """A table of accuracies in percent, one row a setting.

    The gap is the network's test accuracy minus the linearization's, in points.
    """
    table = Table("run", "network\ntrain", "\ntest", "linearized\ntrain", "\ntest", "\ngap")
    table.columns[0].overflow = "fold"
    for column in table.columns[1:]:
        column.justify = "right"
        column.no_wrap = True
    for name, pair in found.items():
        cells = [
            _percent(pair.get(linearized), f"{split}_accuracy")
            for linearized in (False, True)
            for split in ("train", "test")
        ]
        table.add_row(name, *cells, _gap(pair))
    return table


def _percent(result: dict[str, Any] | None, key: str) -> str:
    if result is None:
        return ""
    return "diverged" if result[key] is None else f"{100 * result[key]:.1f}"


def _gap(pair: dict[bool, dict[str, Any]]) -> str:
    accuracies = [pair[side]["test_accuracy"] for side in (False, True) if side in pair]
    if len(accuracies) < 2 or None in accuracies:
        return ""
    return f"{100 * (accuracies[0] - accuracies[1]):.1f}"
