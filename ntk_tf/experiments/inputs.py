"""Where settings meet the data: read, and turned into what the network sees."""

import numpy as np
import tensorflow as tf
from rich.console import Console

from ntk_tf import data, runs
from ntk_tf.data import counts, pipeline
from ntk_tf.data.source import Source, Split
from ntk_tf.experiments import EXPERIMENTS, place
from ntk_tf.process import devices
from ntk_tf.process.terminal import say
from ntk_tf.settings import Config, Options


class Inputs:
    """A run's pictures, as they are on disk and as the network sees them.

    JPEG files are decoded here once and for all if `options.cache_decoded` says so.

    Args:
        config: the run's settings.
        options: where the data is.

    Attributes:
        source: the pictures in their fixed order.
        preprocess: maps them to inputs.

    Raises:
        DataError: if the data cannot be had.
    """

    def __init__(self, config: Config, options: Options):
        self.config, self.options = config, options
        source = data.load(
            config.dataset,
            options.data_dir,
            options.manual_dir,
            normalization=config.normalization,
            subset_seed=getattr(config, "subset_seed", None),
            **place.counts(config),
            **place.choice(config),
        )
        if source.train.encoded:
            from ntk_tf.data import decode

            source = decode.cached(source, config.image_size, options.cache_decoded)
        self.source: Source = source
        augment = getattr(config, "augment", "none")
        channels = config.input_shape[-1]
        self.preprocess = pipeline.preprocessing(
            source, config.image_size, config.padding, channels, augment
        )

    def insist_on_classes(self) -> None:
        """Refuse training pictures that a regression on their labels has nothing to tell apart.

        Raises:
            DataError: if all are of one class.
        """
        labels = self.source.train.labels
        if len(np.unique(labels)) < 2:
            raise data.DataError(
                f"train_examples={len(labels)}: all are of one class; the regression needs two"
            )

    def open_workdir(self, console: Console) -> None:
        """Take the run directory, see `runs.open_workdir`, and say on what the run computes."""
        config = self.config
        runs.open_workdir(
            self.options.workdir,
            config.to_dict(),
            self.options.resume,
            self.source.classes,
            added=config.added(),
            files=EXPERIMENTS[config.experiment].files,
        )
        lines = (f"device: {devices.describe()}", devices.idle_gpus(), self._missing_labels())
        for line in filter(None, lines):
            say(console, line)

    def _missing_labels(self) -> str:
        """What to say of labels that no training picture has; nothing where there are none."""
        missing = np.setdiff1d(np.arange(self.config.num_classes), self.source.train.labels)
        if not len(missing):
            return ""
        return (
            f"labels without training pictures: {len(missing)}, from {missing[0]} to {missing[-1]};"
            " the network has outputs for them all the same"
        )

    def training_batches(self, start_step: int) -> tf.data.Dataset:
        """The run's training batches from an update on; see `pipeline.training_batches`."""
        config = self.config
        return pipeline.training_batches(
            self.source.train,
            self.preprocess,
            config.num_classes,
            config.batch_size,
            config.seed,
            start_step,
            self.targets,
        )

    @property
    def steps_per_epoch(self) -> int:
        """Number of training batches in an epoch."""
        return counts.steps_per_epoch(len(self.source.train), self.config.batch_size)

    @property
    def evaluation_batch(self) -> int:
        """Pictures a batch in passes that only evaluate."""
        return counts.evaluation_batch_size(self.config.input_shape)

    def evaluation_batches(self, split: Split, size: int | None = None) -> tf.data.Dataset:
        """Every picture of a split once: `(x [b, ...], y [b, L])`."""
        size = size or self.evaluation_batch
        classes = self.config.num_classes
        return pipeline.evaluation_batches(split, self.preprocess, classes, size, self.targets)

    @property
    def targets(self) -> tuple[float, float]:
        """Targets of the outputs for the other classes, and for the picture's.

        In the run's precision: `np.float64` for float64, Python's numbers for float32.
        """
        targets = getattr(self.config, "targets", pipeline.ONE_HOT)
        double = getattr(self.config, "precision", "float32") == "float64"
        low, high = map(np.float64, targets) if double else targets
        return low, high

    def wanted(self, labels: np.ndarray) -> np.ndarray:
        """The targets of pictures with these labels, float64 `[n, L]`."""
        low, high = self.targets
        return np.where(np.eye(self.config.num_classes)[labels] > 0, high, low)

    def arrays(self, split: Split) -> np.ndarray:
        """A split as the network sees it, float32 `[n, ...]`."""
        size = self.evaluation_batch
        result = np.empty((len(split), *self.config.input_shape), np.float32)
        for i, (x, _) in enumerate(self.evaluation_batches(split)):
            result[i * size : i * size + len(x)] = x
        return result
