"""What kernels at infinite width will take: memory, disk and, from a small block, time."""

import math
import time
from collections.abc import Sequence

import numpy as np

from ntk_tf import ntk
from ntk_tf.data import DataError
from ntk_tf.experiments import costs
from ntk_tf.experiments.infinite import Infinite, draws, memory
from ntk_tf.experiments.infinite.tiles import (
    KINDS,
    Tile,
    at_once,
    divide,
    functions,
    tiles_memory,
)
from ntk_tf.ntk import infinite
from ntk_tf.process.memory import peak_memory
from ntk_tf.process.terminal import duration
from ntk_tf.settings import Options

#: Seconds that a trial should take.
_TRIAL = 2.0


def check_memory(config: Infinite, options: Options) -> None:
    """Refuse a budget that does not hold the result.

    Raises:
        BudgetError: if so.
    """
    _, needed = memory(config)
    if options.memory_gib is not None and needed > options.memory_gib * 2**30:
        train, test = costs.examples(config)
        raise ntk.BudgetError(
            f"memory_gib={options.memory_gib:g}: the kernels of {train} training and {test} test"
            f" pictures alone take {needed / 2**30:.3g} GiB"
        )


def more(config: Infinite, options: Options) -> dict[str, str]:
    """What a dry run says besides: memory and number of processes, disk, and time.

    Raises:
        DataError: if the memory is too small.
        SettingError: if the architecture has no kernels at infinite width.
    """
    train, test = costs.examples(config)
    if not (train and test):
        return {"kernels": "of how many pictures is known when the data has been prepared"}
    try:
        check_memory(config, options)
        found = functions(config, tiles_memory(options))
    except ntk.BudgetError as error:
        raise DataError(str(error)) from error
    seeds, parts = draws(config), divide(train, test, found["ntk"].estimated)
    seconds = seeds * sum(_seconds(function, parts, config) for function in found.values())
    entries, jobs = sum(part.entries for part in parts), min(at_once(options), len(parts))
    each = peak_memory() + 4 * (train + test) * float(np.prod(config.input_shape))
    disk = 8 * len(KINDS) * seeds * entries / 2**30
    return {
        "kernels": f"{train:,} x {train:,} and {test:,} x {train:,} pictures, {seeds} seeds",
        "processes": f"{jobs}, with about {each / 2**30:.1f} GiB each",
        "disk": f"about {disk:,.1f} GiB in {len(parts):,} tiles",
        "time": f"about {duration(seconds / jobs)}, and the regression's"
        + (" and finite networks'" if config.finite_widths else ""),
    }


def _seconds(function: infinite.KernelFunction, parts: Sequence[Tile], config: Infinite) -> float:
    """Seconds of all tiles for one seed, from some blocks of the first."""
    size, side = function.block, parts[0].rows.stop
    x = np.random.default_rng(0).standard_normal((max(side, size), *config.input_shape))
    function(x[:size], x[:size])  # traces
    count, took = 0, 0.0
    while took < _TRIAL and count * size < side:
        count += max(1, count)
        started = time.monotonic()
        function(x[: count * size], x[: count * size])
        took = time.monotonic() - started
    tried = math.ceil(min(count * size, len(x)) / size) ** 2
    return took / tried * sum(_blocks(part, size) for part in parts)


def _blocks(part: Tile, size: int) -> int:
    """Number of blocks of a tile."""
    rows, columns = (math.ceil((s.stop - s.start) / size) for s in (part.rows, part.columns))
    return rows * (rows + 1) // 2 if part.mirrored else rows * columns
