"""From pictures in memory to batches: one `tf.data` pipeline for every dataset.

The order of the training pictures is a pure function of (seed, epoch), so that a run continues in
the middle of an epoch exactly where it was, and two models with one seed see the same minibatches.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from ntk_tf.data import augment, counts, decode
from ntk_tf.data.source import DataError, Source, Split

#: Targets of the outputs for the other classes, and for the picture's.
ONE_HOT = (0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Turns pictures into what a network sees; `preprocessing` makes one for a source.

    JPEG files are decoded into squares (see `decode`). Pictures are cropped to `size` centrally if
    the source wants that, and otherwise resized to it bilinearly; then padded with `padding` black
    pixels on each side, divided by `scale` and normalized to (x - mean) / std per channel; a single
    channel is repeated where the network wants more. Vectors are pictures without height and width.

    Attributes:
        mean: per channel of the pictures.
        std: per channel of the pictures.
        size: (height, width) of the resized picture; () for vectors.
        padding: border on each side, in pixels.
        channels: channels of the result.
        crop: whether to crop rather than resize.
        augmentation: `none`, `flip_crop` or `padded_crop` (see `augment`), for training pictures.
        scale: what white is.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, ...]
    padding: int
    channels: int
    crop: bool = False
    augmentation: str = "none"
    scale: float = 255.0

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (height, width, channels) of an input, or (d,) of a vector."""
        return *(side + 2 * self.padding for side in self.size), self.channels

    def __call__(self, images: tf.Tensor, key: tf.Tensor | None = None) -> tf.Tensor:
        """Map pictures `[b, h, w, c]`, vectors `[b, d]` or files `[b]` to float32 `[b, *shape]`.

        With a key, int64 `[2]`, the pictures are augmented as it determines.
        """
        if images.dtype == tf.string:
            images = decode.decode_batch(images, counts.square_side(self.size[0]))
        pixels = self._sized(images, key)
        if self.padding:
            border = [self.padding, self.padding]
            pixels = tf.pad(pixels, [[0, 0], border, border, [0, 0]])
        pixels = self._normalized(pixels)
        if pixels.shape[-1] != self.channels:
            pixels = tf.repeat(pixels, self.channels, axis=-1)
        return pixels

    def _normalized(self, pixels: tf.Tensor) -> tf.Tensor:
        """(x - mean) / std; of the user's own numbers in float64, whose mean may be far from 0."""
        if self.scale == 1:
            mean, std = (np.asarray(values, np.float64) for values in (self.mean, self.std))
            return tf.cast((tf.cast(pixels, tf.float64) - mean) / std, tf.float32)
        std = tf.constant(self.std)
        return pixels * (1 / (self.scale * std)) - tf.constant(self.mean) / std

    def _sized(self, images: tf.Tensor, key: tf.Tensor | None) -> tf.Tensor:
        """Bring pictures `[b, h, w, c]` to `size`, as float32 in their own range."""
        if key is not None and self.augmentation == "flip_crop":
            return augment.flip_crop(images, self.size, key)
        if self.crop:
            start = (images.shape[1] - self.size[0]) // 2
            end = start + self.size[0]
            images = images[:, start:end, start:end]
        pixels = tf.cast(images, tf.float32)
        if pixels.shape[1:-1] != self.size:
            pixels = tf.image.resize(pixels, self.size, antialias=True)
        if key is not None and self.augmentation == "padded_crop":
            pixels = augment.padded_crop(pixels, key)
        return pixels


def preprocessing(
    source: Source,
    image_size: int | None,
    padding: int,
    channels: int,
    augmentation: str = "none",
) -> Preprocessing:
    """The preprocessing of a source's pictures for a network's input.

    Args:
        source: the pictures, or vectors.
        image_size: side of the square that pictures are resized to; None leaves them as they are.
        padding: border on each side, in pixels.
        channels: that the network wants: the pictures' own, or any number for pictures of one.
        augmentation: see `Preprocessing`.

    Returns:
        The preprocessing.

    Raises:
        DataError: if the pictures have another number of channels, photographs get no size, or
            vectors are to be treated as pictures.
    """
    shape = source.train.images.shape[1:]
    if len(shape) == 1:
        _insist_on_vectors(image_size, padding, augmentation)
    elif image_size is None and source.crop:
        raise DataError("image_size=None: photographs of many sizes need one")
    found = len(source.mean)
    if channels != found and (found != 1 or len(shape) == 1):
        raise DataError(f"channels={channels}: the data has {found}")
    size = tuple(shape[:-1]) if image_size is None else (image_size, image_size)
    return Preprocessing(
        *(source.mean, source.std, size, padding, channels, source.crop, augmentation, source.scale)
    )


def _insist_on_vectors(image_size: int | None, padding: int, augmentation: str) -> None:
    """Refuse what only pictures have.

    Raises:
        DataError: naming the argument.
    """
    for argument, value, allowed in (
        ("image_size", image_size, None),
        ("padding", padding, 0),
        ("augmentation", augmentation, "none"),
    ):
        if value != allowed:
            raise DataError(f"{argument}={value}: must be {allowed} for vectors")


def augmentation_key(seed: int, step: tf.Tensor | int) -> tf.Tensor:
    """What determines the augmentation of an update's batch: int64 `[2]`, never an epoch's key."""
    return tf.stack([tf.constant(seed + 2**32, tf.int64), tf.cast(step, tf.int64)])


def epoch_order(examples: int, seed: int, epoch: tf.Tensor | int) -> tf.Tensor:
    """The order of the training pictures in an epoch: int64 `[examples]`, a permutation."""
    key = tf.stack([tf.cast(seed, tf.int64), tf.cast(epoch, tf.int64)])
    indices = tf.range(examples, dtype=tf.int64)
    return tf.random.experimental.stateless_shuffle(indices, seed=key)


def training_batches(
    split: Split,
    preprocess: Preprocessing,
    num_classes: int,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    targets: tuple[float, float] = ONE_HOT,
) -> tf.data.Dataset:
    """Batches of all epochs, one after the other, without end.

    Args:
        split: the n training pictures.
        preprocess: maps pictures to inputs.
        num_classes: L.
        batch_size: pictures a batch, B; the last of an epoch has n mod B where B does not divide n.
        seed: fixes the order, together with the epoch's number.
        start_step: number of batches to leave out, as after so many updates.
        targets: of the outputs for the other classes, and for the picture's.

    Returns:
        A dataset of `(x [B, h, w, c] or [B, d], y [B, L])`, float32.
    """
    examples = len(split)
    first_epoch, offset = divmod(start_step, counts.steps_per_epoch(examples, batch_size))
    static = examples % batch_size == 0

    @tf.autograph.experimental.do_not_convert
    def batches_of(epoch):
        order = epoch_order(examples, seed, epoch)
        return tf.data.Dataset.from_tensor_slices(order).batch(batch_size, drop_remainder=static)

    indices = tf.data.Dataset.counter(start=first_epoch).flat_map(batches_of).skip(offset)
    kept = counts.kept_bytes(examples, preprocess.shape, preprocess.augmentation)
    if kept and not split.encoded:
        inputs = Split(_inputs(split, preprocess), split.labels)
        return _fetch(
            indices.enumerate(start_step), inputs, lambda x, step: x, num_classes, targets
        )

    def see(pictures, step):
        return preprocess(pictures, augmentation_key(seed, step))

    return _fetch(indices.enumerate(start_step), split, see, num_classes, targets)


def _inputs(split: Split, preprocess: Preprocessing) -> np.ndarray:
    """All of the network's inputs, float32 `[n, h, w, c]` or `[n, d]`."""
    size = counts.evaluation_batch_size(preprocess.shape)
    inputs = np.empty((len(split), *preprocess.shape), np.float32)
    for start in range(0, len(split), size):
        chunk = slice(start, start + size)
        inputs[chunk] = preprocess(tf.convert_to_tensor(split.images[chunk]))
    return inputs


def evaluation_batches(
    split: Split,
    preprocess: Preprocessing,
    num_classes: int,
    batch_size: int,
    targets: tuple[float, float] = ONE_HOT,
) -> tf.data.Dataset:
    """Every picture once, in the fixed order: `(x, y)` as in `training_batches`."""
    indices = tf.data.Dataset.range(len(split)).batch(batch_size)
    return _fetch(indices.enumerate(), split, lambda x, step: preprocess(x), num_classes, targets)


def _fetch(
    indices: tf.data.Dataset,
    split: Split,
    see: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    num_classes: int,
    targets: tuple[float, float],
) -> tf.data.Dataset:
    """Look up and prefetch the numbered batches that `indices` names.

    `see` maps a batch of pictures and its number to what the network sees.
    """
    low, high = targets
    images = split.tensor
    with tf.device("CPU"):
        labels = tf.constant(split.labels)

    @tf.autograph.experimental.do_not_convert
    def fetch(step, batch):
        x = see(tf.gather(images, batch), step)
        return x, tf.one_hot(tf.gather(labels, batch), num_classes, high, low)

    options = tf.data.Options()
    options.autotune.enabled = False  # its thread takes seconds to end; all cores are used without
    batches = indices.map(fetch, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
    return batches.with_options(options)
