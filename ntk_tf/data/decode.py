"""From JPEG files to squares of pixels.

As for ImageNet everywhere: the short side is resized to 8/7 of what the network wants (256 for
224), bilinearly with antialiasing, and the central square of that side is kept, as uint8. What the
network sees is the central crop of this square, or a random one if training is augmented. So it
makes no difference to a run whether the squares are kept in memory or made anew every time.
"""

import dataclasses
from concurrent import futures

import numpy as np
import tensorflow as tf

from ntk_tf.data.counts import square_side
from ntk_tf.data.source import DataError, Source, Split
from ntk_tf.process import devices


def decode(file: tf.Tensor, side: int) -> tf.Tensor:
    """Decode one JPEG file into the central square of its resized picture.

    Args:
        file: string scalar.
        side: of the square, and of the resized picture's short side.

    Returns:
        uint8 `[side, side, 3]`.
    """
    shape = tf.io.extract_jpeg_shape(file)
    height, width = shape[0], shape[1]
    short = tf.minimum(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    # Only the square is decoded in full: cropping and resizing commute, but for the pixels beyond
    # the square's edge that its outermost row or column would take into account.
    pixels = tf.image.decode_and_crop_jpeg(
        file, tf.stack([top, left, short, short]), channels=3, dct_method="INTEGER_ACCURATE"
    )
    return square(pixels, side)


def square(pixels: tf.Tensor, side: int) -> tf.Tensor:
    """The central square of a picture uint8 `[h, w, c]`, resized to uint8 `[side, side, c]`."""
    height, width = tf.shape(pixels)[0], tf.shape(pixels)[1]
    short = tf.minimum(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    pixels = pixels[top : top + short, left : left + short]
    pixels = tf.image.resize(pixels, (side, side), antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(pixels), 0, 255), tf.uint8)


def decode_batch(files: tf.Tensor, side: int) -> tf.Tensor:
    """Decode `files [b]`, strings, into uint8 `[b, side, side, 3]`."""
    signature = tf.TensorSpec((side, side, 3), tf.uint8)
    return tf.map_fn(lambda file: decode(file, side), files, fn_output_signature=signature)


def cached(source: Source, image_size: int, keep: bool | None) -> Source:
    """Decode a source's pictures now, if they are to be kept decoded.

    Args:
        source: of JPEG files.
        image_size: side of the network's input.
        keep: whether to; None does so where the squares take less memory than the files.

    Returns:
        The source of uint8 squares, or the same source.

    Raises:
        DataError: if a picture cannot be decoded.
    """
    side = square_side(image_size)
    if keep is None:
        files = source.train.images
        keep = 3 * side**2 * len(source.train) < int(tf.reduce_sum(tf.strings.length(files)))
    if not keep:
        return source
    return dataclasses.replace(
        source, train=_decoded(source.train, side), test=_decoded(source.test, side)
    )


def _decoded(split: Split, side: int) -> Split:
    images = np.empty((len(split), side, side, 3), np.uint8)
    one = tf.function(lambda file: decode(file, side))

    def fill(i: int) -> None:
        images[i] = one(split.images[i])

    try:
        with futures.ThreadPoolExecutor(devices.cores()) as workers:
            list(workers.map(fill, range(len(split))))
    except tf.errors.InvalidArgumentError as error:
        raise DataError(
            f"a picture of the prepared data cannot be decoded ({error.message});"
            " remove its folder to prepare it anew"
        ) from error
    return Split(images, split.labels)
