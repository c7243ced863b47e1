"""From pictures in memory to batches: one `tf.data` pipeline for every dataset.

The order of the training pictures is a pure function of (seed, epoch), so that a run continues in
the middle of an epoch exactly where it was, and two models with one seed see the same minibatches.
"""

import dataclasses

import tensorflow as tf

from ntk_tf.data.source import Source, Split


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Turns uint8 pictures into what a network sees.

    Resized bilinearly to `image_size`, padded with `padding` black pixels on each side, scaled to
    [0, 1], normalized to (x - mean) / std per channel; a single channel is repeated where the
    network wants more.

    Attributes:
        mean: per channel of the pictures.
        std: per channel of the pictures.
        image_size: side of the resized square.
        padding: border on each side, in pixels.
        channels: channels of the result.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int
    padding: int
    channels: int

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """Map uint8 `[b, h, w, c]` to float32 `[b, side, side, channels]`."""
        pixels = tf.cast(images, tf.float32)
        if pixels.shape[1:3] != (self.image_size, self.image_size):
            pixels = tf.image.resize(pixels, (self.image_size, self.image_size), antialias=True)
        if self.padding:
            border = [self.padding, self.padding]
            pixels = tf.pad(pixels, [[0, 0], border, border, [0, 0]])
        std = tf.constant(self.std)
        pixels = pixels * (1 / (255 * std)) - tf.constant(self.mean) / std
        if pixels.shape[-1] != self.channels:
            pixels = tf.repeat(pixels, self.channels // pixels.shape[-1], axis=-1)
        return pixels


def preprocessing(source: Source, image_size: int, padding: int, channels: int) -> Preprocessing:
    """The preprocessing of a source's pictures for a network's input."""
    return Preprocessing(source.mean, source.std, image_size, padding, channels)


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Number of batches in an epoch, the last of which may be smaller."""
    return -(-examples // batch_size)


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
    return _fetch(indices, split, preprocess, num_classes)


def evaluation_batches(
    split: Split, preprocess: Preprocessing, num_classes: int, batch_size: int
) -> tf.data.Dataset:
    """Every picture once, in the fixed order: `(x, y)` as in `training_batches`."""
    indices = tf.data.Dataset.range(len(split)).batch(batch_size)
    return _fetch(indices, split, preprocess, num_classes)


def _fetch(
    indices: tf.data.Dataset, split: Split, preprocess: Preprocessing, num_classes: int
) -> tf.data.Dataset:
    """Look up, preprocess and prefetch the batches that `indices` names."""
    with tf.device("CPU"):
        images, labels = tf.constant(split.images), tf.constant(split.labels)

    def fetch(batch):
        x = preprocess(tf.gather(images, batch))
        return x, tf.one_hot(tf.gather(labels, batch), num_classes)

    return indices.map(fetch, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
