"""The datasets by name: `find` says where one would come from, `load` reads it.

Every dataset is a module with `find(origin) -> str` and `load(origin) -> Source`.
"""

import dataclasses
import importlib
from types import ModuleType

from ntk_tf.choices import DATASETS
from ntk_tf.config import Config, Options
from ntk_tf.data.source import DataError, Origin, Source, Split

__all__ = [
    "DataError",
    "Origin",
    "Source",
    "Split",
    "find",
    "find_for",
    "load",
    "load_for",
    "prepare_for",
]


def find(name: str, data_dir: str | None = None, manual_dir: str | None = None, **choice) -> str:
    """Say where a dataset would come from, reading no pictures and writing nothing.

    Args:
        name: one of `ntk_tf.choices.DATASETS`.
        data_dir: where TFDS keeps prepared datasets; None for its own default.
        manual_dir: folder of the original files, or None.
        **choice: the other attributes of `Origin`.

    Returns:
        `embedded`, `prepared`, `manual_dir` or `download`.
    """
    return _module(name).find(Origin(data_dir, manual_dir, **choice))


def load(
    name: str,
    data_dir: str | None = None,
    manual_dir: str | None = None,
    train_examples: int | None = None,
    test_examples: int | None = None,
    **choice,
) -> Source:
    """Read a dataset into memory.

    Args:
        name: one of `ntk_tf.choices.DATASETS`.
        data_dir: where TFDS keeps prepared datasets; None for its own default.
        manual_dir: folder of the original files, or None.
        train_examples: keep only the first so many training pictures; None keeps all.
        test_examples: keep only the first so many test pictures; None keeps all.
        **choice: the other attributes of `Origin`.

    Returns:
        The pictures in their fixed order.

    Raises:
        DataError: if there are fewer pictures than asked for, or the data is missing or damaged.
    """
    source = _module(name).load(Origin(data_dir, manual_dir, **choice))
    wanted = {"train": train_examples, "test": test_examples}
    for split, count in wanted.items():
        available = len(getattr(source, split))
        if count is not None and count > available:
            raise DataError(f"--{split}_examples={count}: {name} has {available} {split} pictures")
    return dataclasses.replace(
        source, train=source.train.first(train_examples), test=source.test.first(test_examples)
    )


def find_for(config: Config, options: Options) -> str:
    """Say where a run's data would come from; see `find`."""
    return find(config.dataset, options.data_dir, options.manual_dir, **_choice(config))


def prepare_for(config: Config, options: Options) -> Source:
    """Read a run's data as it is kept on disk, preparing it first where need be; see `load`."""
    return load(
        config.dataset,
        options.data_dir,
        options.manual_dir,
        config.train_examples,
        config.test_examples,
        **_choice(config),
    )


def load_for(config: Config, options: Options) -> Source:
    """Read a run's data; see `load`.

    JPEG files are decoded here once and for all if `options.cache_decoded` says so.
    """
    source = prepare_for(config, options)
    if not source.train.encoded:
        return source
    from ntk_tf.data import decode

    return decode.cached(source, config.image_size, options.cache_decoded)


def _choice(config: Config) -> dict[str, object]:
    return {
        "synsets": config.synsets,
        "skip_corrupt_images": bool(config.skip_corrupt_images),
    }


def _module(name: str) -> ModuleType:
    """A dataset's module, imported only now: some need TFDS, which takes its time.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in DATASETS:
        raise ValueError(f"dataset={name!r}: must be one of {', '.join(DATASETS)}")
    return importlib.import_module(f"ntk_tf.data.{name}")
