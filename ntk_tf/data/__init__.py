"""The datasets by name: `find` says where one would come from, `load` reads it.

Every dataset is a module with `find(origin) -> str`, `prepare(origin)` and `load(origin) ->
Source`; those of the user's, `own_file`, `own_folder` and `own_tfds`, also have `card(name,
data_dir) -> Card`.
"""

import dataclasses
import importlib
import numbers
import os
from types import ModuleType

from ntk_tf.catalogue.datasets import ALLOWED, DATASETS, TFDS, Card, is_own
from ntk_tf.data.source import DataError, Origin, Source, Split

__all__ = [
    "DataError",
    "Origin",
    "Source",
    "Split",
    "card",
    "check_counts",
    "find",
    "load",
    "prepare",
]


def card(name: str, data_dir: str | None = None) -> Card:
    """What is known of a dataset without reading its pictures.

    Args:
        name: one of `ntk_tf.catalogue.datasets.DATASETS`, `tfds:NAME`, `FILE.npz` or `FOLDER/`;
            TensorFlow is not imported for files.
        data_dir: where TFDS keeps prepared datasets; None for its own default.

    Returns:
        The dataset's row of the catalogue, or one made of what TFDS or the files say. Numbers of
        pictures are 0 where TFDS learns them by preparing the data.

    Raises:
        DataError: if there is no such dataset, or it is not one of labelled pictures or vectors.
    """
    return DATASETS[name] if name in DATASETS else _module(name).card(name, data_dir)


def find(name: str, data_dir: str | None = None, manual_dir: str | None = None, **choice) -> str:
    """Say where a dataset would come from, reading no pictures and writing nothing.

    Args:
        name: as for `card`.
        data_dir: where TFDS keeps prepared datasets; None for its own default.
        manual_dir: folder of the original files, or None.
        **choice: the other attributes of `Origin`.

    Returns:
        `embedded`, `file`, `folder`, `prepared`, `manual_dir` or `download`.
    """
    return _module(name).find(Origin(data_dir, manual_dir, name=name, **choice))


def prepare(
    name: str, data_dir: str | None = None, manual_dir: str | None = None, **choice
) -> None:
    """Bring a dataset's files into the form that `load` reads, without reading them into memory.

    Args:
        name: as for `card`.
        data_dir: where TFDS keeps prepared datasets; None for its own default.
        manual_dir: folder of the original files, or None.
        **choice: the other attributes of `Origin`.
    """
    _module(name).prepare(Origin(data_dir, manual_dir, name=name, **choice))


def load(
    name: str,
    data_dir: str | None = None,
    manual_dir: str | None = None,
    train_examples: int | None = None,
    test_examples: int | None = None,
    normalization: str = "standard",
    subset_seed: int | None = None,
    **choice,
) -> Source:
    """Read a dataset into memory.

    Args:
        name: as for `card`.
        data_dir: where TFDS keeps prepared datasets; None for its own default.
        manual_dir: folder of the original files, or None.
        train_examples: keep only the first so many training pictures; None keeps all.
        test_examples: keep only the first so many test pictures; None keeps all.
        normalization: `standard`, by mean and standard deviation of each channel of the whole
            training set; `half`, (x - 1/2) / (1/2); or `unit`, x in [0, 1].
        subset_seed: draw the training pictures at random with this seed, so that a larger
            `train_examples` adds to those of a smaller one; None takes the first.
        **choice: the other attributes of `Origin`.

    Returns:
        The pictures in their fixed order.

    Raises:
        DataError: if there are fewer pictures than asked for, or the data is missing or damaged.
    """
    from ntk_tf.data.normalization import normalized

    name = os.fspath(name)
    source = _module(name).load(Origin(data_dir, manual_dir, name=name, **choice))
    source = normalized(source, normalization)
    if subset_seed is not None and not 0 <= subset_seed < 2**32:
        raise DataError(f"subset_seed={subset_seed}: must be 0 to {2**32 - 1}")
    check_counts(name, len(source.train), len(source.test), train_examples, test_examples)
    train, test = source.train.subset(train_examples, subset_seed), source.test.first(test_examples)
    return dataclasses.replace(source, train=train, test=test)


def check_counts(
    name: str,
    train: int,
    test: int,
    train_examples: int | None = None,
    test_examples: int | None = None,
) -> None:
    """Refuse to take more pictures than there are.

    Args:
        name: of the dataset.
        train: number of training pictures; 0 where it is not known.
        test: number of test pictures, likewise.
        train_examples: how many are wanted; None for all.
        test_examples: likewise.

    Raises:
        DataError: if there are fewer, or less than one is wanted.
    """
    wanted = {"train": (train_examples, train), "test": (test_examples, test)}
    for split, (count, available) in wanted.items():
        whole = isinstance(count, numbers.Integral) and not isinstance(count, bool)
        if count is not None and not (whole and count > 0):
            raise DataError(f"{split}_examples={count}: must be a whole number of at least 1")
        if count and available and count > available:
            raise DataError(f"{split}_examples={count}: {name} has {available} {split} pictures")


def _module(name: str) -> ModuleType:
    """A dataset's module, imported only now: some need TFDS, which takes its time.

    Raises:
        DataError: for an unknown name.
    """
    if name in DATASETS:
        module = DATASETS[name].module
    elif is_own(name):
        folder_or_file = "own_folder" if name.endswith("/") else "own_file"
        module = f"ntk_tf.data.{'own_tfds' if name.startswith(TFDS) else folder_or_file}"
    else:
        raise DataError(f"dataset={name}: must be {ALLOWED}")
    return importlib.import_module(module)
