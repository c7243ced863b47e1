"""`tfds:NAME`: any image classification dataset of TFDS.

Its test set is the split `test` or, where there is none, `validation`. Pictures of one size are
read as they are. Pictures of many sizes are read like ImageNet's photographs (see `decode`): as
squares of 8/7 of `image_size`, which are cropped to `image_size`. All of them are kept in memory.
"""

from typing import Any

import numpy as np

from ntk_tf.catalogue.datasets import SIDES, Card
from ntk_tf.data import normalization, tfds_files
from ntk_tf.data.source import DataError, Origin, Source, Split

_TEST = ("test", "validation")
_BATCH = 64


def card(name: str, data_dir: str | None = None) -> Card:
    """What TFDS knows of a dataset without its pictures.

    Args:
        name: `tfds:NAME`.
        data_dir: where TFDS keeps prepared datasets; None for its own default.

    Returns:
        The card; numbers of pictures are 0 where TFDS learns them by preparing the data.

    Raises:
        DataError: if it is no image classification dataset, or does not exist.
    """
    builder = tfds_files.Published(name).builder(Origin(data_dir))
    image, label = _features(name, builder)
    height, width, channels = image.shape
    one_size = None not in (height, width)
    splits = builder.info.splits
    train, test = _splits(name, builder) if splits else (None, None)
    return Card(
        name,
        title=builder.name,
        shape=(height, width, channels) if one_size else (*SIDES, channels),
        classes=label.num_classes,
        train=splits[train].num_examples if train else 0,
        test=splits[test].num_examples if test else 0,
        module=__name__,
        photographs=not one_size,
    )


def find(origin: Origin) -> str:
    """Say where the data would come from, without reading it; see `tfds_files.find`."""
    return tfds_files.find(tfds_files.Published(origin.name), origin)


def prepare(origin: Origin) -> Any:
    """Prepare the dataset, unless that has been done; see `tfds_files.prepare`.

    Args:
        origin: names the dataset and where its files are.

    Returns:
        The builder of what is prepared.

    Raises:
        DataError: if it is no image classification dataset, or cannot be found or prepared.
    """
    return tfds_files.prepare(
        tfds_files.Published(origin.name), origin, lambda builder: _features(origin.name, builder)
    )


def load(origin: Origin) -> Source:
    """Read the dataset, preparing it first where that has not been done.

    Args:
        origin: names the dataset and where its files are; pictures of many sizes need an
            `image_size`.

    Returns:
        The source; mean and standard deviation are those of the training set.

    Raises:
        DataError: if the data cannot be found, prepared or read, or has no labels.
    """
    builder = prepare(origin)
    image, label = _features(origin.name, builder)
    photographs = None in image.shape[:2]
    side = origin.square_side if photographs else None
    splits = [_read(origin.name, builder, split, side) for split in _splits(origin.name, builder)]
    for split in splits:
        _check_labels(origin.name, split.labels, label.num_classes)
    return normalization.standardized(*splits, crop=photographs)


def _keys(builder) -> tuple[str, str]:
    """Names of the features that hold pictures and labels."""
    keys = builder.info.supervised_keys
    return keys if keys and len(keys) == 2 else ("image", "label")


def _features(name: str, builder) -> tuple[Any, Any]:
    """The features of pictures and labels.

    Raises:
        DataError: if they are others.
    """
    import tensorflow_datasets as tfds

    features = builder.info.features
    keys = _keys(builder)
    if isinstance(features, tfds.features.FeaturesDict) and all(key in features for key in keys):
        image, label = (features[key] for key in keys)
        pictures = isinstance(image, tfds.features.Image) and image.np_dtype == np.uint8
        if pictures and image.shape[-1] and isinstance(label, tfds.features.ClassLabel):
            return image, label
    found = " ".join(str(features).split())
    raise DataError(
        f"dataset={name}: is no image classification dataset: it needs an Image of uint8 and a"
        f" ClassLabel, as supervised keys or named image and label; it has {found[:300]}"
    )


def _splits(name: str, builder) -> tuple[str, str]:
    """Names of the training and the test split.

    Raises:
        DataError: if there is none.
    """
    found = builder.info.splits
    test = next((split for split in _TEST if split in found), None)
    if "train" not in found or test is None:
        raise DataError(
            f"dataset={name}: needs splits train and test or validation; it has {', '.join(found)}"
        )
    for split in ("train", test):
        if not found[split].num_examples:
            raise DataError(f"dataset={name}: its split {split} is empty")
    return "train", test


def _read(name: str, builder, split: str, side: int | None) -> Split:
    """Read a split, picture by picture into arrays.

    Args:
        name: of the dataset.
        builder: of the prepared dataset.
        split: name of the split.
        side: of the squares that photographs are read as; None for pictures of one size.

    Returns:
        The split.
    """
    from ntk_tf.data import decode

    image, label = _keys(builder)
    shape = builder.info.features[image].shape
    if side is not None:
        shape = (side, side, shape[-1])

    def pictured(row):
        pixels = row[image]
        return pixels if side is None else decode.square(pixels, side), row[label]

    count = builder.info.splits[split].num_examples
    images, labels = np.empty((count, *shape), np.uint8), np.empty(count, np.int64)
    with tfds_files.reading(builder, name):
        rows = builder.as_dataset(split=split, shuffle_files=False)
        for i, (x, y) in enumerate(rows.map(pictured).batch(_BATCH).as_numpy_iterator()):
            chunk = slice(i * _BATCH, i * _BATCH + len(y))
            images[chunk], labels[chunk] = x, y
    return Split(images, labels)


def _check_labels(name: str, labels: np.ndarray, classes: int) -> None:
    """Refuse pictures without a label, which TFDS gives -1.

    Raises:
        DataError: naming the first such label.
    """
    wrong = labels[(labels < 0) | (labels >= classes)]
    if len(wrong):
        raise DataError(
            f"dataset={name}: {len(wrong)} pictures have label {wrong[0]}, which is none of its"
            f" {classes} classes, 0 to {classes - 1}"
        )
