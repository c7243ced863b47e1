"""Infinite width beside finite networks and their linearizations, trained on as many pictures."""

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ntk_tf import plots
from ntk_tf.experiments import costs
from ntk_tf.experiments.infinite.figure import TITLES
from ntk_tf.plots import plt
from ntk_tf.reporting import grouping
from ntk_tf.reporting.collect import Record
from ntk_tf.reporting.paper import LINEARIZATION, NETWORK
from ntk_tf.reporting.tables import Column, Table, mean_cells

#: The kernels for readers, and their line styles.
KERNELS: Mapping[str, tuple[str, Any]] = {
    kind: (f"infinite, {title}", style) for kind, (title, style) in TITLES.items()
}
_FINITE = {False: "network", True: "linearization"}
COLUMNS = [
    Column("model", "model"),
    Column("width", "width", "value"),
    Column("pictures", "training pictures", "value"),
    Column("test_pictures", "test pictures", "value"),
    Column("runs", "runs", "value"),
    Column("test", "test", "mean"),
    Column("plain_test", "test, no ridge", "mean"),
    Column("train", "train", "mean"),
    Column("error", "kernel's error, %", "measure"),
    Column("settings", "other settings"),
]
#: What says nothing of the network, or is averaged over, or has a column of its own.
_ASIDE = {"train_examples", "subset_seed", "test_examples", "kernel_seeds", "keep_kernels"}
_VARIED = {"experiment", *_ASIDE}
NOTE = (
    "Accuracies in percent: regression with the kernels of infinite width, its ridge chosen by"
    " leave-one-out on the training pictures, and beside it without; networks and linearizations"
    " at the learning rate and weight decay of the best mean test accuracy. Mean and standard"
    " deviation over runs: subsets of the training pictures, and seeds. The error of a kernel"
    " that is estimated is that of its mean over random channels."
)


def table(name: str, heading: str, kernels: Sequence[Record], trained: Sequence[Record]) -> Table:
    """A row a model and number of training pictures.

    Args:
        name: of the table's files.
        heading: its title.
        kernels: runs at infinite width with one architecture on one dataset.
        trained: runs of training, among them those to stand beside.
    """
    groups: dict[str, list[Record]] = {}
    for record in kernels:
        groups.setdefault(_settings(record), []).append(record)
    rows = [row for text, group in sorted(groups.items()) for row in _rows(text, group, trained)]
    filled = {key for row in rows for key, value in row.items() if value not in (None, "")}
    return Table(name, heading, [c for c in COLUMNS if c.key in filled], rows, NOTE)


def _settings(record: Record) -> str:
    """What sets a run apart, besides its pictures, in words."""
    changed = grouping.differences(record.config)
    return grouping.in_words({k: v for k, v in changed.items() if k not in _ASIDE})


def _rows(
    text: str, kernels: Sequence[Record], trained: Sequence[Record]
) -> Iterator[dict[str, Any]]:
    """The rows of one architecture with all its settings."""
    by_pictures: dict[int, list[Record]] = {}
    for record in kernels:
        by_pictures.setdefault(_pictures(record), []).append(record)
    for pictures, group in sorted(by_pictures.items()):
        row = {"pictures": pictures, "settings": text, "panel": text}
        row["test_pictures"] = _test_pictures(group)
        for kind, (title, _) in KERNELS.items():
            yield (
                row | {"model": title, "kind": kind} | _of_kernels([r.result[kind] for r in group])
            )
        yield from (row | found for found in _of_networks(group[0], trained))


def _pictures(record: Record) -> int:
    """Number of training pictures; the card of a user's data, which may be gone, is not known."""
    return record.result.get("train_examples") or costs.examples(record.config)[0]


def _test_pictures(records: Sequence[Record]) -> int | str:
    """Numbers of test pictures of some runs."""
    sizes = sorted({r.result.get("test_examples") or costs.examples(r.config)[1] for r in records})
    if 0 in sizes:  # of networks on a user's data
        return "all"
    return sizes[0] if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"


def _of_kernels(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    cells: dict[str, Any] = {"runs": len(results)}
    names = {"test": "test_accuracy", "plain_test": "test_accuracy_without_ridge"}
    for key, name in (names | {"train": "train_accuracy"}).items():
        cells |= mean_cells(key, [100 * result[name] for result in results])
    errors = [result["relative_error"] for result in results]
    if None not in errors:
        cells["error"] = 100 * max(errors)
    return cells


def _of_networks(kernel: Record, trained: Sequence[Record]) -> Iterator[dict[str, Any]]:
    """Networks and linearizations alike in all that both experiments read.

    Where they were trained in several ways, those trained most like the paper's.
    """
    alike = [
        record
        for record in trained
        if costs.examples(record.config)[0] == costs.examples(kernel.config)[0]
        and not record.config.pretrain_steps
        and grouping.alike(kernel.config, record.config, _VARIED)
    ]
    plain = [s for s in grouping.settings(alike) if s.model in (NETWORK, LINEARIZATION)]
    for linearized, width in sorted({(s.model.linearized, s.width) for s in plain}):
        candidates = [s for s in plain if (s.model.linearized, s.width) == (linearized, width)]
        records = [record for one in candidates for record in one.records]
        chosen = grouping.choose(grouping.settings(_most_like_the_papers(records)))
        if chosen:
            row = {"model": _FINITE[linearized], "width": width, "runs": chosen.seeds}
            row["test_pictures"] = _test_pictures(chosen.records)
            row["settings"] = _settings(chosen.records[0])
            for split in ("test", "train"):
                row |= {split: chosen.mean(split), f"{split}_std": chosen.std(split)}
            yield row


def _most_like_the_papers(records: Sequence[Record]) -> list[Record]:
    """Of networks that were trained in several ways, those with the fewest other settings."""
    ways: dict[tuple[int, str], list[Record]] = {}
    for record in records:
        changed = grouping.differences(record.config).items()
        own = sorted((name, str(value)) for name, value in changed if name not in _VARIED)
        ways.setdefault((len(own), str(own)), []).append(record)
    return ways[min(ways)]


def draw(table: Table, path: pathlib.Path) -> None:
    """Draw test accuracy against the number of training pictures, a panel for other settings.

    Args:
        table: of `table`.
        path: of the files, without ending.
    """
    panels = list(dict.fromkeys(row["panel"] for row in table.rows))
    colours = plots.shades([row["width"] for row in table.rows if "width" in row])
    with plt.rc_context(plots.STYLE):
        figure, axes = plt.subplots(
            *(1, len(panels)),
            figsize=(1.2 + 3.2 * len(panels), 3.6),
            sharey=True,
            squeeze=False,
            layout="constrained",
        )
        for axis, settings in zip(axes[0], panels, strict=True):
            _draw_panel(axis, [row for row in table.rows if row["panel"] == settings], colours)
            axis.set_title(settings or "the paper's settings")
        axes[0][0].set_ylabel("test accuracy in percent")
        found = [axis.get_legend_handles_labels() for axis in axes[0]]
        labelled = {
            label: handle
            for handles, labels in found
            for label, handle in zip(labels, handles, strict=True)
        }
        figure.legend(labelled.values(), labelled.keys(), loc="outside lower center", ncols=2)
        plots.save(figure, path)


def _draw_panel(axis: plt.Axes, rows: Sequence[Mapping[str, Any]], colours: Mapping) -> None:
    """A line a kernel in black, and a line a width in its colour."""
    lines: dict[str, tuple[dict[str, Any], list[Mapping[str, Any]]]] = {}
    for row in rows:
        if "kind" in row:
            look = {"color": "black", "linestyle": KERNELS[row["kind"]][1], "marker": "s"}
            label = row["model"]
        else:
            linearized = row["model"] == _FINITE[True]
            look = {"color": colours[row["width"]], "marker": "o", **plots.line_style(linearized)}
            label = f"{row['model']}, x{row['width']}"
        lines.setdefault(label, (look, []))[1].append(row)
    for label, (look, found) in lines.items():
        places = [row["pictures"] for row in found]
        means, spreads = ([row[key] for row in found] for key in ("test", "test_std"))
        plots.curve(axis, places, means, spreads, label=label, **look)
    plots.log_axis(axis, sorted({row["pictures"] for row in rows}))
    axis.set_xlabel("training pictures")
