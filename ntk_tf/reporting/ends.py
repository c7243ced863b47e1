"""Where training ends: how much of the gap between a network and its linearization is SGD's.

The gap in accuracy is (network - converged) + (converged - SGD): the first part is the kernel's and
weight decay's, the second what SGD on the linearization has not reached.
"""

import pathlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from ntk_tf import plots
from ntk_tf.plots import plt
from ntk_tf.reporting.collect import Record
from ntk_tf.reporting.grouping import Setting, Study, alike, choose, in_words
from ntk_tf.reporting.tables import Column, Table, mean_cells

_MODELS = (("network", "network"), ("sgd", "by SGD"), ("converged", "converged"))
COLUMNS = [
    Column("width", "width", "value"),
    Column("weight_decay", "weight decay", "value"),
    *(Column(f"{key}_test", f"{title}, test", "mean") for key, title in _MODELS),
    Column("kernel", "network − converged", "difference"),
    Column("descent", "converged − SGD", "difference"),
    *(Column(f"{key}_train", f"{title}, train", "mean") for key, title in _MODELS),
    Column("residual", "largest residual", "value"),
    Column("settings", "other settings"),
]
#: What both experiments read and rows tell apart.
_VARIED = {"experiment", "width", "seed", "weight_decay"}
#: Residuals from here on are shown: the minimizer is not reached.
_CONVERGED = 1e-3
NOTE = (
    "Accuracies in percent: of the network, of its linearization trained by SGD, and of the"
    " linearization's minimizer at the weight decay of the row; mean and standard deviation over"
    " seeds, of the same seeds in all rows of a width and in all columns where there are such. The"
    " gap of test accuracies in two parts, in points. SGD stands beside the minimizer of its own"
    " weight decay only."
)


_Results = dict[int, dict[str, Any]]


def table(name: str, heading: str, ends: Sequence[Study], trained: Sequence[Study]) -> Table:
    """A row a width and weight decay.

    Args:
        name: of the table's files.
        heading: its title.
        ends: converged runs with one architecture on one dataset.
        trained: studies of training, from which the closest to the paper's settings is taken.
    """
    rows = [row for study in ends for row in _rows(study, trained)]
    few = {"settings": any(row["settings"] for row in rows)}
    few["residual"] = any(row["residual"] > _CONVERGED for row in rows)
    shown = [column for column in COLUMNS if few.get(column.key, True)]
    return Table(name, heading, shown, rows, NOTE)


def draw(table: Table, path: pathlib.Path) -> None:
    """Draw test accuracy against weight decay, a panel a width; SGD and network as lines.

    Args:
        table: of `table`.
        path: of the files, without ending.
    """
    widths = sorted({row["width"] for row in table.rows})
    with plt.rc_context(plots.STYLE):
        size = (1 + 2.4 * len(widths), 2.8)
        figure, axes = plt.subplots(
            ncols=len(widths),
            figsize=size,
            sharex=True,
            sharey=True,
            squeeze=False,
            layout="constrained",
        )
        for axis, width in zip(axes[0], widths, strict=True):
            _draw_width(axis, [row for row in table.rows if row["width"] == width])
            axis.set_title(f"width {width}")
        _mark_decays(axes[0][0], sorted({row["weight_decay"] for row in table.rows}))
        axes[0][0].set_ylabel("test accuracy in percent")
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
        plots.save(figure, path)


def _draw_width(axis: plt.Axes, rows: Sequence[dict[str, Any]]) -> None:
    ordered = sorted(rows, key=lambda row: row["weight_decay"])
    decays = [row["weight_decay"] for row in ordered]
    looks: dict[str, dict[str, Any]] = {
        "network": {"color": plots.COLOURS[0], **plots.NETWORK},
        "sgd": {"color": plots.COLOURS[1], "marker": "s", "linestyle": "none"},
        "converged": {"color": plots.COLOURS[2], "marker": "o", **plots.LINEARIZATION},
    }
    for key, title in _MODELS:
        pairs = [(d, row.get(f"{key}_test")) for d, row in zip(decays, ordered, strict=True)]
        found = [pair for pair in pairs if pair[1] is not None]
        if found and key == "network":  # which no row's weight decay is of
            axis.axhline(found[0][1], label=title, linewidth=1.2, **looks[key])
        elif found:
            name = f"linearization {title}"
            axis.plot(*zip(*found, strict=True), label=name, markersize=4, **looks[key])
    axis.set_xlabel("weight decay")


def _mark_decays(axis: plt.Axes, decays: Sequence[float]) -> None:
    """A logarithmic scale with the weight decays that there are."""
    axis.set_xscale("symlog", linthresh=min((d for d in decays if d), default=1.0))
    plots.mark(axis, decays, [f"{d:g}".replace("e-0", "e-") for d in decays])
    axis.minorticks_off()


def _rows(study: Study, trained: Sequence[Study]) -> Iterator[dict[str, Any]]:
    groups: dict[int, dict[float, dict[int, dict[str, Any]]]] = {}
    for record in study.records:
        decays = groups.setdefault(record.config.width, {})
        for solution in _solutions(record):
            of_seeds = decays.setdefault(solution["weight_decay"], {})
            before = of_seeds.get(record.config.seed)
            if before is None or _residual(solution) < _residual(before):
                of_seeds[record.config.seed] = solution
    for width, decays in sorted(groups.items()):
        training, network, descents = _beside(study, trained, width, list(decays))
        note = ", ".join(filter(None, (study.note, training and f"training with {training}")))
        seeds = _shared([*decays.values(), network, *descents.values()])
        for decay, found in sorted(decays.items()):
            row: dict[str, Any] = {"width": width, "weight_decay": decay, "settings": note}
            ends = _of(found, seeds)
            row["residual"] = max(map(_residual, ends))
            for key, results in (
                ("converged", ends),
                ("network", _of(network, seeds)),
                ("sgd", _of(descents[decay], seeds)),
            ):
                row |= _cells(key, _accuracies(results)) if results else {}
            row["kernel"] = _difference(row, "network", "converged")
            row["descent"] = _difference(row, "converged", "sgd")
            yield row


def _solutions(record: Record) -> list[dict[str, Any]]:
    """The minimizers of a run: of one weight decay, or of several."""
    alone = record.result | {"weight_decay": getattr(record.config, "weight_decay", None)}
    return record.result.get("solutions") or [alone]


def _residual(solution: dict[str, Any]) -> float:
    """Of a minimizer; 0 where an earlier version did not tell."""
    found = solution.get("residual", 0.0)
    return float(found) if isinstance(found, int | float) else 0.0


def _accuracies(found: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    return {
        split: [100 * solution[f"{split}_accuracy"] for solution in found]
        for split in ("test", "train")
    }


def _shared(columns: Sequence[Collection[int]]) -> set[int]:
    """Seeds that all have but those that have none of the ones before, as where nothing was run."""
    seeds = set(columns[0])
    for column in columns[1:]:
        seeds = seeds & set(column) or seeds
    return seeds


def _of(results: Mapping[int, dict[str, Any]], seeds: Collection[int]) -> list[dict[str, Any]]:
    """The results of some seeds, in their order, or of all if there are none of these."""
    alike = [results[seed] for seed in sorted(results) if seed in seeds]
    return alike or [results[seed] for seed in sorted(results)]


def _beside(
    study: Study, trained: Sequence[Study], width: int, decays: Sequence[float]
) -> tuple[str, _Results, dict[float, _Results]]:
    """What was trained: in what way, and results of the network and of each weight decay's SGD.

    All of one study, so that they were trained alike: of those that have most of it the nearest to
    the paper's settings, and of these the longest.
    """
    found = []
    for number, other in enumerate(trained):
        network = _chosen(study, other, width, None)
        descents = {decay: _chosen(study, other, width, decay) for decay in decays}
        have = bool(network) + any(descents.values())
        length = max(record.config.epochs for record in other.records)
        place = (-have, len(other.differences), -length, number)
        own = {k: v for k, v in other.differences.items() if study.differences.get(k) != v}
        found.append((place, in_words(own), network, descents))
    _, note, network, descents = min(found, default=(None, "", {}, {d: {} for d in decays}))
    return note if network or any(descents.values()) else "", network, descents


def _chosen(study: Study, other: Study, width: int, decay: float | None) -> _Results:
    """Results of the network, or of the linearization with a weight decay, by seed."""
    setting = choose([s for s in other.settings if _fits(s, study, width, decay)])
    done = [record for record in setting.records if not record.diverged] if setting else []
    return {record.config.seed: record.result for record in done}


def _fits(setting: Setting, study: Study, width: int, decay: float | None) -> bool:
    """Whether a setting is the counterpart: alike in all that both experiments read."""
    model = setting.model
    if setting.width != width or model.linearized != (decay is not None) or model.alpha != 1:
        return False
    if decay is not None and setting.weight_decay != decay:
        return False
    # What the minimizer is of: squared errors on the pictures as they are.
    if (theirs := setting.records[0].config).loss != "l2" or theirs.augment != "none":
        return False
    return alike(study.records[0].config, theirs, _VARIED)


def _cells(key: str, values: dict[str, list[float]]) -> dict[str, Any]:
    cells: dict[str, Any] = {}
    for split, found in values.items():
        cells |= mean_cells(f"{key}_{split}", found)
    return cells


def _difference(row: dict[str, Any], one: str, other: str) -> float | None:
    values = row.get(f"{one}_test"), row.get(f"{other}_test")
    return None if None in values else values[0] - values[1]
