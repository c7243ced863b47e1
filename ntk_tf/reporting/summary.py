"""What a folder's runs hold, as tables on the screen."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ntk_tf.experiments import EXPERIMENTS
from ntk_tf.process.terminal import Name, say
from ntk_tf.reporting.collect import Found, Record, natural
from ntk_tf.settings import run_name

#: Below the table of accuracies.
UNITS = (
    "accuracies in percent; gap: the network's test accuracy minus the linearization's, in points"
)


def show(found: Found, console: Console) -> None:
    """Print a table of accuracies, and one of the results of each other experiment."""
    say(console, f"{found.folder}: {found.describe()}")
    for experiment in found.experiments():
        console.print()
        records = found.of(experiment)
        if experiment == "train":
            console.print(accuracies(pairs(records)))
            say(console, UNITS)
        else:
            records = sorted(records, key=lambda record: natural(record.name))
            console.print(results(experiment, records))


def pairs(records: list[Record]) -> dict[str, dict[bool, dict[str, Any]]]:
    """Results of training, each network's beside its linearization's.

    Returns:
        For each setting, by a readable name, the results of the network (False) and of the
        linearization (True), as far as they are there.
    """
    found: dict[str, dict[bool, dict[str, Any]]] = {}
    for record in records:
        name = run_name(record.config, linearized="")
        found.setdefault(name, {})[record.config.linearized] = record.result
    return dict(sorted(found.items(), key=lambda item: natural(item[0])))


def accuracies(found: Mapping[str, Mapping[bool, Mapping[str, Any]]]) -> Table:
    """A table of accuracies in percent, one row a setting; `UNITS` says what its columns are."""
    columns = ("train", "network\ntrain", "\ntest", "linearized\ntrain", "\ntest", "\ngap")
    table = Table(*columns, box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
        column.no_wrap = True
    for name, pair in found.items():
        cells = [
            _percent(pair.get(linearized), f"{split}_accuracy")
            for linearized in (False, True)
            for split in ("train", "test")
        ]
        table.add_row(Name(name), *cells, _gap(pair))
    return table


def results(experiment: str, records: list[Record]) -> Table:
    """A table of an experiment's results in words, one row a run."""
    texts = [EXPERIMENTS[experiment].describe(record.path) for record in records]
    table = Table(experiment, "result", box=None, pad_edge=False)
    table.columns[1].no_wrap = max(map(len, texts)) <= 50
    for record, text in zip(records, texts, strict=True):
        table.add_row(Name(record.name), Text(text))
    return table


def _percent(result: Mapping[str, Any] | None, key: str) -> str:
    if result is None:
        return ""
    return "diverged" if result[key] is None else f"{100 * result[key]:.1f}"


def _gap(pair: Mapping[bool, Mapping[str, Any]]) -> str:
    found = [pair[side]["test_accuracy"] for side in (False, True) if side in pair]
    if len(found) < 2 or None in found:
        return ""
    return f"{100 * (found[0] - found[1]):.1f}"
