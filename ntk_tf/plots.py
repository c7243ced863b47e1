"""What all figures share: size, fonts, colours, and saving as PNG and PDF."""

import pathlib
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt  # noqa: E402

from ntk_tf import runs  # noqa: E402

#: Dark for the network, light for its linearization, one hue a picture (matplotlib's tab20).
HUES = matplotlib.colormaps["tab20"].colors  # type: ignore[attr-defined]
DARK, LIGHT = HUES[0::2], HUES[1::2]

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,
}


def save(figure: plt.Figure, path: pathlib.Path) -> None:
    """Write the figure as `path`.png and `path`.pdf, and close it.

    Args:
        figure: a matplotlib figure.
        path: without ending.
    """
    for ending in ("png", "pdf"):
        with runs.atomic_write(path.with_name(f"{path.name}.{ending}"), "wb") as file:
            figure.savefig(file, format=ending, bbox_inches="tight")
    plt.close(figure)
