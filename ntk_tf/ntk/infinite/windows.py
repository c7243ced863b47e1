"""Which positions of a picture each position of the next layer reads.

Positions of a picture `[h, w]` are numbered row by row; those outside it are -1.
"""

import numpy as np

OUTSIDE = -1


def convolution(
    shape: tuple[int, int], size: int, strides: int, padding: int | str
) -> tuple[tuple[int, int], np.ndarray]:
    """The windows of a convolution, or of a pooling with padding 0.

    Args:
        shape: of the picture.
        size: side of the windows.
        strides: distance between them.
        padding: number of zeros on each side, or "same" for the least, the odd one behind, that
            leave a position for each stride.

    Returns:
        The shape of what comes out, and the positions `[outputs, size^2]` that each reads.

    Raises:
        ValueError: if no window fits.
    """
    axes = [_axis(length, size, strides, padding) for length in shape]
    return (len(axes[0]), len(axes[1])), _product(*axes, shape[1])


def _axis(length: int, size: int, strides: int, padding: int | str) -> np.ndarray:
    """Windows `[outputs, size]` along one axis.

    Raises:
        ValueError: if none fits.
    """
    if padding == "same":
        outputs = -(-length // strides)
        before = max((outputs - 1) * strides + size - length, 0) // 2
    else:
        before = int(padding)
        outputs = (length + 2 * before - size) // strides + 1
    if outputs < 1:
        raise ValueError(f"a window of side {size} does not fit a picture of side {length}")
    found = strides * np.arange(outputs)[:, None] + np.arange(size) - before
    return np.where((found >= 0) & (found < length), found, OUTSIDE)


def zero_padding(shape: tuple[int, int], padding: int) -> tuple[tuple[int, int], np.ndarray]:
    """Windows of a single position that put zeros around a picture; see `convolution`."""
    return convolution(shape, 1, 1, padding)


def adaptive(shape: tuple[int, int], size: int) -> tuple[tuple[int, int], np.ndarray]:
    """Windows that divide any picture into a grid, as in PyTorch; see `convolution`."""
    axes = []
    for length in shape:
        starts = [i * length // size for i in range(size)]
        ends = [-(-(i + 1) * length // size) for i in range(size)]
        widest = max(np.subtract(ends, starts))
        found = np.array(starts)[:, None] + np.arange(widest)
        axes.append(np.where(found < np.array(ends)[:, None], found, OUTSIDE))
    return (size, size), _product(*axes, shape[1])


def _product(rows: np.ndarray, columns: np.ndarray, width: int) -> np.ndarray:
    """Windows of a picture from those along its axes."""
    rows, columns = rows[:, None, :, None], columns[None, :, None, :]
    outside = (rows == OUTSIDE) | (columns == OUTSIDE)
    found = np.where(outside, OUTSIDE, rows * width + columns)
    return found.reshape(found.shape[0] * found.shape[1], -1)
