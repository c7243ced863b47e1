"""Accuracy against alpha, as Figure 3(a) of Chizat, Oyallon and Bach (2019)."""

import math
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.container import ErrorbarContainer
from matplotlib.ticker import LogLocator, NullLocator

from ntk_tf import plots
from ntk_tf.plots import plt
from ntk_tf.reporting.accuracies import LOOKS
from ntk_tf.reporting.paper import LIMIT, NETWORK, SPLITS, alpha_text
from ntk_tf.reporting.studies import Point
from ntk_tf.reporting.tables import Column, Table

COLUMNS = [
    Column("model", "model"),
    Column("width", "width", "value"),
    Column("alpha", "alpha", "value"),
    Column("learning_rate", "learning rate", "value"),
    Column("weight_decay", "weight decay", "value"),
    Column("seeds", "seeds", "value"),
    *(Column(split, split, "mean") for split in SPLITS),
    Column("remark", "remark"),
]
NOTE = (
    "Accuracies in percent: mean and standard deviation over seeds, of the centered network"
    " alpha (f(w, x) - f(w0, x)), of its limit for large alpha, the centered linearization, and of"
    " the network as it is. The learning rate of each is the one with the best mean test accuracy."
)


def of_alpha(shown: Iterable[Point]) -> list[Point]:
    """The points for a figure against alpha; none if no width has two alphas."""
    found = [p for p in shown if p.curve.model.centered or p.curve.model == NETWORK]
    pairs = {(p.width, p.curve.model.alpha) for p in found if _is_scaled(p)}
    widths = {width for width, _ in pairs if sum(width == w for w, _ in pairs) > 1}
    return [point for point in found if point.width in widths]


def _is_scaled(point: Point) -> bool:
    return point.curve.model.centered and not point.curve.model.linearized


def table(name: str, points: Sequence[Point]) -> Table:
    """A row a model and width.

    Args:
        name: of the table's files.
        points: of `of_alpha`.
    """
    rows = []
    for point in sorted(points, key=lambda p: (p.width, p.curve.model)):
        alpha = alpha_text(point.curve.model.alpha) if _is_scaled(point) else None
        rows.append(point.row() | {"alpha": alpha})
    return Table(name, "Accuracy against alpha", COLUMNS, rows, NOTE)


def draw(points: Sequence[Point], path: pathlib.Path) -> None:
    """Draw test and train accuracy against alpha, a panel a width.

    The dashed line at the right is the centered linearization, and the hollow marker at alpha = 1
    the network that is not centered; a cross at the lower edge marks an alpha some of whose runs
    diverged.

    Args:
        points: of `of_alpha`.
        path: of the files, without ending.
    """
    widths = sorted({point.width for point in points})
    size = (1.2 + 3.6 * len(widths), 3.4)
    with plt.rc_context(plots.STYLE):
        figure, axes = plt.subplots(
            1, len(widths), figsize=size, sharey=True, squeeze=False, layout="constrained"
        )
        for axis, width in zip(axes[0], widths, strict=True):
            _draw_width(axis, [point for point in points if point.width == width])
            if len(widths) > 1:
                axis.set_title(f"width factor {width}")
        axes[0][0].set_ylabel("accuracy in percent")
        handles = {label: h for axis in axes[0] for h, label in _handles(axis)}
        figure.legend(handles.values(), handles, loc="outside lower center", ncols=2)
        plots.save(figure, path)


def _handles(axis: plt.Axes) -> Iterable[tuple[Any, str]]:
    return zip(*axis.get_legend_handles_labels(), strict=True)


def _draw_width(axis: plt.Axes, points: Sequence[Point]) -> None:
    scaled = sorted(filter(_is_scaled, points), key=lambda p: p.curve.model.alpha)
    alphas = [point.curve.model.alpha for point in scaled]
    right = alphas[-1] * 3, alphas[-1] * 100
    for split, look in zip(SPLITS, LOOKS, strict=False):
        done = [point for point in scaled if point.chosen]
        _draw_values(axis, [p.curve.model.alpha for p in done], done, split, look)
        for point in points:
            if point.chosen and point.curve.model == LIMIT:
                _draw_limit(axis, point, split, look, right)
            if point.chosen and point.curve.model == NETWORK:
                style = {"markerfacecolor": "white", "markersize": 7, "linestyle": "none"}
                label = f"{split}, network not centered"
                y = point.chosen.mean(split)
                axis.plot(1, y, look[1], color=look[0], label=label, **style)
    crosses = [p.curve.model.alpha for p in scaled if p.diverged]
    if crosses:
        style = {"transform": axis.get_xaxis_transform(), "clip_on": False, "color": "0.4"}
        heights = [0.02] * len(crosses)
        axis.plot(crosses, heights, "x", label="some runs diverged", **style)
    _scale(axis, alphas, right)


def _draw_values(
    axis: plt.Axes,
    alphas: Sequence[float],
    points: Sequence[Point],
    split: str,
    look: tuple[str, str],
) -> ErrorbarContainer:
    means = [point.chosen.mean(split) for point in points if point.chosen]
    stds = [point.chosen.std(split) or 0 for point in points if point.chosen]
    style = {"markersize": 4, "capsize": 3, "linewidth": 1.2, **plots.NETWORK}
    return axis.errorbar(alphas, means, stds, color=look[0], marker=look[1], label=split, **style)


def _draw_limit(
    axis: plt.Axes, point: Point, split: str, look: tuple[str, str], right: tuple[float, float]
) -> None:
    """A line from beyond the largest alpha to the edge, with its standard deviation behind."""
    mean, std = point.chosen.mean(split), point.chosen.std(split) or 0
    label = f"{split}, centered linearization"
    axis.plot(right, [mean, mean], color=look[0], label=label, **plots.LINEARIZATION)
    axis.fill_between(right, mean - std, mean + std, color=look[0], alpha=0.2, linewidth=0)


def _scale(axis: plt.Axes, alphas: Sequence[float], right: tuple[float, float]) -> None:
    axis.set_xscale("log")
    decades = math.log10(right[1] / alphas[0])
    axis.xaxis.set_major_locator(LogLocator(10 ** max(1, round(decades / 8))))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlim(alphas[0] / 2, right[1])
    axis.set_xlabel("alpha")
    axis.grid(alpha=0.25, linewidth=0.6)
