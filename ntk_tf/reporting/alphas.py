"""Accuracy against alpha, as Figure 3(a) of Chizat, Oyallon and Bach (2019)."""

import math
import pathlib
from collections.abc import Container, Iterable, Sequence
from typing import Any

from ntk_tf import plots
from ntk_tf.plots import plt
from ntk_tf.reporting.accuracies import LOOKS
from ntk_tf.reporting.grouping import Setting
from ntk_tf.reporting.paper import LIMIT, NETWORK, SPLITS, Model, alpha_text
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
#: Of the largest alpha, between which the limit is drawn.
_BEYOND = (4.0, 100.0)
_HOLLOW: dict[str, Any] = {"markerfacecolor": "white", "markersize": 7, "linestyle": "none"}


def of_alpha(shown: Iterable[Point]) -> list[Point]:
    """The points for a figure against alpha; none if no width has two alphas."""
    found = [p for p in shown if p.curve.model.centered or p.curve.model == NETWORK]
    pairs = {(p.width, p.curve.model.alpha) for p in found if p.curve.model.lazy}
    widths = {width for width, _ in pairs if sum(width == w for w, _ in pairs) > 1}
    return [point for point in found if point.width in widths]


def table(name: str, points: Sequence[Point]) -> Table:
    """A row a model and width.

    Args:
        name: of the table's files.
        points: of `of_alpha`.
    """
    rows = []
    for point in sorted(points, key=lambda p: (p.width, p.curve.model)):
        alpha = alpha_text(point.curve.model.alpha) if point.curve.model.lazy else None
        rows.append(point.row() | {"alpha": alpha})
    return Table(name, "Accuracy against alpha", COLUMNS, rows, NOTE)


def draw(points: Sequence[Point], path: pathlib.Path) -> None:
    """Draw test and train accuracy against alpha, a panel a width.

    The dashed line at infinity is the centered linearization, and the hollow marker at alpha = 1
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
        handles = _legend({p.curve.model for p in points if p.chosen}, any(map(_failed, points)))
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
        plots.save(figure, path)


def _failed(point: Point) -> bool:
    return point.curve.model.lazy and bool(point.diverged)


def _legend(models: Container[Model], diverged: bool) -> list[plt.Line2D]:
    handles = [
        plt.Line2D([], [], color=colour, marker=marker, markersize=4, label=split)
        for split, (colour, marker) in zip(SPLITS, LOOKS, strict=False)
    ]
    if LIMIT in models:
        style = {"color": "0.3", **plots.LINEARIZATION}
        handles.append(plt.Line2D([], [], label="centered linearization", **style))
    if NETWORK in models:
        style = {"color": "0.3", "marker": "o", **_HOLLOW}
        handles.append(plt.Line2D([], [], label="network, not centered", **style))
    if diverged:
        style = {"color": "0.4", "marker": "x", "linestyle": "none"}
        handles.append(plt.Line2D([], [], label="runs diverged", **style))
    return handles


def _draw_width(axis: plt.Axes, points: Sequence[Point]) -> None:
    scaled = sorted((p for p in points if p.curve.model.lazy), key=lambda p: p.curve.model.alpha)
    alphas = [point.curve.model.alpha for point in scaled]
    for split, (colour, marker) in zip(SPLITS, LOOKS, strict=False):
        _draw_scaled(axis, scaled, split, color=colour, marker=marker)
        for point in points:
            if point.chosen and point.curve.model == LIMIT:
                _draw_limit(axis, point.chosen, split, alphas[-1], colour)
            if point.chosen and point.curve.model == NETWORK:
                axis.plot(1, point.chosen.mean(split), marker, color=colour, **_HOLLOW)
    place = axis.get_xaxis_transform()  # alphas across, fractions of the axis up
    for point in filter(_failed, points):
        alpha = point.curve.model.alpha
        axis.plot(alpha, 0.02, "x", color="0.4", transform=place, clip_on=False)
    with_limit = any(p.chosen and p.curve.model == LIMIT for p in points)
    _scale(axis, alphas[0], alphas[-1], with_limit)


def _draw_scaled(axis: plt.Axes, scaled: Sequence[Point], split: str, **look: str) -> None:
    found = [
        (point.curve.model.alpha, point.chosen.mean(split), point.chosen.std(split))
        for point in scaled
        if point.chosen
    ]
    if found:
        alphas, means, deviations = zip(*found, strict=True)
        plots.curve(axis, alphas, means, deviations, linewidth=1.2, **plots.NETWORK, **look)


def _draw_limit(axis: plt.Axes, setting: Setting, split: str, largest: float, colour: str) -> None:
    """A line beyond the largest alpha, with its standard deviation behind."""
    mean, deviation = setting.mean(split), setting.std(split) or 0
    if mean is not None:
        place = [factor * largest for factor in _BEYOND]
        axis.plot(place, [mean, mean], color=colour, **plots.LINEARIZATION)
        low, high = mean - deviation, mean + deviation
        axis.fill_between(place, low, high, color=colour, alpha=0.2, linewidth=0)


def _scale(axis: plt.Axes, smallest: float, largest: float, with_limit: bool) -> None:
    """Powers of ten, every second one where there are many, and infinity."""
    first, last = math.ceil(math.log10(smallest)), math.floor(math.log10(largest))
    powers = range(first, last + 1, 1 if last - first < 6 else 2)
    ticks = [10.0**power for power in powers]
    labels = [f"$10^{{{power}}}$" for power in powers]
    if with_limit:
        ticks.append(largest * math.prod(_BEYOND) ** 0.5)
        labels.append(r"$\infty$")
    axis.set_xscale("log")
    axis.set_xlim(smallest / 2, largest * (_BEYOND[1] if with_limit else 2))
    axis.set_xticks(ticks, labels)
    axis.minorticks_off()
    axis.set_xlabel("alpha")
    axis.grid(alpha=0.25, linewidth=0.6)
