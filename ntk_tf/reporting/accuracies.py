"""Figures of accuracies: against the width, and side by side."""

import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.ticker import MaxNLocator

from ntk_tf import plots, runs
from ntk_tf.plots import plt
from ntk_tf.reporting.grouping import Setting, Study
from ntk_tf.reporting.paper import SPLITS, Curve, alpha_text
from ntk_tf.reporting.studies import Point
from ntk_tf.reporting.tables import Table

#: A colour and a marker for each curve.
LOOKS = tuple(zip(("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00"), "os^Dv", strict=True))


def draw_widths(shown: Sequence[Point], path: pathlib.Path) -> None:
    """Draw accuracy against width: filled markers are ours, hollow ones the paper's.

    A cross at the lower edge marks a width some of whose runs diverged. Of several alphas the
    largest is drawn; `alphas` shows the others.

    Args:
        shown: the points of all curves.
        path: of the files, without ending.
    """
    alphas = [p.curve.model.alpha for p in shown if p.curve.model.lazy]
    largest = max(alphas, default=1.0)
    shown = [p for p in shown if not p.curve.model.lazy or p.curve.model.alpha == largest]
    curves = list({point.curve.key: point.curve for point in shown}.values())
    with plt.rc_context(plots.STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(7.2, 3.4), sharey=True, layout="constrained")
        for axis, split in zip(axes, SPLITS, strict=True):
            for curve, look in zip(curves, LOOKS, strict=False):
                _draw_curve(axis, curve, [p for p in shown if p.curve == curve], split, look)
            axis.set_title(f"{split} accuracy")
            axis.set_xlabel("width factor")
            _scale(axis, sorted({point.width for point in shown}))
        axes[0].set_ylabel("accuracy in percent")
        _mark_divergence(axes, shown, curves)
        _draw_legend(figure, curves, shown)
        plots.save(figure, path)


def _draw_curve(
    axis: plt.Axes, curve: Curve, shown: Sequence[Point], split: str, look: tuple[str, str]
) -> None:
    colour, marker = look
    theirs = sorted(curve.paper.get(split, {}).items())
    if theirs:
        style = {"markerfacecolor": "none", "markersize": 8, "linestyle": ":", "linewidth": 0.6}
        axis.plot(*zip(*theirs, strict=True), color=colour, marker=marker, **style)
    ours = [point for point in shown if point.chosen]
    if ours:
        plots.curve(
            axis,
            [point.width for point in ours],
            [point.chosen.mean(split) for point in ours],
            [point.chosen.std(split) for point in ours],
            color=colour,
            marker=marker,
            linewidth=1.2,
            **plots.line_style(curve.model.linearized),
        )


def _scale(axis: plt.Axes, widths: Sequence[int]) -> None:
    """Widths on a logarithmic scale, each with its number."""
    plots.log_axis(axis, widths)
    axis.set_xlim(widths[0] / 1.25, widths[-1] * 1.25)


def _mark_divergence(
    axes: Sequence[plt.Axes], shown: Sequence[Point], curves: Sequence[Curve]
) -> None:
    if any(point.diverged for point in shown):  # room below the curves
        low, high = axes[0].get_ylim()
        axes[0].set_ylim(low - 0.15 * (high - low), high)
    for i, (curve, (colour, _)) in enumerate(zip(curves, LOOKS, strict=False)):
        widths = [p.width for p in shown if p.curve == curve and p.diverged]
        for axis in axes if widths else ():
            at = axis.get_xaxis_transform()  # widths across, fractions of the axis up
            height = [0.03 + 0.05 * i] * len(widths)
            axis.plot(widths, height, "x", color=colour, transform=at, clip_on=False)


def _draw_legend(figure: plt.Figure, curves: Sequence[Curve], shown: Sequence[Point]) -> None:
    handles = [
        plt.Line2D(
            *([], []),
            color=colour,
            marker=marker,
            markersize=4,
            label=curve.title,
            **plots.line_style(curve.model.linearized),
        )
        for curve, (colour, marker) in zip(curves, LOOKS, strict=False)
    ]
    grey = {"color": "grey", "linestyle": "none"}
    if any(curve.paper for curve in curves):
        hollow = {"markerfacecolor": "none", "markersize": 8}
        handles.append(plt.Line2D([], [], marker="o", label="paper", **hollow, **grey))
    rates = sorted({s.learning_rate for point in shown for s in point.diverged})
    if rates:
        label = f"diverged at learning rate {', '.join(f'{rate:g}' for rate in rates)}"
        handles.append(plt.Line2D([], [], marker="x", label=label, **grey))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)


def draw_bars(table: Table, path: pathlib.Path) -> None:
    """Draw a table's rows side by side: bars are ours, hollow markers the paper's.

    Args:
        table: with columns `test`, `train`, `paper_test` and `paper_train`.
        path: of the files, without ending.
    """
    with plt.rc_context(plots.STYLE):
        figure, axis = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
        for i, (split, (colour, marker)) in enumerate(zip(SPLITS, LOOKS, strict=False)):
            for x, row in enumerate(table.rows):
                place = x - 0.18 + 0.36 * i
                if row.get(split) is not None:
                    look = {"color": colour, "alpha": 0.85, "capsize": 3}
                    axis.bar(place, row[split], 0.34, yerr=row.get(f"{split}_std"), **look)
                if row.get(f"paper_{split}") is not None:
                    hollow = {"markerfacecolor": "white", "markersize": 8}
                    axis.plot(place, row[f"paper_{split}"], marker, color=colour, **hollow)
            axis.bar(0, 0, color=colour, label=f"{split}, bar: ours, hollow marker: paper's")
        labels = [
            row["model"].replace(", ", "\n").replace(" trained", "\ntrained") for row in table.rows
        ]
        axis.set_xticks(range(len(table.rows)), labels)
        axis.set_ylim(0, 105)
        axis.set_ylabel("accuracy in percent")
        figure.legend(loc="outside lower center", ncols=2)
        plots.save(figure, path)


EPOCH_COLUMNS = (
    *("run", "model", "centered", "alpha", "width", "learning_rate", "weight_decay", "seed"),
    *("epoch", "running_train_accuracy", "test_accuracy"),
)


def draw_epochs(study: Study, chosen: Sequence[Setting], path: pathlib.Path) -> bool:
    """Draw the accuracies after each epoch, a line a run, and write them as `.csv`.

    Args:
        study: the runs.
        chosen: settings whose lines stand out.
        path: of the files, without ending.

    Returns:
        Whether there is anything to draw.

    Raises:
        RunDirectoryError: if a metrics.csv cannot be read.
    """
    rows = [row for setting in study.settings for row in _epoch_rows(setting)]
    if not rows:
        return False
    names = {False: "network", True: "linearization"}
    shaded, of = _shaded(study)
    colours = plots.shades([of(setting) for setting in study.settings])
    with plt.rc_context(plots.STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(7.2, 3.4), sharey=True, layout="constrained")
        for setting in study.settings:
            style = {"color": colours[of(setting)]} | plots.line_style(setting.model.linearized)
            style |= {"alpha": 1.0} if setting in chosen else {"alpha": 0.35}
            for record in setting.records:
                _draw_run(axes, record.epochs(), style)
        for axis, name in zip(axes, ("test accuracy", "running train accuracy"), strict=True):
            axis.set_title(name)
            axis.set_xlabel("epoch")
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            axis.grid(alpha=0.25, linewidth=0.6)
        axes[0].set_ylabel("accuracy in percent")
        axes[0].set_ylim(_bottom(study), None)
        models = dict.fromkeys(setting.model.linearized for setting in study.settings)
        handles = [
            plt.Line2D([], [], color="0.3", label=names[model], **plots.line_style(model))
            for model in models
        ]
        handles += [
            plt.Line2D([], [], color=colour, label=f"{shaded} {alpha_text(value)}")
            for value, colour in colours.items()
        ]
        if len(chosen) < len(study.settings):
            handles.append(plt.Line2D([], [], color="0.3", alpha=0.35, label="not chosen"))
        figure.legend(handles=handles, loc="outside lower center", ncols=4)
        plots.save(figure, path)
    runs.write_table(path.with_name(f"{path.name}.csv"), EPOCH_COLUMNS, rows)
    return True


def _shaded(study: Study) -> tuple[str, Callable[[Setting], float]]:
    """What colours tell: the width; or of one width the alpha, infinite for a linearization."""
    widths = {setting.width for setting in study.settings}
    alphas = {setting.model.alpha for setting in study.settings}
    if len(widths) == 1 and len(alphas) > 1:
        return "alpha", lambda s: math.inf if s.model.linearized else s.model.alpha
    return "width factor", lambda setting: setting.width


def _epoch_rows(setting: Setting) -> list[dict[str, Any]]:
    """The epochs of a setting's runs as rows of `EPOCH_COLUMNS`."""
    about = {
        "model": "linearization" if setting.model.linearized else "network",
        "centered": setting.model.centered,
        "alpha": setting.model.alpha,
        "width": setting.width,
        "learning_rate": setting.learning_rate,
        "weight_decay": setting.weight_decay,
    }
    return [
        {"run": record.name, "seed": record.config.seed} | about | row
        for record in setting.records
        for row in record.epochs()
    ]


def _bottom(study: Study) -> float | None:
    """What no run that did not diverge falls below after its first tenth, and some room."""
    found = [
        100 * row[name]
        for record in study.records
        if not record.diverged
        for rows in [record.epochs()]
        for row in rows[len(rows) // 10 :]
        for name in ("test_accuracy", "running_train_accuracy")
        if row[name] is not None
    ]
    return max(0.0, min(found) - 0.1 * (max(found) - min(found)) - 0.5) if found else None


def _draw_run(
    axes: Sequence[plt.Axes], rows: Sequence[Mapping[str, Any]], style: Mapping[str, Any]
) -> None:
    """A run's test and train accuracies; a single epoch is a dot."""
    marker = "." if len(rows) == 1 else None
    for axis, name in zip(axes, ("test_accuracy", "running_train_accuracy"), strict=True):
        values = [float("nan") if row[name] is None else 100 * row[name] for row in rows]
        epochs = [row["epoch"] for row in rows]
        axis.plot(epochs, values, marker=marker, linewidth=0.9, **style)
