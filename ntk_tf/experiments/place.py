"""Where a run's data comes from: found and prepared, and not yet read."""

from typing import Any

from ntk_tf import data
from ntk_tf.catalogue.datasets import is_own
from ntk_tf.settings import Config, Options


def find(config: Config, options: Options) -> str:
    """Say where a run's data would come from; see `data.find`.

    Raises:
        DataError: if it cannot be had, or is known to have fewer pictures than asked for.
    """
    place = data.find(config.dataset, options.data_dir, options.manual_dir, **choice(config))
    if config.card.photographs and not is_own(config.dataset):  # without damaged files: fewer
        return place
    data.check_counts(config.dataset, config.card.train, config.card.test, **counts(config))
    return place


def prepare(config: Config, options: Options) -> None:
    """See that a run's data is on this machine; see `data.prepare`."""
    data.prepare(config.dataset, options.data_dir, options.manual_dir, **choice(config))


def choice(config: Config) -> dict[str, Any]:
    """Which pictures of the dataset are wanted."""
    return {
        "synsets": config.synsets,
        "skip_corrupt_images": config.skip_corrupt_images,
        "image_size": config.image_size,
    }


def counts(config: Config) -> dict[str, int | None]:
    """How many of them are."""
    names = ("train_examples", "test_examples")
    return {name: getattr(config, name, None) for name in names}
