"""Figure 5: effective rank of the tangent features against the width, and their spectra."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ntk_tf import plots, runs
from ntk_tf.plots import plt

RESULT = "rank.json"
COLUMNS = (
    "width",
    "effective_rank",
    "rows",
    "examples",
    "outputs",
    "parameters",
    "trace",
    "largest_eigenvalue",
    "condition",
    "train_accuracy",
    "test_accuracy",
    "seed",
    "seconds",
)


def draw(run_dirs: Sequence[pathlib.Path], output_dir: pathlib.Path) -> None:
    """Draw `spectra`, and for several runs `effective_rank` and a table of it.

    Args:
        run_dirs: of `--experiment=rank`.
        output_dir: where `spectra.png` and `.pdf`, `effective_rank.png`, `.pdf` and `.csv` go.
    """
    contents = sorted((_read(run_dir) for run_dir in run_dirs), key=lambda c: c["width"])
    with plt.rc_context(plots.STYLE):
        _draw_spectra(contents, output_dir / "spectra")
        if len(contents) > 1:
            _draw_ranks(contents, output_dir / "effective_rank")
    if len(contents) > 1:
        rows = [{name: content.get(name) for name in COLUMNS} for content in contents]
        runs.write_table(output_dir / "effective_rank.csv", COLUMNS, rows)


def _read(run_dir: pathlib.Path) -> dict[str, Any]:
    """What a run directory holds of a spectrum.

    Raises:
        RunDirectoryError: if that is not what a finished run leaves.
    """
    arrays, content = runs.read_arrays(run_dir / "spectrum.npz"), runs.read_json(run_dir / RESULT)
    values = arrays.get("singular_values")
    if values is None or values.ndim != 1 or values.dtype != np.float64 or not len(values):
        raise runs.RunDirectoryError(f"{run_dir / 'spectrum.npz'}: holds no singular values")
    for name in ("width", "effective_rank", "rows"):
        if not isinstance(content.get(name), int | float):
            raise runs.RunDirectoryError(f"{run_dir / RESULT}: its {name} must be a number")
    return content | {"singular_values": values}


def _draw_spectra(contents: list[dict[str, Any]], path: pathlib.Path) -> None:
    """Singular values as parts of the largest, on a log scale."""
    figure, axis = plt.subplots(figsize=(4.5, 3), layout="constrained")
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.9, len(contents)))
    lowest = 1e-12
    for content, colour in zip(contents, colours, strict=True):
        values = content["singular_values"]
        relative = np.where(values > lowest * values[0], values / values[0], np.nan)
        label = f"width factor {content['width']}"
        axis.semilogy(np.arange(1, len(values) + 1), relative, color=colour, label=label)
    axis.set_xlabel("number of the singular value")
    axis.set_ylabel("singular value / largest")
    axis.legend(fontsize=8)
    plots.save(figure, path)


def _draw_ranks(contents: list[dict[str, Any]], path: pathlib.Path) -> None:
    figure, axis = plt.subplots(figsize=(4.5, 3), layout="constrained")
    widths = [content["width"] for content in contents]
    ranks = [content["effective_rank"] for content in contents]
    axis.plot(widths, ranks, marker="o", color=plots.DARK[0])
    axis.set_ylim(0, 1.08 * max(ranks))
    axis.set_xticks(widths)
    axis.set_xlabel("width factor")
    axis.set_ylabel("effective rank")
    rows = {content["rows"] for content in contents}
    if len(rows) == 1:
        axis.set_title(f"of at most {rows.pop():,}")
    plots.save(figure, path)
