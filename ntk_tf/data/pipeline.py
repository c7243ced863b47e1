"""From pictures in memory to batches: one `tf.data` pipeline for every dataset.

The order of the training pictures is a pure function of (seed, epoch), so that a run continues in
the middle of an epoch exactly where it was, and two models with one seed see the same minibatches.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from ntk_tf.data import augment, decode
from ntk_tf.data.source import Source, Split

#: Training inputs that take no more bytes than this are made once and kept, as float32.
KEPT_BYTES = 2**30
#: Pictures a batch in passes that only evaluate, and bytes that their inputs may take.
EVALUATION_BATCH = 256
EVALUATION_BYTES = 2**25


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Turns pictures into what a network sees.

    JPEG files are decoded into squares (see `decode`). Pictures are cropped to `image_size`
    centrally if the source wants that, and otherwise resized to it bilinearly; then padded with
    `padding` black pixels on each side, scaled to [0, 1] and normalized to (x - mean) / std per
    channel; a single channel is repeated where the network wants more.

    Attributes:
        mean: per channel of the pictures.
        std: per channel of the pictures.
        image_size: side of the resized square.
        padding: border on each side, in pixels.
        channels: channels of the result.
        crop: whether to crop rather than resize.
        augmentation: one of `ntk_tf.choices.AUGMENTATIONS`, for training pictures.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int
    padding: int
    channels: int
    crop: bool = False
    augmentation: str = "none"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (height, width, channels) of an input."""
        side = self.image_size + 2 * self.padding
        return side, side, self.channels

    def __call__(self, images: tf.Tensor, key: tf.Tensor | None = None) -> tf.Tensor:
        """Map uint8 `[b, h, w, c]` or JPEG files `[b]` to float32 `[b, side, side, channels]`.

        With a key, int64 `[2]`, the pictures are augmented as it determines.
        """
        if images.dtype == tf.string:
            images = decode.decode_batch(images, decode.square_side(self.image_size))
        pixels = self._sized(images, key)
        if self.padding:
            border = [self.padding, self.padding]
            pixels = tf.pad(pixels, [[0, 0], border, border, [0, 0]])
        std = tf.constant(self.std)
        pixels = pixels * (1 / (255 * std)) - tf.constant(self.mean) / std
        if pixels.shape[-1] != self.channels:
            pixels = tf.repeat(pixels, self.channels // pixels.shape[-1], axis=-1)
        return pixels

    def _sized(self, images: tf.Tensor, key: tf.Tensor | None) -> tf.Tensor:
        """Bring pictures `[b, h, w, c]` to `image_size`, as float32 from 0 to 255."""
        if key is not None and self.augmentation == "flip_crop":
            return augment.flip_crop(images, self.image_size, key)
        if self.crop:
            start = (images.shape[1] - self.image_size) // 2
            end = start + self.image_size
            images = images[:, start:end, start:end]
        pixels = tf.cast(images, tf.float32)
        if pixels.shape[1:3] != (self.image_size, self.image_size):
            pixels = tf.image.resize(pixels, (self.image_size, self.image_size), antialias=True)
        return pixels


def preprocessing(
    source: Source, image_size: int, padding: int, channels: int, augmentation: str = "none"
) -> Preprocessing:
    """The preprocessing of a source's pictures for a network's input."""
    return Preprocessing(
        source.mean, source.std, image_size, padding, channels, source.crop, augmentation
    )


def evaluation_batch_size(input_shape: tuple[int, int, int]) -> int:
    """So many pictures of this shape that a batch of them stays small."""
    return max(1, min(EVALUATION_BATCH, EVALUATION_BYTES // (4 * math.prod(input_shape))))


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Number of batches in an epoch, the last of which may be smaller."""
    return -(-examples // batch_size)


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
) -> tf.data.Dataset:
    """Batches of all epochs, one after the other, without end.

    Args:
        split: the n training pictures.
        preprocess: maps uint8 pictures to inputs.
        num_classes: L.
        batch_size: pictures a batch, B; the last of an epoch has n mod B where B does not divide n.
        seed: fixes the order, together with the epoch's number.
        start_step: number of batches to leave out, as after so many updates.

    Returns:
        A dataset of `(x [B, h, w, c], y [B, L])`, float32, y one-hot.
    """
    examples = len(split)
    first_epoch, offset = divmod(start_step, steps_per_epoch(examples, batch_size))
    static = examples % batch_size == 0

    def batches_of(epoch):
        order = epoch_order(examples, seed, epoch)
        return tf.data.Dataset.from_tensor_slices(order).batch(batch_size, drop_remainder=static)

    indices = tf.data.Dataset.counter(start=first_epoch).flat_map(batches_of).skip(offset)
    kept = kept_bytes(examples, preprocess.shape, preprocess.augmentation)
    if kept and not split.encoded:
        inputs = Split(_inputs(split, preprocess), split.labels)
        return _fetch(indices.enumerate(start_step), inputs, lambda x, step: x, num_classes)

    def see(pictures, step):
        return preprocess(pictures, augmentation_key(seed, step))

    return _fetch(indices.enumerate(start_step), split, see, num_classes)


def kept_bytes(examples: int, shape: tuple[int, int, int], augmentation: str) -> int:
    """Bytes of training inputs that are made once and kept; 0 where every batch is made anew.

    Args:
        examples: training pictures; not JPEG files, whose batches are always made anew.
        shape: (height, width, channels) of an input.
        augmentation: one of `ntk_tf.choices.AUGMENTATIONS`.
    """
    size = 4 * examples * math.prod(shape)
    return size if augmentation == "none" and size <= KEPT_BYTES else 0


def _inputs(split: Split, preprocess: Preprocessing) -> np.ndarray:
    """All of the network's inputs, float32 `[n, h, w, c]`."""
    size = evaluation_batch_size(preprocess.shape)
    inputs = np.empty((len(split), *preprocess.shape), np.float32)
    for start in range(0, len(split), size):
        chunk = slice(start, start + size)
        inputs[chunk] = preprocess(tf.convert_to_tensor(split.images[chunk]))
    return inputs


def evaluation_batches(
    split: Split, preprocess: Preprocessing, num_classes: int, batch_size: int
) -> tf.data.Dataset:
    """Every picture once, in the fixed order: `(x, y)` as in `training_batches`."""
    indices = tf.data.Dataset.range(len(split)).batch(batch_size)
    return _fetch(indices.enumerate(), split, lambda x, step: preprocess(x), num_classes)


def _fetch(
    indices: tf.data.Dataset,
    split: Split,
    see: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    num_classes: int,
) -> tf.data.Dataset:
    """Look up and prefetch the numbered batches that `indices` names.

    `see` maps a batch of pictures and its number to what the network sees.
    """
    with tf.device("CPU"):
        images = tf.convert_to_tensor(split.images)
        labels = tf.constant(split.labels)

    def fetch(step, batch):
        x = see(tf.gather(images, batch), step)
        return x, tf.one_hot(tf.gather(labels, batch), num_classes)

    options = tf.data.Options()
    options.autotune.enabled = False  # its thread takes seconds to end; all cores are used without
    batches = indices.map(fetch, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
    return batches.with_options(options)
