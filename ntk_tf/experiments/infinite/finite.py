"""Finite networks' kernels beside that of infinite width, which they approach."""

import itertools
import pathlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from rich.console import Console

from ntk_tf import models, ntk, plots, runs
from ntk_tf.experiments.infinite import Infinite
from ntk_tf.experiments.infinite.tiles import arguments
from ntk_tf.ntk.compare import cosine
from ntk_tf.plots import plt
from ntk_tf.process import signals, terminal
from ntk_tf.settings import Options

COLUMNS = ("width", "seed", "cosine")


def compare(
    config: Infinite, options: Options, x: np.ndarray, limit: np.ndarray, console: Console
) -> list[dict[str, Any]]:
    """The cosines, going on where an earlier process stopped.

    Args:
        config: with the width factors and the number of seeds.
        options: the run directory, and the memory for a Gram.
        x: pictures `[n, ...]`.
        limit: their kernel in the limit of the paper's widening `[n, n]`.
        console: where to draw progress.

    Returns:
        A row a width and seed: the cosine of the kernel's mean over the outputs with its limit.

    Raises:
        RunDirectoryError: if an earlier process's rows cannot be read.
    """
    path = options.workdir / "widths.csv"
    rows = runs.read_table(path, {"width": int, "seed": int, "cosine": float})
    done = {(row["width"], row["seed"]) for row in rows}
    pairs = list(itertools.product(config.finite_widths or (), range(config.finite_seeds)))
    with terminal.progress(console) as progress, signals.deferred():
        task = progress.add_task(f"kernels of finite {config.arch}", total=len(pairs))
        for number, (width, seed) in enumerate(pairs):
            progress.update(task, completed=number)
            if (width, seed) not in done:
                gram = _gram(config, options, x, width, seed)
                rows.append({"width": width, "seed": seed, "cosine": cosine(gram, limit)})
                runs.insist(
                    lambda: runs.write_table(path, COLUMNS, rows), options.checkpoint_minutes
                )
    return rows


def _gram(config: Infinite, options: Options, x: np.ndarray, width: int, seed: int) -> np.ndarray:
    """The mean over outputs of a network's kernel at its initialization."""
    keras.backend.clear_session()  # another width's graphs
    model = models.build(
        *(config.arch, width, config.num_classes, config.input_shape, seed),
        **arguments(config, "standard"),
    )
    found = ntk.gram(
        model,
        x,
        outputs="trace",
        memory_gib=options.memory_gib,
        after_step=lambda _: signals.obey(),
    )
    return np.asarray(found)


def draw(rows: Sequence[dict[str, Any]], path: pathlib.Path) -> None:
    """Draw the cosine against the width: a dot a seed, a line through the means.

    Args:
        rows: of `compare`.
        path: without ending.
    """
    widths = sorted({row["width"] for row in rows})
    means = [np.mean([row["cosine"] for row in rows if row["width"] == width]) for width in widths]
    with plt.rc_context(plots.STYLE):
        figure, axis = plt.subplots(figsize=(4, 2.8), layout="constrained")
        axis.axhline(1, **plots.TARGET)
        axis.plot(widths, means, color=plots.COLOURS[0], label="mean")
        places, values = ([row[key] for row in rows] for key in ("width", "cosine"))
        axis.plot(places, values, ".", color=plots.COLOURS[0], alpha=0.5, label="each seed")
        axis.set_xscale("log")
        plots.mark(axis, widths)
        axis.minorticks_off()
        axis.set_xlabel("width factor")
        axis.set_ylabel("cosine with the kernel of\nthe paper's widening")
        plots.legend(figure, axis)
        plots.save(figure, path)
