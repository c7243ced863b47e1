"""Figure 5: effective rank of the tangent features against the width, and their spectra."""

import pathlib
from collections.abc import Mapping, Sequence
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
    "condition_of_singular_values",
    "condition_of_eigenvalues",
    "train_accuracy",
    "test_accuracy",
    "seed",
    "seconds",
)
SPECTRA_COLUMNS = ("width", "seed", "number", "singular_value")


def draw(run_dirs: Sequence[pathlib.Path], output_dir: pathlib.Path) -> None:
    """Draw `spectra`, and for several runs `effective_rank`, with what is drawn as `.csv`.

    Args:
        run_dirs: of `--experiment=rank`; those whose singular values are not there any more appear
            only in `effective_rank`.
        output_dir: where the figures go.
    """
    contents = sorted((_read(run_dir) for run_dir in run_dirs), key=_place)
    spectra = [content for content in contents if "singular_values" in content]
    with plt.rc_context(plots.STYLE):
        if spectra:
            _draw_spectra(spectra, output_dir / "spectra")
        if len(contents) > 1:
            _draw_ranks(contents, output_dir / "effective_rank")
    if len(contents) > 1:
        rows = [{name: content.get(name) for name in COLUMNS} for content in contents]
        runs.write_table(output_dir / "effective_rank.csv", COLUMNS, rows)


def _place(content: Mapping[str, Any]) -> tuple[int, int]:
    return content["width"], content.get("seed") or 0


def _read(run_dir: pathlib.Path) -> dict[str, Any]:
    """What a run directory holds of a spectrum.

    Raises:
        RunDirectoryError: if that is not what a finished run leaves.
    """
    content, path = runs.renamed(runs.read_json(run_dir / RESULT)), run_dir / "spectrum.npz"
    for name in ("width", "effective_rank", "rows"):
        if not isinstance(content.get(name), int | float):
            raise runs.RunDirectoryError(f"{run_dir / RESULT}: its {name} must be a number")
    if not path.exists():
        return content
    values = runs.read_arrays(path).get("singular_values")
    if values is None or values.ndim != 1 or values.dtype != np.float64 or not len(values):
        raise runs.RunDirectoryError(f"{path}: holds no singular values")
    return content | {"singular_values": values}


def _draw_spectra(contents: Sequence[Mapping[str, Any]], path: pathlib.Path) -> None:
    """Singular values as parts of the largest, on a log scale."""
    figure, axis = plt.subplots(figsize=(4.8, 3), layout="constrained")
    colours = plots.shades([content["width"] for content in contents])
    lowest = 1e-12
    for content in contents:
        values, colour = content["singular_values"], colours[content["width"]]
        relative = np.where(values > lowest * values[0], values / values[0], np.nan)
        axis.semilogy(np.arange(1, len(values) + 1), relative, color=colour, linewidth=1)
    for width, colour in colours.items():
        axis.plot([], [], color=colour, label=f"width factor {width}")
    axis.set_xlabel("number of the singular value")
    axis.set_ylabel("singular value / largest")
    plots.legend(figure, axis)
    plots.save(figure, path)
    rows = [
        {"width": c["width"], "seed": c.get("seed"), "number": i + 1, "singular_value": value}
        for c in contents
        for i, value in enumerate(c["singular_values"])
    ]
    runs.write_table(path.with_name(f"{path.name}.csv"), SPECTRA_COLUMNS, rows)


def _draw_ranks(contents: Sequence[Mapping[str, Any]], path: pathlib.Path) -> None:
    """Each run's effective rank, and a line through the means over seeds."""
    figure, axis = plt.subplots(figsize=(4.8, 3), layout="constrained")
    by_width: dict[int, list[float]] = {}
    for content in contents:
        by_width.setdefault(content["width"], []).append(content["effective_rank"])
    means = [np.mean(ranks) for ranks in by_width.values()]
    axis.plot(list(by_width), means, color=plots.COLOURS[0])
    ranks = [content["effective_rank"] for content in contents]
    axis.plot([content["width"] for content in contents], ranks, "o", color=plots.COLOURS[0])
    axis.set_ylim(0, 1.08 * max(ranks))
    plots.mark(axis, list(by_width))
    axis.set_xlabel("width factor")
    axis.set_ylabel("effective rank")
    rows = {content["rows"] for content in contents}
    if len(rows) == 1:
        axis.set_title(f"of at most {rows.pop():,}")
    plots.save(figure, path)
