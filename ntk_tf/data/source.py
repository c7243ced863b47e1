"""What every dataset is once it is loaded: pictures, labels and how to normalize them."""

import dataclasses

import numpy as np


class DataError(Exception):
    """Data that is missing or cannot be read; the message is one line and says what to do."""


@dataclasses.dataclass(frozen=True)
class Split:
    """Pictures and labels in a fixed order.

    Attributes:
        images: uint8 `[n, height, width, channels]`.
        labels: int64 `[n]`, from 0.
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int | None) -> "Split":
        """The first `count` pictures, or all for None."""
        return Split(self.images[:count], self.labels[:count])


@dataclasses.dataclass(frozen=True)
class Source:
    """A dataset in memory.

    Attributes:
        train: training pictures.
        test: test pictures.
        mean: mean of each channel of the training set's pixels / 255.
        std: standard deviation of each channel, likewise.
    """

    train: Split
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
