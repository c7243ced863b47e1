"""What every dataset is once it is loaded: pictures, labels and how to normalize them."""

import dataclasses
import functools
from typing import TYPE_CHECKING

import numpy as np

from ntk_tf.data.counts import square_side

if TYPE_CHECKING:
    import tensorflow as tf


class DataError(Exception):
    """Data that is missing or cannot be read; the message is one line and says what to do."""


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where the files of a dataset are, and which of its pictures are wanted.

    Attributes:
        data_dir: where TFDS keeps prepared datasets; None for its own default.
        manual_dir: folder of the original files, only read; None if there is none.
        synsets: classes of `imagenet_snakes`; None for its default.
        skip_corrupt_images: leave out pictures that cannot be decoded, in place of failing.
        name: of a dataset of the user's: `tfds:NAME`, `FILE.npz` or `FOLDER/`.
        image_size: what photographs of the user's, which have many sizes, are read for.
    """

    data_dir: str | None = None
    manual_dir: str | None = None
    synsets: tuple[str, ...] | None = None
    skip_corrupt_images: bool = False
    name: str = ""
    image_size: int | None = None

    @property
    def square_side(self) -> int:
        """Side of the squares that photographs of the user's are read as.

        Raises:
            DataError: without an `image_size`.
        """
        if self.image_size is None:
            raise DataError(
                f"image_size=None: the pictures of {self.name} have many sizes; give one"
            )
        return square_side(self.image_size)


@dataclasses.dataclass(frozen=True)
class Split:
    """Pictures and labels in a fixed order.

    Attributes:
        images: array, uint8 or float32, `[n, height, width, channels]`, or `[n, d]` of vectors; or
            a string tensor `[n]` of JPEG files.
        labels: int64 `[n]`, from 0.
    """

    images: "np.ndarray | tf.Tensor"
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @functools.cached_property
    def tensor(self) -> "tf.Tensor":
        """The pictures as a tensor in main memory, a copy, made once for all that reads them."""
        import tensorflow as tf

        with tf.device("CPU"):
            return tf.convert_to_tensor(self.images)

    @property
    def encoded(self) -> bool:
        """Whether the pictures are JPEG files, to be decoded when they are needed."""
        return len(self.images.shape) == 1

    def first(self, count: int | None) -> "Split":
        """The first `count` pictures, or all for None."""
        return self if count is None else Split(self.images[:count], self.labels[:count])

    def subset(self, count: int | None, seed: int | None) -> "Split":
        """The first `count` pictures of a random order, or of this one for no seed."""
        if seed is None:
            return self.first(count)
        # This generator's numbers are promised to be the same in every version of NumPy.
        order = np.random.RandomState(seed).permutation(len(self))
        return self.take(order[:count])

    def take(self, positions: "np.ndarray | slice") -> "Split":
        """The pictures at some positions."""
        positions = np.arange(len(self))[positions]
        if isinstance(self.images, np.ndarray):
            return Split(self.images[positions], self.labels[positions])
        import tensorflow as tf

        return Split(tf.gather(self.images, positions), self.labels[positions])


@dataclasses.dataclass(frozen=True)
class Source:
    """A dataset in memory.

    Attributes:
        train: training pictures.
        test: test pictures.
        mean: mean of each channel (of vectors, each entry) of the training set's pixels / `scale`.
        std: standard deviation of each channel, likewise.
        crop: whether pictures are larger than what a network sees, and cropped for it.
        classes: what the labels stand for, where a setting decides that; otherwise None.
        scale: what pixels are divided by: 255, or 1 for pictures of floats.
    """

    train: Split
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: bool = False
    classes: tuple[str, ...] | None = None
    scale: float = 255.0
