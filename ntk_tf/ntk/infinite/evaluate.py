"""Kernels of a built-in architecture at infinite width, in blocks of pairs of pictures."""

import dataclasses
import functools
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ntk_tf import models
from ntk_tf.catalogue import architectures
from ntk_tf.ntk.contract import even_slices
from ntk_tf.ntk.infinite import channels as random_channels
from ntk_tf.ntk.infinite import nodes
from ntk_tf.ntk.infinite.limits import LIMITS, NoKernelError
from ntk_tf.ntk.infinite.nodes import WHOLE, Pairing
from ntk_tf.ntk.infinite.pairings import Each, Every, Side
from ntk_tf.ntk.plan import BudgetError

#: Channels of the first and of all further layers, from which max poolings are estimated.
CHANNELS = (256, 1024)
#: Numbers of a layer's kernels that are computed at one time, if memory allows: with max pooling
#: enough for matrix products at full speed, otherwise few enough to stay in the last cache of a
#: CPU, unless pictures are then too few.
_ENTRIES, _CACHED_ENTRIES = 2**24, 2**20
#: Bytes of a CPU's vectors, and how many of them a block's pictures should fill: XLA's inner loops
#: are over pictures, and what leads to a pair of positions is shared by them.
_VECTOR, _FEWEST_VECTORS = 32, 2
#: Arrays of that size that are held at one time, beside the two layers' own.
_TEMPORARIES = 6
#: Part of the memory for random channels, and layers of them held at one time to compute them.
_CHANNELS_SHARE, _CHANNELS_HELD = 0.25, 4
#: Most pictures of a block, with random channels those that make products fast, also the pictures
#: that are kept ready; and blocks of them, if memory allows.
_LARGEST, _POOLED_LARGEST, _SIDES = 1024, 128, 32
#: Most pairs of positions that a layer may read for a pair of pictures, repetitions counted: a
#: graph holds their numbers.
_MOST_TERMS = 2**27
#: Stands for K among the parts of the NTK, which have layers' names.
_NNGP = "/nngp"


@dataclasses.dataclass(frozen=True)
class Kernels:
    """Kernels of one output; those between different outputs are 0.

    Attributes:
        nngp: covariance of the outputs at initialization, float64 `[n, m]`.
        ntk: the neural tangent kernel, float64 `[n, m]`.
        parts: its parts by the layer whose weights and biases they are of; empty unless asked for.
    """

    nngp: np.ndarray
    ntk: np.ndarray
    parts: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


class KernelFunction:
    """Computes the kernels of an infinitely wide network, traced once.

    They are exact up to rounding, but behind max poolings, whose kernel has no closed form and is
    estimated from random channels, with an error of a few percent that falls as 1/sqrt(channels).
    Outputs are without a factor: Arora et al.'s networks have kappa = .05 behind theirs, so that
    their finite kernels are kappa^2 times these.

    Args:
        arch: a key of `catalogue.architectures.ARCHITECTURES`.
        input_shape: (height, width, channels) of a picture, or (d,) of a vector.
        parametrization: `ntk`, or `standard` for the limit of the kernel divided by the width
            factor; see `ntk.infinite.limits`.
        arch_args: keyword arguments of the architecture and of the parametrization.
        channels: of the random layers before a max pooling, the last for all further ones; None
            for `CHANNELS`.
        per_layer: whether the NTK's parts are kept.
        precision: `float64` or `float32`, of the recursion.
        memory_gib: for the computation besides the result; None for what is fastest.

    Raises:
        ValueError: for an unknown architecture, parametrization or precision, channels without max
            pooling, or none.
        ArchitectureError: a ValueError, for an argument that the architecture does not take, or
            inputs that it does not.
        NoKernelError: a ValueError, for a layer without a kernel at infinite width.
        BudgetError: a ValueError, if the memory does not hold the kernels of two pictures, or they
            are too large for any.
    """

    def __init__(
        self,
        arch: str,
        input_shape: Sequence[int],
        parametrization: str = "ntk",
        arch_args: Mapping[str, Any] | None = None,
        channels: Sequence[int] | None = None,
        per_layer: bool = False,
        precision: str = "float64",
        memory_gib: float | None = None,
    ):
        if precision not in ("float64", "float32"):
            raise ValueError(f"precision={precision!r}: must be 'float64' or 'float32'")
        self.output = network(arch, input_shape, parametrization, arch_args or {})
        self.input_shape, self.precision, self.per_layer = tuple(input_shape), precision, per_layer
        self._order = _in_order(self.output)
        self.estimated = any(isinstance(node, nodes.MaxPool) for node in self._order)
        self.channels = _check_channels(channels, arch, self.estimated)
        self._needed = _needed(self._order, each=False)
        self.block, self.sides = self._fit(memory_gib)
        self.block = self._whole(self.block, math.floor)
        graph = functools.partial(tf.function, autograph=False)
        self._side, self._pair = graph(self._of_pictures), graph(self._of_pairs)

    def __call__(
        self,
        x: np.ndarray,
        x2: np.ndarray | None = None,
        seed: int = 0,
        after_block: Callable[[int, int], None] = lambda done, total: None,
    ) -> Kernels:
        """The kernels of pictures `x [n, ...]` with `x2 [m, ...]`, or with themselves.

        Args:
            x: pictures.
            x2: others; None for the same, half of which are computed.
            seed: of the random channels.
            after_block: called with the number of blocks done and of all.

        Raises:
            ValueError: for no pictures, or of another shape.
        """
        x = self._checked("x", x)
        other = x if x2 is None else self._checked("x2", x2)
        rows, columns = even_slices(len(x), self.block), even_slices(len(other), self.block)

        drawn = tf.constant(seed, tf.int64)  # not a number, for each of which a graph would be made

        @functools.lru_cache(maxsize=self.sides if x2 is None else 1)
        def left(i: int) -> Side:
            return self._side(self._padded(x, rows, i), drawn)

        @functools.lru_cache(maxsize=self.sides - 1)
        def right(j: int) -> Side:
            return self._side(self._padded(other, columns, j), drawn)

        pairs = [
            (i, j)
            for i in range(len(rows))
            for j in range(len(columns) if x2 is not None else i + 1)
        ]
        result: dict[str, np.ndarray] = {}
        for done, (i, j) in enumerate(pairs, 1):
            found = self._pair(left(i), left(j) if x2 is None else right(j))
            for name, block in found.items():
                whole = result.setdefault(name, np.zeros((len(x), len(other))))
                _put(whole, rows[i], columns[j], block.numpy(), x2 is None)
            after_block(done, len(pairs))
        return _collected(result)

    def _checked(self, name: str, x: np.ndarray) -> np.ndarray:
        x = np.asarray(x)
        if x.shape[1:] != self.input_shape or not len(x):
            raise ValueError(
                f"{name} of shape {x.shape}: must be at least one picture of {self.input_shape}"
            )
        return x

    def _padded(self, x: np.ndarray, blocks: Sequence[slice], i: int) -> tf.Tensor:
        """A block's pictures `[positions, n, channels]`, as many as the largest one has."""
        size = self._whole(max(block.stop - block.start for block in blocks), math.ceil)
        rows = np.minimum(np.arange(size), blocks[i].stop - blocks[i].start - 1)
        flat = x[blocks[i].start + rows].reshape(size, -1, self.input_shape[-1])
        return tf.constant(flat.transpose(1, 0, 2), self.precision)

    def _whole(self, pictures: int, rounding: Callable[[float], int]) -> int:
        """A number of pictures as one of whole vectors, where blocks have room for one."""
        vector = _VECTOR // np.dtype(self.precision).itemsize
        return pictures if self.block < vector else vector * rounding(pictures / vector)

    def _of_pictures(self, inputs: tf.Tensor, seed: tf.Tensor) -> Side:
        """What is needed of each picture of a block."""
        maxima = random_channels.maxima(self._order, inputs, self.channels, seed)
        pairing = Each(Side(inputs, {}, maxima))
        found = _evaluate(self._order, _needed(self._order, each=True), pairing, False)
        variances = {}
        for node in self._order:
            if isinstance(node, nodes.Activation):
                kernel = found[node.inputs[0]]
                diagonal = np.arange(node.positions) * (node.positions + 1)
                variances[node.name] = tf.gather(
                    kernel.nngp, np.searchsorted(kernel.pairs, diagonal)
                )
        return Side(inputs, variances, maxima)

    def _of_pairs(self, left: Side, right: Side) -> dict[str, tf.Tensor]:
        """The kernels of two blocks of pictures, float64: K as `_NNGP`, and the NTK's parts."""
        kernels = _evaluate(self._order, self._needed, Every(left, right), self.per_layer)
        output = kernels[self.output]
        parts = {_NNGP: output.nngp, **output.ntk}
        return {name: tf.cast(part[0], tf.float64) for name, part in parts.items()}

    def _fit(self, memory_gib: float | None) -> tuple[int, int]:
        """Pictures of a block, and blocks whose pictures are kept ready, at least two.

        Raises:
            BudgetError: see the class.
            ValueError: for no memory.
        """
        layers = sum(isinstance(node, nodes.Weights) for node in self._order)
        kernels = 2 + (layers if self.per_layer else 0)
        pairs = max(len(found) for found in self._needed.values())
        if memory_gib is not None and not 0 < memory_gib < math.inf:
            raise ValueError(f"memory_gib={memory_gib}: must be above 0, and finite")
        budget = math.inf if memory_gib is None else memory_gib * 2.0**30
        number = np.dtype(self.precision).itemsize
        entries = float(_ENTRIES)
        if not self.estimated:
            fewest = _FEWEST_VECTORS * _VECTOR // number
            entries = max(float(_CACHED_ENTRIES), min(entries, pairs * fewest**2))
        for_channels = budget * _CHANNELS_SHARE if self.estimated else 0.0
        each = number * (_TEMPORARIES + 2 * kernels)  # bytes at a pair of positions
        held = (budget - for_channels) / each
        if held < pairs:
            share = 1 - _CHANNELS_SHARE if self.estimated else 1
            raise BudgetError(
                f"memory_gib={memory_gib:g}: the kernels of two pictures at {pairs:,} pairs of"
                f" positions take {pairs * each / share / 2**30:.3g} GiB"
            )
        most = _POOLED_LARGEST if self.estimated else _LARGEST
        block = int(min(most, max(1.0, math.sqrt(min(entries, held) / pairs))))
        sides = max(_SIDES, _LARGEST // block)
        if not self.estimated or memory_gib is None:
            return block, sides
        kept, largest, paired = random_channels.memory(self._order, self.channels)
        held = max(_CHANNELS_HELD * largest, 2 * paired)
        block = min(block, int(for_channels / (2 * kept + held)))
        if not block:
            raise BudgetError(
                f"memory_gib={memory_gib:g}: the random channels of two pictures take"
                f" {(2 * kept + held) / _CHANNELS_SHARE / 2**30:.3g} GiB"
            )
        return block, min(sides, int((for_channels / block - held) / kept))


def kernel(
    arch: str,
    x: np.ndarray,
    x2: np.ndarray | None = None,
    kind: str = "ntk",
    arch_args: Mapping[str, Any] | None = None,
    channels: Sequence[int] | None = None,
    seed: int = 0,
    parametrization: str = "ntk",
    precision: str = "float64",
    memory_gib: float | None = None,
) -> np.ndarray:
    """A kernel of an infinitely wide network; see `KernelFunction` for its arguments and errors.

    Args:
        arch: see there.
        x: pictures `[n, h, w, c]` or vectors `[n, d]`.
        x2: others `[m, ...]`; None for the same.
        kind: `ntk`, or `nngp` for the covariance of the outputs at initialization.
        arch_args: see there.
        channels: see there.
        seed: of the random channels.
        parametrization: see there.
        precision: see there.
        memory_gib: see there.

    Returns:
        float64 `[n, m]`, for one output; between different outputs it is 0.

    Raises:
        ValueError: for another kind, too.
    """
    if kind not in ("ntk", "nngp"):
        raise ValueError(f"kind={kind!r}: must be 'ntk' or 'nngp'")
    function = KernelFunction(
        *(arch, np.shape(x)[1:], parametrization, arch_args, channels),
        precision=precision,
        memory_gib=memory_gib,
    )
    return getattr(function(x, x2, seed), kind)


def network(
    arch: str, input_shape: Sequence[int], parametrization: str, arguments: Mapping[str, Any]
) -> nodes.Node:
    """The last layer of an infinitely wide network; see `KernelFunction`.

    Raises:
        ArchitectureError: see there.
        NoKernelError: see there.
        ValueError: see there.
    """
    if parametrization not in LIMITS:
        allowed = ", ".join(LIMITS)
        raise ValueError(f"parametrization={parametrization!r}: must be one of {allowed}")
    if arch not in architectures.ARCHITECTURES:
        raise ValueError(
            f"arch={arch!r}: must be one of {', '.join(architectures.ARCHITECTURES)}; the limit of"
            " other networks is not known"
        )
    for_set, function = models.resolve(arch, LIMITS[parametrization], arguments)
    pictures = len(input_shape) == 3
    if not pictures and not (len(input_shape) == 1 and architectures.find(arch).takes_vectors):
        raise models.ArchitectureError(
            f"arch={arch!r}: takes pictures (height, width, channels), not {tuple(input_shape)}"
        )
    shape = tuple(input_shape[:2]) if pictures else (1, 1)
    inputs = nodes.Input("inputs", (), shape, input_shape[-1], grows=False)
    try:
        output = function(LIMITS[parametrization](**for_set), inputs, 1)
    except NoKernelError:
        raise
    except (TypeError, ValueError) as error:
        raise models.ArchitectureError(
            f"arch={arch!r}: has no kernel for input_shape={tuple(input_shape)} ({error})"
        ) from error
    if not any(isinstance(node, nodes.Weights) and any(node.shares) for node in _in_order(output)):
        raise NoKernelError(
            f"arch={arch!r}: has no hidden layer, so its kernel divided by the width factor is 0 at"
            " infinite width"
        )
    return output


def _check_channels(channels: Sequence[int] | None, arch: str, estimated: bool) -> tuple[int, ...]:
    if channels is None:
        return CHANNELS
    if not estimated:
        raise ValueError(f"channels={channels}: {arch} has no max pooling, its kernel is exact")
    whole = all(isinstance(count, numbers.Integral) for count in channels)
    if not channels or not whole or min(channels) < 1:
        raise ValueError(f"channels={channels}: must be at least one whole number, each at least 1")
    return tuple(map(int, channels))


def _in_order(output: nodes.Node) -> list[nodes.Node]:
    """A node and all before it, each after its inputs."""
    found: dict[nodes.Node, None] = {}

    def visit(node: nodes.Node) -> None:
        if node not in found:
            for one in node.inputs:
                visit(one)
            found[node] = None

    visit(output)
    return list(found)


def _needed(order: Sequence[nodes.Node], each: bool) -> dict[nodes.Node, np.ndarray]:
    """The pairs of positions at which each layer's kernels are needed, ascending.

    Args:
        order: the layers, the output last.
        each: for the variances before all activations, not for the output.

    Raises:
        BudgetError: if a layer reads too many.
    """
    needed: dict[nodes.Node, list[np.ndarray]] = {node: [] for node in order}
    found = {}
    if not each:
        needed[order[-1]].append(np.zeros(1, int))
    for node in reversed(order):
        pairs = found[node] = _union(needed[node], node.positions**2)
        if (terms := len(pairs) * node.terms) > _MOST_TERMS:
            height, width = order[0].shape
            raise BudgetError(
                f"pictures of {height}x{width}: {node.name} reads {terms:,} pairs of positions for"
                f" two of them, at most {_MOST_TERMS:,} are possible; smaller pictures need fewer"
            )
        for before in node.inputs:
            needed[before].append(node.reads(pairs))
        if each and isinstance(node, nodes.Activation):
            needed[node.inputs[0]].append(np.arange(node.positions) * (node.positions + 1))
    return found


def _union(parts: Sequence[np.ndarray], numbers: int) -> np.ndarray:
    """Those of so many numbers that are in some arrays, ascending."""
    if sum(part.size for part in parts) < numbers / 8:
        return np.unique(np.concatenate([np.ravel(part) for part in parts] or [np.zeros(0, int)]))
    there = np.zeros(numbers, bool)
    for part in parts:
        there[part] = True
    return np.flatnonzero(there)


def _evaluate(
    order: Sequence[nodes.Node],
    needed: Mapping[nodes.Node, np.ndarray],
    pairing: Pairing,
    per_layer: bool,
) -> dict[nodes.Node, nodes.Kernel]:
    """The kernels of all layers that are needed."""
    found: dict[nodes.Node, nodes.Kernel] = {}
    for node in order:
        if len(needed[node]):
            before = [found.get(one) for one in node.inputs]  # none where nothing is read
            found[node] = node.kernel(needed[node], before, pairing, per_layer)
    return found


def _put(whole: np.ndarray, rows: slice, columns: slice, block: np.ndarray, mirror: bool) -> None:
    """Enter a block without its padding, and its transpose where there is one set of pictures."""
    block = block[: rows.stop - rows.start, : columns.stop - columns.start]
    if mirror and rows == columns:
        block = np.tril(block) + np.tril(block, -1).T
    whole[rows, columns] = block
    if mirror:
        whole[columns, rows] = block.T


def _collected(found: dict[str, np.ndarray]) -> Kernels:
    nngp = found.pop(_NNGP)
    if list(found) == [WHOLE]:
        return Kernels(nngp, found[WHOLE])
    return Kernels(nngp, sum(found.values(), np.zeros_like(nngp)), found)
