"""The datasets by name: `find` says where one would come from, `load` reads it."""

from ntk_tf.data import digits, mnist
from ntk_tf.data.source import DataError, Source, Split

__all__ = ["DataError", "Source", "Split", "find", "load"]


def find(name: str, data_dir: str | None = None, manual_dir: str | None = None) -> str:
    """Say where a dataset would come from, reading and writing nothing.

    Args:
        name: one of `ntk_tf.config.DATASETS`.
        data_dir: where TFDS keeps prepared datasets; None for its own default.
        manual_dir: folder of the original files, or None.

    Returns:
        `embedded`, `prepared`, `manual_dir` or `download`.
    """
    return "embedded" if name == "digits" else mnist.find(data_dir, manual_dir)


def load(
    name: str,
    data_dir: str | None = None,
    manual_dir: str | None = None,
    train_examples: int | None = None,
    test_examples: int | None = None,
) -> Source:
    """Read a dataset into memory.

    Args:
        name: one of `ntk_tf.config.DATASETS`.
        data_dir: where TFDS keeps prepared datasets; None for its own default.
        manual_dir: folder of the original files, or None.
        train_examples: keep only the first so many training pictures; None keeps all.
        test_examples: keep only the first so many test pictures; None keeps all.

    Returns:
        The pictures in their fixed order.

    Raises:
        DataError: if there are fewer pictures than asked for, or the data is missing or damaged.
    """
    source = digits.load() if name == "digits" else mnist.load(data_dir, manual_dir)
    wanted = {"train": train_examples, "test": test_examples}
    for split, count in wanted.items():
        available = len(getattr(source, split))
        if count is not None and count > available:
            raise DataError(f"--{split}_examples={count}: {name} has {available} {split} pictures")
    return Source(
        source.train.first(train_examples),
        source.test.first(test_examples),
        source.mean,
        source.std,
    )
