"""How fast this machine is right now, from a short measurement with NumPy."""

import dataclasses
import time
from collections.abc import Callable

import numpy as np

from ntk_tf.process import devices

#: Side and number of the matrices that are multiplied: too small to be split over threads.
_SIDE, _MATRICES = 64, 32
#: Numbers that an elementwise operation goes through.
_NUMBERS = 200_000
#: Seconds that each of the two is repeated for, after one repetition.
_SECONDS = 0.1


@dataclasses.dataclass(frozen=True)
class Speed:
    """What one core does, beside whatever else runs, and how many there are.

    Attributes:
        products: floating-point operations a second in products of matrices.
        elements: numbers a second in elementwise operations.
        cores: that are at hand; may be a fraction where runs share them.
    """

    products: float
    elements: float
    cores: float


def measure(share: float = 1.0) -> Speed:
    """Measure both, in a fifth of a second.

    Args:
        share: of the process's cores, that a run will have.
    """
    a = np.ones((_MATRICES, _SIDE, _SIDE), np.float32)
    b, x, y = np.empty_like(a), np.ones(_NUMBERS, np.float32), np.empty(_NUMBERS, np.float32)
    products = 2 * _MATRICES * _SIDE**3 / _seconds(lambda: np.matmul(a, a, out=b))
    elements = _NUMBERS / _seconds(lambda: np.maximum(x, 0, out=y))
    return Speed(products, elements, share * devices.cores())


def _seconds(function: Callable[[], object]) -> float:
    """Mean time of a function, pauses for other processes included."""
    function()
    count, started = 0, time.perf_counter()
    while (took := time.perf_counter() - started) < _SECONDS:
        function()
        count += 1
    return took / count
