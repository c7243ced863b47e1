"""How many pictures a batch, and how large they are: without TensorFlow."""

import math

#: Training inputs that take no more bytes than this are made once and kept, as float32.
KEPT_BYTES = 2**30
#: Pictures a batch in passes that only evaluate, and bytes that their inputs may take.
EVALUATION_BATCH = 256
EVALUATION_BYTES = 2**25
#: Side of a photograph's square before the central crop by side after it: 256 / 224.
CONTEXT = 8 / 7


def square_side(image_size: int) -> int:
    """Side of the square that the crop to `image_size` is taken from."""
    return round(CONTEXT * image_size)


def evaluation_batch_size(input_shape: tuple[int, ...]) -> int:
    """So many pictures of this shape that a batch of them stays small."""
    return max(1, min(EVALUATION_BATCH, EVALUATION_BYTES // (4 * math.prod(input_shape))))


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Number of batches in an epoch, the last of which may be smaller."""
    return -(-examples // batch_size)


def kept_bytes(examples: int, shape: tuple[int, ...], augmentation: str) -> int:
    """Bytes of training inputs that are made once and kept; 0 where every batch is made anew.

    Args:
        examples: training pictures; not JPEG files, whose batches are always made anew.
        shape: (height, width, channels) of an input, or (d,) of a vector.
        augmentation: see `pipeline.Preprocessing`.
    """
    size = 4 * examples * math.prod(shape)
    return size if augmentation == "none" and size <= KEPT_BYTES else 0
