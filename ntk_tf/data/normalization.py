"""What is subtracted from pixels, and what they are divided by."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from ntk_tf.data.source import DataError, Source, Split

#: `standard` takes the training set's own mean and standard deviation; the others take these.
CONSTANTS = {"half": (0.5, 0.5), "unit": (0.0, 1.0)}
NORMALIZATIONS = ("standard", *CONSTANTS)
#: Numbers that are in float64 at a time.
_CHUNK = 2**22


def normalized(source: Source, normalization: str) -> Source:
    """A source with the mean and standard deviation that a normalization takes.

    Args:
        source: with mean and standard deviation of its training set.
        normalization: `standard`; `half`, (x - 1/2) / (1/2); or `unit`, x in [0, 1].

    Returns:
        The source for `standard`, and otherwise one of other constants.

    Raises:
        DataError: for another normalization, or where floats are not in [0, 1] as `half` and
            `unit` expect.
    """
    if normalization not in NORMALIZATIONS:
        raise DataError(
            f"normalization={normalization}: must be one of {', '.join(NORMALIZATIONS)}"
        )
    if normalization == "standard":
        return source
    if source.scale == 1:
        _insist_on_unit_range(source, normalization)
    mean, std = CONSTANTS[normalization]
    channels = len(source.mean)
    return dataclasses.replace(source, mean=(mean,) * channels, std=(std,) * channels)


def _insist_on_unit_range(source: Source, normalization: str) -> None:
    for name, split in (("training", source.train), ("test", source.test)):
        low, high = float(split.images.min()), float(split.images.max())
        if low < 0 or high > 1:
            raise DataError(
                f"normalization={normalization}: takes floats from 0 to 1, and those of the {name}"
                f" pictures go from {low:g} to {high:g}; use standard, or scale them"
            )


def standardized(train: Split, test: Split, **attributes) -> Source:
    """A source of arrays with mean and standard deviation of all its training pictures.

    Args:
        train: all training pictures, uint8 or float32.
        test: the test pictures.
        **attributes: the other attributes of `Source`.

    Returns:
        The source; the standard deviation of a channel that is constant, up to what float32 can
        divide by, is 1.
    """
    scale = 255.0 if train.images.dtype == np.uint8 else 1.0
    mean, std = moments(train.images)
    constant = _reduced(np.minimum, train.images) == _reduced(np.maximum, train.images)
    std = np.where(constant | (std < np.finfo(np.float32).tiny), 1, std / scale)
    return Source(
        train, test, tuple((mean / scale).tolist()), tuple(std.tolist()), scale=scale, **attributes
    )


def moments(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over all pixels, in two passes.

    Args:
        images: `[n, ..., c]`.

    Returns:
        The means and the standard deviations, float64 `[c]`.
    """
    count = images[..., 0].size
    mean = np.asarray(sum(_reduced(np.add, chunk) for chunk in _chunks(images))) / count
    squares = sum(_reduced(np.add, np.square(chunk - mean)) for chunk in _chunks(images))
    return mean, np.sqrt(squares / count)


def _reduced(function: np.ufunc, images: np.ndarray) -> np.ndarray:
    """A function's reduction over all axes but the channels'; picture by picture is fastest."""
    return function.reduce(function.reduce(images).reshape(-1, images.shape[-1]))


def _chunks(images: np.ndarray) -> Iterator[np.ndarray]:
    """Consecutive pictures in float64, some at a time."""
    size = max(1, _CHUNK // images[0].size)
    for start in range(0, len(images), size):
        yield images[start : start + size].astype(np.float64)
