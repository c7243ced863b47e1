"""Accuracy of the converged linearization against weight decay."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from ntk_tf import plots, runs
from ntk_tf.plots import plt

COLUMNS = (
    "weight_decay",
    "train_accuracy",
    "test_accuracy",
    "train_loss",
    "test_loss",
    "objective",
    "residual",
    "distance",
)


def draw(solutions: Sequence[Mapping[str, Any]], title: str, output_dir: pathlib.Path) -> None:
    """Draw `weight_decays`, and write what is drawn as `.csv`.

    Args:
        solutions: of the weight decays, each with `COLUMNS`.
        title: names the run.
        output_dir: where the files go.
    """
    ordered = sorted(map(dict, solutions), key=lambda found: found["weight_decay"])
    runs.write_table(output_dir / "weight_decays.csv", COLUMNS, ordered)
    decays = [found["weight_decay"] for found in ordered]
    with plt.rc_context(plots.STYLE):
        figure, axes = plt.subplots(figsize=(4, 2.8))
        for i, (name, marker) in enumerate((("train", "o"), ("test", "s"))):
            values = [100 * found[f"{name}_accuracy"] for found in ordered]
            axes.plot(
                decays, values, marker=marker, color=plots.COLOURS[i], label=name, markersize=4
            )
        smallest = min((decay for decay in decays if decay), default=1.0)
        axes.set_xscale("symlog", linthresh=smallest)
        axes.set_xlabel("weight decay")
        axes.set_ylabel("accuracy (%)")
        axes.set_title(title)
        axes.legend()
        plots.save(figure, output_dir / "weight_decays")
