"""How far kernels that are estimated from random channels are from those of infinitely many."""

from typing import NamedTuple

import numpy as np


class Extrapolation(NamedTuple):
    """What doubling the channels changes.

    Attributes:
        kernel: K* = 2 K(2C) - K(C), float64 `[n, n]`, of trace 1: without what falls as 1 / C. It
            may have negative eigenvalues; it is for comparisons.
        change: |K* - K(2C)| / |K(2C)|.
        noise: what chance alone would make of it, from the spread over seeds; a change well above
            that is a bias of K(2C).
    """

    kernel: np.ndarray
    change: float
    noise: float


def extrapolate(few: np.ndarray, many: np.ndarray) -> Extrapolation:
    """Extrapolate to infinitely many channels; all kernels are divided by their trace.

    Args:
        few: the kernels `[seeds, n, n]` of C channels, of at least two seeds.
        many: those of 2 C channels, of other seeds or the same.

    Raises:
        ValueError: for kernels of other shapes.
    """
    if few.shape != many.shape or few.ndim != 3 or len(few) < 2:
        raise ValueError(
            f"few, many of shapes {few.shape}, {many.shape}: must be [seeds, n, n] of two seeds"
        )
    small, large = (k / np.trace(k, axis1=1, axis2=2)[:, None, None] for k in (few, many))
    mean = large.mean(axis=0)
    change = np.linalg.norm(mean - small.mean(axis=0)) / np.linalg.norm(mean)
    noise = np.hypot(relative_error(few), relative_error(many))
    return Extrapolation(2 * mean - small.mean(axis=0), float(change), float(noise))


def relative_error(kernels: np.ndarray) -> float:
    """Standard error of the mean over seeds, of kernels of trace 1, as part of its norm.

    Args:
        kernels: `[seeds, n, n]`, of at least two seeds.
    """
    seeds = len(kernels)
    mean = sum(k / (seeds * np.trace(k)) for k in kernels)  # one at a time: they may be large
    squares = sum(np.linalg.norm(k / np.trace(k) - mean) ** 2 for k in kernels)
    return float((squares / (seeds * (seeds - 1))) ** 0.5 / np.linalg.norm(mean))
