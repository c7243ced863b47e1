"""What all figures share: fonts, colours, line styles, and saving for paper, screen and page."""

import logging
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells of caches that it cannot write

import matplotlib  # noqa: E402

matplotlib.use("Agg")

import numpy as np  # noqa: E402
from matplotlib import pyplot as plt  # noqa: E402

from ntk_tf import runs  # noqa: E402

#: Colours that colour-blind readers can tell apart (Okabe and Ito 2008), in an order in which
#: neighbours differ in lightness too.
COLOURS = ("#0072B2", "#E69F00", "#000000", "#CC79A7", "#009E73", "#56B4E9", "#D55E00")
#: Everywhere the network is solid and its linearization dashed, so that grey tells them apart.
NETWORK: dict[str, Any] = {"linestyle": "-"}
LINEARIZATION: dict[str, Any] = {"linestyle": (0, (4, 1.6))}
#: A value to compare with, behind the curves.
TARGET: dict[str, Any] = {"color": "0.6", "linewidth": 0.8, "linestyle": ":", "zorder": 0}
FORMATS = ("png", "pdf", "svg")
#: Parts of an axis that two slanted labels are apart.
_NEAREST = 0.04

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,
    "svg.hashsalt": "ntk_tf",
}


def line_style(linearized: bool) -> dict:
    """How a model's line is drawn."""
    return LINEARIZATION if linearized else NETWORK


def shades(values: Sequence[float]) -> dict[float, tuple[float, ...]]:
    """A colour for each of some ordered values, such as widths: dark to light, also in grey."""
    ordered = sorted(set(values))
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.85, len(ordered)))
    return dict(zip(ordered, map(tuple, colours), strict=True))


def colours(count: int) -> list[Any]:
    """So many different ones, of which neighbours are alike where there are more than `COLOURS`."""
    return list(COLOURS) if count <= len(COLOURS) else list(shades(range(count)).values())


def mark(axis: plt.Axes, values: Sequence[float], labels: Sequence[str] = ()) -> None:
    """Ticks on the x-axis at some values alone.

    Where there are many their labels are slanted, and one too near to the next is left out.

    Args:
        axis: whose scale is set.
        values: of the ticks, ascending.
        labels: theirs; the values if there are none.
    """
    labels = list(labels or [f"{value:,}" for value in values])
    if len(labels) <= 6 and sum(map(len, labels)) <= 30:
        axis.set_xticks(values, labels)
        return
    places = axis.transScale.transform([(value, 1) for value in values])[:, 0]
    next_place = np.inf
    for i in reversed(range(len(places))):
        if next_place - places[i] < _NEAREST * (places[-1] - places[0]):
            labels[i] = ""
        else:
            next_place = places[i]
    axis.set_xticks(values, labels, rotation=45, ha="right", rotation_mode="anchor")


def curve(
    axis: plt.Axes,
    places: Sequence[float],
    means: Sequence[float],
    spreads: Sequence[float | None],
    **look: Any,
) -> None:
    """A line through means, with bars as long as their spreads; none where there is no spread.

    Args:
        axis: to draw on.
        places: of the means.
        means: themselves.
        spreads: standard deviations, None of a single run.
        **look: of the line.
    """
    bars = [np.nan if spread is None else spread for spread in spreads]
    if np.isnan(bars).all():  # or the legend would show one
        axis.plot(places, means, markersize=4, **look)
    else:
        axis.errorbar(places, means, bars, markersize=4, capsize=3, **look)


def log_axis(axis: plt.Axes, values: Sequence[float]) -> None:
    """A logarithmic x-axis with a tick at each value, and a grid."""
    axis.set_xscale("log")
    mark(axis, values)
    axis.minorticks_off()
    axis.grid(alpha=0.25, linewidth=0.6)


def legend(figure: plt.Figure, axis: plt.Axes) -> None:
    """Of some axes within them, or beside them where it would cover what is drawn."""
    handles, labels = axis.get_legend_handles_labels()
    if len(labels) <= 6:
        axis.legend(fontsize=8)
        return
    figure.set_figwidth(figure.get_figwidth() + 1.4)
    figure.legend(handles, labels, loc="outside right center", fontsize=8)


def save(figure: plt.Figure, path: pathlib.Path) -> None:
    """Write the figure as `path`.png, .pdf and .svg, the same for the same data, and close it.

    Args:
        figure: a matplotlib figure.
        path: without ending.
    """
    for text in _words(figure):
        text.set_parse_math(False)  # a path's or a network's $ is no formula
    dates = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}
    figure.draw_without_rendering()  # which lays it out, once for all formats
    figure.set_layout_engine(None)  # "none" would have every format drawn twice
    box = figure.get_tightbbox().padded(plt.rcParams["savefig.pad_inches"])
    for ending in FORMATS:
        with runs.atomic_write(path.with_name(f"{path.name}.{ending}"), "wb") as file:
            figure.savefig(file, format=ending, bbox_inches=box, metadata=dates[ending])
    plt.close(figure)


def _words(figure: plt.Figure) -> Iterator[Any]:
    """The texts that tell what is drawn; labels of ticks may be formulas."""
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes)]
    for legend in filter(None, legends):
        yield from legend.get_texts()
    for axes in figure.axes:
        yield from (axes.title, axes.xaxis.label, axes.yaxis.label)
