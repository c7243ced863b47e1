"""Spectra of kernels at infinite width."""

import pathlib
from collections.abc import Mapping

import numpy as np

from ntk_tf import plots, runs
from ntk_tf.plots import plt

#: How the kernels are called, and their line styles beside the colours.
TITLES = {
    "ntk": ("NTK", "-"),
    "ntk_paper_widening": ("NTK of the paper's widening", (0, (4, 1.6))),
    "nngp": ("NNGP", ":"),
}
COLUMNS = ("kernel", "number", "singular_value")
#: Values below this part of the largest are left to rounding.
_LOWEST = 1e-8


def draw_spectra(spectra: Mapping[str, np.ndarray], path: pathlib.Path) -> None:
    """Draw singular values as parts of the largest, with what is drawn as `.csv`.

    Args:
        spectra: singular values by kernel, descending.
        path: without ending.
    """
    with plt.rc_context(plots.STYLE):
        figure, axis = plt.subplots(figsize=(4.8, 3), layout="constrained")
        for (kind, (title, style)), colour in zip(TITLES.items(), plots.COLOURS, strict=False):
            values = spectra[kind]
            relative = np.where(values > _LOWEST * values[0], values / values[0], np.nan)
            numbers = np.arange(1, len(values) + 1)
            axis.loglog(numbers, relative, linestyle=style, color=colour, label=title)
        axis.set_xlabel("number of the singular value")
        axis.set_ylabel("singular value / largest")
        axis.legend(fontsize=8)
        plots.save(figure, path)
    rows = [
        {"kernel": kind, "number": i, "singular_value": value}
        for kind, values in spectra.items()
        for i, value in enumerate(values, 1)
    ]
    runs.write_table(path.with_name(f"{path.name}.csv"), COLUMNS, rows)
