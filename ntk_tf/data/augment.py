"""Random crops and flips, as pure functions of a key."""

import math

import tensorflow as tf

#: Szegedy et al. (2015), section 6, as in torchvision's `RandomResizedCrop`: a crop has 8 to 100 %
#: of the picture's area and sides in a ratio of 3:4 to 4:3.
AREA = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)
#: Candidates a picture; the first that fits into it is taken, and the whole picture if none does.
CANDIDATES = 10
#: Black pixels on each side before a crop of the picture's own size, as for CIFAR-10 everywhere
#: since He et al. (2016), section 4.2.
BORDER = 4


def boxes(count: int | tf.Tensor, key: tf.Tensor, aspect: float = 1.0) -> tf.Tensor:
    """Random crops, half of them flipped from left to right.

    Args:
        count: number of pictures b.
        key: int64 `[2]`; the same key gives the same boxes.
        aspect: width / height of the pictures.

    Returns:
        float32 `[b, 4]`: top, left, bottom, right as fractions of the sides; flipped boxes have
        left > right.
    """
    draws = tf.random.stateless_uniform([count, 2 * CANDIDATES + 3], key)
    area = AREA[0] + (AREA[1] - AREA[0]) * draws[:, :CANDIDATES]
    low, high = math.log(RATIO[0]), math.log(RATIO[1])
    ratio = tf.exp(low + (high - low) * draws[:, CANDIDATES : 2 * CANDIDATES]) / aspect
    width, height = tf.sqrt(area * ratio), tf.sqrt(area / ratio)
    fits = tf.cast((width <= 1) & (height <= 1), tf.int32)
    first = tf.argmax(fits, axis=1)
    width, height = (
        tf.where(tf.reduce_any(fits > 0, axis=1), tf.gather(side, first, batch_dims=1), 1.0)
        for side in (width, height)
    )
    top = (1 - height) * draws[:, -3]
    left = (1 - width) * draws[:, -2]
    flip = draws[:, -1] < 0.5
    right = left + width
    left, right = tf.where(flip, right, left), tf.where(flip, left, right)
    return tf.stack([top, left, top + height, right], axis=1)


def flip_crop(images: tf.Tensor, size: tuple[int, ...], key: tf.Tensor) -> tf.Tensor:
    """Crop pictures at random, resize bilinearly, and flip half of them.

    Args:
        images: `[b, h, w, c]`.
        size: (height, width) of the result.
        key: int64 `[2]`; the same key gives the same crops.

    Returns:
        float32 `[b, *size, c]`, in the range of the pictures.
    """
    count, height, width = tf.shape(images)[0], images.shape[1], images.shape[2]
    box = boxes(count, key, width / height)
    # `crop_and_resize` samples from a first to a last pixel's centre, both included; a pixel of the
    # result covers (bottom - top) / height of the picture. At the picture's edge that may be half a
    # pixel beyond the outermost centre: hence the border.
    half = (box[:, 2:] - box[:, :2]) / (2 * tf.constant(size, tf.float32))
    edges = tf.concat([box[:, :2] + half, box[:, 2:] - half], axis=1)
    sides = tf.constant([height, width] * 2, tf.float32)
    bordered = tf.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")
    centres = (edges * sides + 0.5) / (sides + 1)
    return tf.image.crop_and_resize(bordered, centres, tf.range(count), size)


def padded_crop(images: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    """Shift pictures by up to `BORDER` pixels each way, and flip half of them.

    Args:
        images: `[b, h, w, c]`.
        key: int64 `[2]`; the same key gives the same crops.

    Returns:
        The same shape and type: crops, uniformly drawn, of the pictures inside a border of zeros.
    """
    count, (height, width) = tf.shape(images)[0], images.shape[1:3]
    draws = tf.random.stateless_uniform([count, 3], key)
    corners = tf.cast(draws[:, :2] * (2 * BORDER + 1), tf.int32)
    rows = corners[:, :1] + tf.range(height)
    columns = corners[:, 1:] + tf.where(
        draws[:, 2:] < 0.5, tf.range(width - 1, -1, -1), tf.range(width)
    )
    border = [BORDER, BORDER]
    padded = tf.pad(images, [[0, 0], border, border, [0, 0]])
    shifted = tf.gather(padded, rows, axis=1, batch_dims=1)
    return tf.gather(shifted, columns, axis=2, batch_dims=1)
