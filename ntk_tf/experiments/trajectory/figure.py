"""Figure 2: outputs of a network and of its linearization against the number of updates."""

import csv
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ntk_tf import plots, runs
from ntk_tf.plots import DARK, LIGHT, plt


def draw(run_dirs: Sequence[pathlib.Path], output_dir: pathlib.Path) -> None:
    """Draw `trajectories.png` and `.pdf`: a panel a run, and below it its kernel's movement.

    Args:
        run_dirs: of `--experiment=trajectory`, in the order of the panels.
        output_dir: where the figure goes.
    """
    contents = [_read(run_dir) for run_dir in run_dirs]
    with_kernel = any(content["kernel"] for content in contents)
    rows = 2 if with_kernel else 1
    with plt.rc_context(plots.STYLE):
        figure, axes = plt.subplots(
            rows,
            len(contents),
            figsize=(1.2 + 3.2 * len(contents), 0.6 + 2.4 * rows),
            squeeze=False,
            sharey="row",
            sharex="col",
            layout="constrained",
        )
        for column, content in enumerate(contents):
            _draw_outputs(axes[0, column], content)
            if with_kernel:
                _draw_kernel(axes[1, column], content["kernel"])
            axes[-1, column].set_xlabel("updates")
        axes[0, 0].set_ylabel("output of the correct class")
        if with_kernel:
            axes[1, 0].set_ylabel("kernel")
            axes[1, 0].legend(loc="lower right", fontsize=8)
        _draw_legend(figure, contents)
        plots.save(figure, output_dir / "trajectories")


def _read(run_dir: pathlib.Path) -> dict[str, Any]:
    """What a run directory holds of a trajectory.

    Raises:
        RunDirectoryError: if that is not what a run leaves.
    """
    settings = runs.read_json(run_dir / "config.json")
    content = runs.read_arrays(run_dir / "trajectories.npz")
    trajectory = runs.read_json(run_dir / "trajectory.json")
    try:
        steps, pictures = len(content["step"]), len(content["label"])
        for side in ("standard", "linearized"):
            content[side] = content[side].astype(np.float64)
            if content[side].shape[:2] != (steps, pictures) or content["index"].ndim != 1:
                raise runs.RunDirectoryError(f"{run_dir}: trajectories.npz has other shapes")
            content[side][:, :, content["label"]]
        return content | {
            "kernel": _read_kernel(run_dir / "kernel.csv"),
            "width": int(settings["width"]),
            "distances": [
                (int(row["step"]), _number(row["relative_distance"]))
                for row in trajectory["distances"]
            ],
        }
    except (LookupError, TypeError, ValueError, AttributeError, OSError, csv.Error) as error:
        raise runs.RunDirectoryError(
            f"{run_dir}: holds no trajectory of this version ({type(error).__name__}: {error})"
        ) from error


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _read_kernel(path: pathlib.Path) -> list[dict[str, float]]:
    """The rows of a kernel.csv; none where there is no file."""
    if not path.exists():
        return []
    names = ("step", "relative_change", "cosine", "label_alignment")
    with open(path, newline="") as file:
        return [{name: float(row[name]) for name in names} for row in csv.DictReader(file)]


def _draw_outputs(axis: plt.Axes, content: dict[str, Any]) -> None:
    for e, label in enumerate(content["label"]):
        for side, colours in (("linearized", LIGHT), ("standard", DARK)):
            values = content[side][:, e, label]
            axis.plot(content["step"], values, color=colours[e % len(colours)], linewidth=0.9)
    axis.set_title(f"width factor {content['width']}{_distance_note(content['distances'])}")
    axis.margins(x=0.01)


def _distance_note(distances: list[tuple[int, float | None]]) -> str:
    """The last relative distance, for the title; empty where there is none."""
    if not distances or distances[-1][1] is None:
        return ""
    step, distance = distances[-1]
    return f"\nrelative distance {distance:.2f} after {step:,} updates"


def _draw_kernel(axis: plt.Axes, rows: list[dict[str, float]]) -> None:
    """The kernel's direction and alignment on the left axis, its relative change on the right."""
    steps = [row["step"] for row in rows]
    names = {"cosine": "cosine with the first kernel", "label_alignment": "alignment with labels"}
    for i, (key, name) in enumerate(names.items()):
        axis.plot(steps, [row[key] for row in rows], color=DARK[4 + i], label=name)
    axis.set_ylim(0, 1.05)
    change = axis.twinx()
    change.plot(steps, [row["relative_change"] for row in rows], color=DARK[3])
    change.set_ylabel("relative change", color=DARK[3])
    change.spines["right"].set_visible(True)
    change.set_ylim(bottom=0)


def _draw_legend(figure: plt.Figure, contents: list[dict[str, Any]]) -> None:
    """One entry a picture, where all runs show the same, and dark and light explained."""
    grey = plt.get_cmap("Greys")
    handles = [
        plt.Line2D([], [], color=grey(0.85), label="network"),
        plt.Line2D([], [], color=grey(0.4), label="linearization"),
    ]
    first = contents[0]
    if all(np.array_equal(first["index"], content["index"]) for content in contents):
        handles += [
            plt.Line2D([], [], color=DARK[e % len(DARK)], label=f"picture {index} (class {label})")
            for e, (index, label) in enumerate(zip(first["index"], first["label"], strict=True))
        ]
    figure.legend(handles=handles, loc="outside lower center", ncols=5 if len(contents) > 1 else 2)
