"""Kernels in tiles of pairs of pictures: a file each, written whole, by one process or several.

A tile's numbers do not depend on who computes it, so that an interrupted run goes on with what is
missing, and several processes leave what one would.
"""

import dataclasses
import functools
import itertools
import math
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ntk_tf import runs
from ntk_tf.experiments.infinite import Infinite
from ntk_tf.experiments.inputs import Inputs
from ntk_tf.models import arguments as keywords
from ntk_tf.ntk import BudgetError, infinite
from ntk_tf.ntk.contract import even_slices
from ntk_tf.ntk.infinite.limits import LIMITS
from ntk_tf.process import devices, slurm
from ntk_tf.settings import Options, SettingError

#: The kernels: parametrization, and attribute of `Kernels`.
KINDS = {
    "ntk": ("ntk", "ntk"),
    "nngp": ("ntk", "nngp"),
    "ntk_paper_widening": ("standard", "ntk"),
}
#: Beside the kernels in a tile's file: what it took its process.
_SECONDS = "seconds"
#: Most pictures along a side of a tile; and of estimated kernels, whose random channels each tile
#: draws anew, fewer where the training pictures would not make so many sides, for more processes.
_SIDE, _FEWER, _SIDES = 512, 256, 4


@dataclasses.dataclass(frozen=True)
class Tile:
    """A part of the kernels.

    Attributes:
        split: of the rows, `train` or `test`; columns are training pictures.
        rows: pictures along one side.
        columns: along the other.
    """

    split: str
    rows: slice
    columns: slice

    @property
    def mirrored(self) -> bool:
        """Whether it is symmetric."""
        return self.split == "train" and self.rows == self.columns

    @property
    def entries(self) -> int:
        """Number of pairs of pictures."""
        return (self.rows.stop - self.rows.start) * (self.columns.stop - self.columns.start)

    def path(self, workdir: pathlib.Path) -> pathlib.Path:
        """Its file in a run directory."""
        return workdir / "tiles" / f"{self.split}-{self.rows.start}-{self.columns.start}.npz"


def divide(train: int, test: int, estimated: bool) -> list[Tile]:
    """The tiles of so many pictures: below and on the diagonal, and the test pictures' rows."""
    side = min(_SIDE, max(_FEWER, math.ceil(train / _SIDES))) if estimated else _SIDE
    columns, rows = even_slices(train, side), even_slices(test, side)
    inner = [Tile("train", a, b) for i, a in enumerate(columns) for b in columns[: i + 1]]
    return inner + [Tile("test", a, b) for a in rows for b in columns]


class Work:
    """The tiles of a run's kernels, and what computes them.

    Args:
        config: the run's settings.
        options: the run directory, memory and processes.
        inputs: the pictures.

    Attributes:
        functions: the kernels by parametrization.
        tiles: all of them.
        seeds: number of draws of random channels.
        seconds: that each tile took whichever process computed it, by file, once it is read.

    Raises:
        SettingError: if the architecture has no kernels at infinite width, or no use for channels.
        BudgetError: if the memory does not hold two pictures' kernels.
    """

    def __init__(self, config: Infinite, options: Options, inputs: Inputs):
        self.workdir, source = options.workdir, inputs.source
        self.functions = functions(config, tiles_memory(options))
        estimated = self.functions["ntk"].estimated
        self.estimated, self.seeds = estimated, config.kernel_seeds if estimated else 1
        self.tiles = divide(len(source.train), len(source.test), estimated)
        self.seconds: dict[str, float] = {}
        self._arrays = {name: inputs.arrays(getattr(source, name)) for name in ("train", "test")}

    def missing(self) -> list[int]:
        """The numbers of the tiles that are not there yet."""
        folder = self.workdir / "tiles"
        there = {path.name for path in folder.iterdir()} if folder.exists() else set()
        names = (tile.path(self.workdir).name for tile in self.tiles)
        return [number for number, name in enumerate(names) if name not in there]

    def compute(self, tile: Tile, after_block: Callable[[], None]) -> dict[str, np.ndarray]:
        """A tile's kernels `[seeds, rows, columns]` by kind, and the seconds it took."""
        began = time.monotonic()
        x, z = self._arrays[tile.split][tile.rows], self._arrays["train"][tile.columns]
        found: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
        for seed, (name, function) in itertools.product(range(self.seeds), self.functions.items()):
            kernels = function(x, None if tile.mirrored else z, seed, lambda *_: after_block())
            for kind, (parametrization, attribute) in KINDS.items():
                if parametrization == name:
                    found[kind].append(getattr(kernels, attribute))
        arrays = {kind: np.stack(parts) for kind, parts in found.items()}
        return arrays | {_SECONDS: np.array(time.monotonic() - began)}

    def write(self, tile: Tile, found: dict[str, np.ndarray]) -> None:
        """Write a tile's file.

        Raises:
            WriteError: if that does not work.
        """
        runs.write_arrays(tile.path(self.workdir), found)

    def assemble(self, split: str, kind: str) -> np.ndarray:
        """A kernel of all pictures, float64 `[seeds, n, train pictures]`.

        Raises:
            RunDirectoryError: if a file is damaged, which is removed.
        """
        shape = (self.seeds, len(self._arrays[split]), len(self._arrays["train"]))
        whole = np.empty(shape)
        for tile in self.tiles:
            if tile.split == split:
                block = self._read(tile, kind)
                whole[:, tile.rows, tile.columns] = block
                if split == "train":
                    whole[:, tile.columns, tile.rows] = block.transpose(0, 2, 1)
        return whole

    def _read(self, tile: Tile, kind: str) -> np.ndarray:
        path = tile.path(self.workdir)
        expected = (
            self.seeds,
            tile.rows.stop - tile.rows.start,
            tile.columns.stop - tile.columns.start,
        )
        try:
            arrays = runs.read_arrays(path)
            block = arrays.get(kind)
            if block is None or block.shape != expected or block.dtype != np.float64:
                raise runs.DamagedError(f"{path}: holds no tile of {expected}")
        except runs.DamagedError as error:
            path.unlink(missing_ok=True)
            raise runs.RunDirectoryError(
                f"{error}; it is removed, and the same command computes it again"
            ) from error
        self.seconds[path.name] = float(arrays.get(_SECONDS, 0))
        return block


def arguments(config: Infinite, parametrization: str) -> dict[str, Any]:
    """The architecture's keyword arguments, without those of other parametrizations."""
    foreign = {a for limit in LIMITS.values() for a in keywords.keyword_only(limit)}
    foreign -= set(keywords.keyword_only(LIMITS[parametrization]))
    return {name: value for name, value in config.arguments.items() if name not in foreign}


def functions(config: Infinite, memory_gib: float | None) -> dict[str, infinite.KernelFunction]:
    """The kernels by parametrization; see `Work`.

    Raises:
        BudgetError: see there.
        SettingError: see there.
    """
    found = {}
    for name in dict.fromkeys(name for name, _ in KINDS.values()):
        try:
            found[name] = infinite.KernelFunction(
                *(config.arch, config.input_shape, name),
                arguments(config, name),
                config.channels,
                precision=config.recursion,
                memory_gib=memory_gib,
            )
        except infinite.NoKernelError as error:
            raise SettingError(f"--arch={config.arch}: {error}") from error
        except BudgetError:
            raise
        except ValueError as error:
            raise SettingError(str(error).replace(repr(config.arch), config.arch)) from error
    return found


def at_once(options: Options) -> int:
    """Processes at once: those asked for, or one a core, or one where there is a GPU."""
    if options.executor == "slurm":
        return options.jobs or slurm.AT_ONCE
    if options.jobs is not None:
        return options.jobs
    return 1 if tf.config.list_physical_devices("GPU") else devices.cores()


def tiles_memory(options: Options) -> float | None:
    """The GiB of each process: what is given is shared on one machine, and a SLURM job's own."""
    given = options.memory_gib
    return given if given is None or options.executor == "slurm" else given / at_once(options)


def compute(
    work: Work, options: Options, numbers: Sequence[int], after: Callable[[], None]
) -> None:
    """Compute tiles of some numbers, and call `after` every now and then.

    Raises:
        WriteError: if one cannot be written.
    """
    for tile in (work.tiles[number] for number in numbers):
        found = work.compute(tile, after)
        runs.insist(functools.partial(work.write, tile, found), options.checkpoint_minutes)
        after()
