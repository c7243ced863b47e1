"""Linearizations of a network that has been trained for some updates (Fort et al. 2020)."""

import pathlib
from collections.abc import Sequence
from typing import Any

from ntk_tf import plots, runs
from ntk_tf.plots import plt
from ntk_tf.reporting.collect import Record
from ntk_tf.reporting.paper import SPLITS
from ntk_tf.reporting.tables import Column, Table, mean_cells

_MODELS = (("linearized", "linearization"), ("network", "network there"))
COLUMNS = [
    Column("width", "width", "value"),
    Column("updates", "updates before", "value"),
    Column("seeds", "seeds", "value"),
    *(Column(f"{key}_{s}", f"{title}, {s}", "mean") for key, title in _MODELS for s in SPLITS),
]
NOTE = (
    "Accuracies in percent, mean and standard deviation over seeds: of the linearization at the"
    " weights that the network has after so many updates, trained by SGD, and of the network with"
    " these weights. 0 updates is the initialization, the paper's case."
)


def table(name: str, heading: str, records: Sequence[Record]) -> Table:
    """A row a width and number of updates.

    Args:
        name: of the table's files.
        heading: its title.
        records: linearizations with one architecture on one dataset, alike in all else but seeds.
    """
    groups: dict[tuple[int, int], list[Record]] = {}
    for record in records:
        if not record.diverged:
            place = record.config.width, record.config.pretrain_steps
            groups.setdefault(place, []).append(record)
    rows = [_row(*place, found) for place, found in sorted(groups.items())]
    return Table(name, heading, COLUMNS, rows, NOTE)


def draw(table: Table, path: pathlib.Path, models: Sequence[tuple[str, str]] = _MODELS) -> None:
    """Draw test accuracy against the network's updates before, a colour a width.

    Args:
        table: with columns `width`, `updates`, and `KEY_test` for each model.
        path: of the files, without ending.
        models: keys and titles of a linear model, dashed, and of the network.
    """
    widths = sorted({row["width"] for row in table.rows})
    colours = plots.shades(widths)
    with plt.rc_context(plots.STYLE):
        figure, axis = plt.subplots(figsize=(4.6, 3.2), layout="constrained")
        for width in widths:
            rows = [row for row in table.rows if row["width"] == width]
            for (key, title), style in zip(models, (True, False), strict=True):
                found = [
                    (r["updates"], r[f"{key}_test"], r.get(f"{key}_test_std"))
                    for r in rows
                    if f"{key}_test" in r
                ]
                if found:
                    plots.curve(
                        axis,
                        *zip(*found, strict=True),
                        color=colours[width],
                        marker="o",
                        label=f"{title}, x{width}",
                        **plots.line_style(style),
                    )
        axis.set_xscale("symlog", linthresh=max(1, _first(table)))
        plots.mark(axis, sorted({row["updates"] for row in table.rows}))
        axis.minorticks_off()
        axis.set_xlabel("updates of the network before")
        axis.set_ylabel("test accuracy in percent")
        axis.legend()
        plots.save(figure, path)


def with_starts(started: Sequence[Record], trained: Sequence[Record]) -> list[list[Record]]:
    """Groups of runs alike but for where they linearize, at the initialization or later.

    Args:
        started: those that linearize later; the order of the groups is theirs.
        trained: all runs of training.
    """

    def settings(record: Record) -> str:
        without = ("pretrain_steps", "width", "seed")
        # Equal numbers are written alike, whether they are integers or not.
        found = [(k, v) for k, v in sorted(record.config.to_dict().items()) if k not in without]
        return repr([(k, float(v) if type(v) is int else v) for k, v in found])

    groups: dict[str, list[Record]] = {settings(record): [] for record in started}
    for record in trained:
        if record.config.linearized and (key := settings(record)) in groups:
            groups[key].append(record)
    return list(groups.values())


def _first(table: Table) -> int:
    """The smallest number of updates above 0."""
    return min((row["updates"] for row in table.rows if row["updates"]), default=1)


def _row(width: int, updates: int, found: Sequence[Record]) -> dict[str, Any]:
    row: dict[str, Any] = {"width": width, "updates": updates, "seeds": len(found)}
    networks = [_network(record) for record in found] if updates else []
    for key, results in (("linearized", [r.result for r in found]), ("network", networks)):
        for split in SPLITS if results else ():
            values = [100 * result[f"{split}_accuracy"] for result in results]
            row |= mean_cells(f"{key}_{split}", values)
    return row


def _network(record: Record) -> dict[str, Any]:
    """The result of the training before a run.

    Raises:
        RunDirectoryError: if it is not there.
    """
    return runs.read_result(record.path / runs.PRETRAINING)
