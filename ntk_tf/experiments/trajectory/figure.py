"""Figure 2: outputs of a network and of its linearization against the number of updates."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ntk_tf import plots, runs
from ntk_tf.plots import COLOURS, LINEARIZATION, NETWORK, plt

SIDES = {"linearized": LINEARIZATION, "standard": NETWORK}
#: The right axis of the kernel's panels.
_CHANGE = "relative change"
_KERNEL: dict[str, tuple[str, dict[str, Any]]] = {
    "cosine": ("kernel: cosine with the first", {"color": COLOURS[4], "linestyle": "-"}),
    "cka": ("CKA with the first", {"color": COLOURS[5], "linestyle": "-."}),
    "label_alignment": ("alignment with labels", {"color": COLOURS[3], "linestyle": ":"}),
    "relative_change": ("relative change", {"color": COLOURS[6], "linestyle": "--"}),
}
OUTPUT_COLUMNS = ("width", "seed", "step", "picture", "class", "network", "linearization")
#: The largest velocity over the smallest that a linear scale shows.
_TINY = 50
_LABELS = {
    "step": "output of the correct class",
    "kernel": "kernel",
    "velocity": "kernel velocity, per update",
}
#: Figures of several runs in one, by what they measure: their name, and labels by quantity.
_BY_WIDTH: dict[str, tuple[str, dict[str, str]]] = {
    "distances": ("distances", {"relative_distance": "relative distance"}),
    "kernel": (
        "kernels",
        {"relative_change": "kernel: relative change", "cosine": "kernel: cosine with the first"},
    ),
}


def draw(run_dirs: Sequence[pathlib.Path], output_dir: pathlib.Path) -> None:
    """Draw `trajectories`: a panel a run, and below it its kernel's movement and velocity.

    For several runs also `distances` and `kernels`, of each width against the number of updates.
    What is drawn is beside each figure as `.csv`.

    Args:
        run_dirs: of `--experiment=trajectory`; those whose outputs are not there any more appear
            only in what they were measured for.
        output_dir: where the figures go.
    """
    contents = sorted(map(_read, run_dirs), key=lambda content: (content["seed"], content["width"]))
    shown = [content for content in contents if "step" in content or content["kernel"]]
    with plt.rc_context(plots.STYLE):
        if shown:
            _draw_panels(shown, output_dir / "trajectories")
        for measured, (name, labels) in _BY_WIDTH.items():
            several = [content for content in contents if content[measured]]
            if len(several) > 1 and any(len(content[measured]) > 1 for content in several):
                _draw_by_width(several, measured, labels, output_dir / name)


def _draw_panels(contents: Sequence[Mapping[str, Any]], path: pathlib.Path) -> None:
    """The outputs and kernels of all runs, a row of panels a seed where there are several."""
    seeds, widths = ({content[name] for content in contents} for name in ("seed", "width"))
    columns = min(5, len(widths) if len(seeds) > 1 else len(contents))
    parts = {"step": _draw_outputs, "kernel": _draw_kernel, "velocity": _draw_velocity}
    parts = {k: drawn for k, drawn in parts.items() if any(len(c.get(k, ())) for c in contents)}
    each = len(parts)
    rows = each * -(-len(contents) // columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(1.2 + 3.2 * columns, 0.6 + 2.4 * rows),
        squeeze=False,
        sharey="row",
        layout="constrained",
    )
    for i, content in enumerate(contents):
        row, column = each * (i // columns), i % columns
        for k, (key, drawn) in enumerate(parts.items()):
            if len(content.get(key, ())):
                drawn(axes[row + k, column], content)
        axes[row, column].set_title(_title(content, len(seeds) > 1))
        axes[row + each - 1, column].set_xlabel("updates")
    for k, key in enumerate(parts):  # at last: a limit ends the scaling of all axes of a row
        if key != "kernel":  # which has its own
            _scale_alike([axis for axis in axes[k::each].flat if axis.has_data()], key)
    changes = [axis for axis in figure.axes if axis.get_ylabel() == _CHANGE]
    for axis in changes:  # equal heights are equal changes
        axis.set_ylim(0, max(other.get_ylim()[1] for other in changes))
    for axis in axes.flat:
        axis.set_visible(axis.has_data())
    for k, name in enumerate(_LABELS[key] for key in parts):
        for axis in axes[k::each, 0]:
            axis.set_ylabel(name)
    handles = _output_handles([content for content in contents if "step" in content])
    if "kernel" in parts:
        handles += [plt.Line2D([], [], label=name, **style) for name, style in _KERNEL.values()]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(6, 2 * columns))
    plots.save(figure, path)
    runs.write_table(path.with_name(f"{path.name}.csv"), OUTPUT_COLUMNS, _output_rows(contents))


def _scale_alike(axes: Sequence[plt.Axes], key: str) -> None:
    """Equal heights are equal values in all panels, on a logarithmic scale if some are tiny."""
    if key == "velocity":
        values = np.concatenate([line.get_ydata() for axis in axes for line in axis.lines])
        if values.max() > _TINY * values.min():
            for axis in axes:
                axis.set_yscale("log")
                axis.set_ylim(values.min() / 2, values.max() * 2)
            return
    limits = [axis.get_ylim() for axis in axes]
    low = 0 if key == "velocity" else min(low for low, _ in limits)
    for axis in axes:
        axis.set_ylim(low, max(high for _, high in limits))


def _read(run_dir: pathlib.Path) -> dict[str, Any]:
    """What a run directory holds of a trajectory.

    Raises:
        RunDirectoryError: if that is not what a run leaves.
    """
    settings = runs.read_json(run_dir / "config.json")
    distances = runs.read_json(run_dir / "trajectory.json").get("distances", [])
    path = run_dir / "trajectories.npz"
    content = runs.read_arrays(path) if path.exists() else {}
    try:
        if content:
            _check_outputs(content, path)
        return content | {
            "kernel": (kernel := _read_kernel(run_dir / "kernel.csv")),
            "velocity": [row for row in kernel if row["velocity"] > 0],
            "width": int(settings["width"]),
            "seed": int(settings["seed"]),
            "target": _target(settings),
            "distances": [
                {"step": int(d["step"])} | {name: _number(d.get(name)) for name in _DISTANCES}
                for d in distances
            ],
        }
    except (LookupError, TypeError, ValueError, AttributeError, OSError) as error:
        raise runs.RunDirectoryError(
            f"{run_dir}: holds no trajectory of this version ({type(error).__name__}: {error})"
        ) from error


def _target(settings: dict[str, Any]) -> float | None:
    """What the output of the right class is trained towards, if it is a number."""
    if settings.get("loss", "l2") != "l2":
        return None
    return float(settings.get("targets", (0.0, 1.0))[1])


_DISTANCES = ("relative_distance", "distance", "movement")


def _check_outputs(content: dict[str, Any], path: pathlib.Path) -> None:
    """Make the outputs float64, and see that they are of the recorded pictures.

    Raises:
        RunDirectoryError: if they are not.
    """
    steps, pictures = len(content["step"]), len(content["label"])
    for side in SIDES:
        content[side] = content[side].astype(np.float64)
        if content[side].shape[:2] != (steps, pictures) or content["index"].ndim != 1:
            raise runs.RunDirectoryError(f"{path}: has other shapes")
        content[side][:, :, content["label"]]


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _read_kernel(path: pathlib.Path) -> list[dict[str, float]]:
    """The rows of a kernel.csv; none where there is no file."""
    added = ("cka", "velocity")  # absent before version 0.2; the first row has no velocity
    names = ("relative_change", "cosine", "label_alignment")
    columns = dict.fromkeys(names, float) | dict.fromkeys(added, lambda cell: float(cell or "nan"))
    return runs.read_table(path, {"step": int} | columns, added)


def _draw_outputs(axis: plt.Axes, content: Mapping[str, Any]) -> None:
    if content["target"] is not None:
        axis.axhline(content["target"], **plots.TARGET)
    colours = plots.colours(len(content["label"]))
    for e, label in enumerate(content["label"]):
        for side, style in SIDES.items():
            values = content[side][:, e, label]
            axis.plot(content["step"], values, color=colours[e], linewidth=1, **style)
    axis.margins(x=0.01)


def _title(content: Mapping[str, Any], with_seed: bool) -> str:
    seed = f", seed {content['seed']}" if with_seed else ""
    return f"width factor {content['width']}{seed}{_distance_note(content['distances'])}"


def _distance_note(distances: list[dict[str, Any]]) -> str:
    """The last relative distance, for the title; empty where there is none."""
    if not distances or distances[-1]["relative_distance"] is None:
        return ""
    step, distance = distances[-1]["step"], distances[-1]["relative_distance"]
    return f"\nrelative distance {distance:.2f} after {step:,} updates"


def _draw_kernel(axis: plt.Axes, content: Mapping[str, Any]) -> None:
    """The kernel's direction and alignment on the left axis, its relative change on the right."""
    rows = content["kernel"]
    steps = [row["step"] for row in rows]
    axis.set_ylim(0, 1.05)
    change = axis.twinx()
    for key, (_, style) in _KERNEL.items():
        place = change if key == "relative_change" else axis
        place.plot(steps, [row[key] for row in rows], **style)
    change.set_ylabel(_CHANGE, color=COLOURS[6])
    change.spines["right"].set_visible(True)
    for each in (axis, change):
        each.margins(x=0.01)


def _draw_velocity(axis: plt.Axes, content: Mapping[str, Any]) -> None:
    """The kernel's velocity between each measurement and the one before."""
    rows = content["velocity"]
    steps, values = [row["step"] for row in rows], [row["velocity"] for row in rows]
    axis.plot(steps, values, color=COLOURS[4], marker="o", markersize=2.5, linewidth=1)
    axis.set_xlim(0, 1.01 * steps[-1])


def _output_handles(contents: Sequence[Mapping[str, Any]]) -> list[plt.Line2D]:
    """The two styles and the target, and a picture each where all runs show the same."""
    if not contents:
        return []
    grey: dict[str, Any] = {"color": "0.3", "linewidth": 1}
    handles = [
        plt.Line2D([], [], **grey, **NETWORK, label="network"),
        plt.Line2D([], [], **grey, **LINEARIZATION, label="linearization"),
    ]
    if any(content["target"] is not None for content in contents):
        handles.append(plt.Line2D([], [], **plots.TARGET, label="target"))
    first = contents[0]
    if all(np.array_equal(first["index"], content["index"]) for content in contents):
        colours = plots.colours(len(first["index"]))
        handles += [
            plt.Line2D([], [], color=colours[e], label=f"picture {i} (class {c})")
            for e, (i, c) in enumerate(zip(first["index"], first["label"], strict=True))
        ]
    return handles


def _output_rows(contents: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The curves of `trajectories` as rows of `OUTPUT_COLUMNS`."""
    return [
        {
            "width": content["width"],
            "seed": content["seed"],
            "step": step,
            "picture": picture,
            "class": label,
            "network": f"{content['standard'][t, e, label]:.7g}",
            "linearization": f"{content['linearized'][t, e, label]:.7g}",
        }
        for content in contents
        if "step" in content
        for e, (picture, label) in enumerate(zip(content["index"], content["label"], strict=True))
        for t, step in enumerate(content["step"])
    ]


def _draw_by_width(
    contents: Sequence[Mapping[str, Any]],
    name: str,
    labels: Mapping[str, str],
    path: pathlib.Path,
) -> None:
    """A measurement of all runs, a panel a quantity, a colour a width and a line a seed.

    Args:
        contents: of the runs.
        name: of the measurement among their contents.
        labels: of the axes, by quantity.
        path: of the figure, without ending.
    """
    figure, axes = plt.subplots(
        1, len(labels), figsize=(1.3 + 3.5 * len(labels), 3), squeeze=False, layout="constrained"
    )
    colours = plots.shades([content["width"] for content in contents])
    style: dict[str, Any] = {"marker": "o", "markersize": 2.5, "linewidth": 1}
    for axis, (key, label) in zip(axes.flat, labels.items(), strict=True):
        for content in contents:
            rows = content[name]
            values = [np.nan if row[key] is None else row[key] for row in rows]
            steps = [row["step"] for row in rows]
            axis.plot(steps, values, color=colours[content["width"]], **style)
        axis.set_ylim(bottom=0)
        axis.set_xlabel("updates")
        axis.set_ylabel(label)
    for width, colour in colours.items():
        axes[0, 0].plot([], [], color=colour, label=f"width factor {width}", **style)
    plots.legend(figure, axes[0, 0])
    plots.save(figure, path)
    rows = [
        {"width": content["width"], "seed": content["seed"]}
        | {key: None if np.isnan(value or 0) else value for key, value in row.items()}
        for content in contents
        for row in content[name]
    ]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    runs.write_table(path.with_name(f"{path.name}.csv"), columns, rows)
