"""The settings of a run: frozen, validated, with the paper's values as defaults.

Nothing here imports TensorFlow, so bad settings are refused at once.
"""

import dataclasses
import pathlib
import zlib
from typing import Any

from ntk_tf.choices import (
    MINIMUM_SIDE,
    NUM_CLASSES,
    PAPER_DATASET,
    PRECISIONS,
    READS,
    channels,
    defaults,
    settings_read,
)
from ntk_tf.rules import RULES, SettingError, check


@dataclasses.dataclass(frozen=True)
class Config:
    """Every setting that a run's numbers depend on; None for those its experiment does not read.

    Attributes:
        experiment: what is run, one of `EXPERIMENTS`.
        arch: architecture, one of `ARCHS`.
        width: width factor k, which multiplies the channels of every convolution and the units of
            every hidden dense layer.
        dataset: one of `DATASETS`.
        image_size: pictures are resized to this many pixels square, before padding.
        padding: pixels of black border added on each side.
        seed: fixes initialization and data order.
        linearized: train T_f(u, x) = f(w0, x) + u . grad_w f(w0, x) in place of f(w, x).
        train_biases: train the biases too; if not, they stay at their initialization, and a
            linearization has no u for them.
        loss: `l2` (mean over batch and outputs) or `cross_entropy`.
        epochs: passes over the training set.
        batch_size: pictures an update; the last batch of an epoch may be smaller.
        learning_rate: SGD's step size at the start.
        momentum: SGD's momentum.
        weight_decay: coupled decay, added to the gradient (PyTorch's).
        decay_toward: what it pulls a linearization's weights w0 + u to: their `initialization` w0,
            or `zero`, to which it always pulls a network's.
        lr_drop_every: epochs between drops of the learning rate; 0 keeps it constant.
        lr_drop_factor: what a drop divides the learning rate by.
        max_steps: stop after so many updates; None runs all epochs.
        augment: `none`, or `flip_crop` for a random resized crop and flip of training pictures.
        train_examples: use only the first so many training pictures; None uses all.
        test_examples: use only the first so many test pictures; None uses all.
        snake_synsets: comma-separated classes of `imagenet_snakes` in WordNet's order; None for
            the first ten that have exactly 1,300 training pictures.
        skip_corrupt_images: prepare `imagenet_snakes` without pictures that cannot be decoded.
        weights: file of a network trained on all of ImageNet.
        examples: pictures to look at: how many, or their positions in the test set; for `rank` the
            first so many training pictures.
        record_every: updates between records of the outputs.
        distance_every: updates between measurements of the distance between the two models.
        distance_examples: first so many test pictures for that.
        kernel_every: updates between measurements of the network's kernel; None for never.
        kernel_examples: first so many test pictures for that.
        precision: of matrix products, one of `PRECISIONS` for the experiment; for `rank` of the
            Gram's, and for `float64` of the network too.
        kernel_regression: also solve the regression with the Gram.
        ridge: weight decay of that regression.
        from_run: directory of a training run whose newest weights to use; None for those at
            initialization.
    """

    experiment: str
    arch: str
    dataset: str
    image_size: int
    padding: int = 0
    width: int | None = None
    seed: int | None = None
    linearized: bool | None = None
    train_biases: bool | None = None
    loss: str | None = None
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    momentum: float | None = None
    weight_decay: float | None = None
    decay_toward: str | None = None
    lr_drop_every: int | None = None
    lr_drop_factor: float | None = None
    max_steps: int | None = None
    augment: str | None = None
    train_examples: int | None = None
    test_examples: int | None = None
    snake_synsets: str | None = None
    skip_corrupt_images: bool | None = None
    weights: str | None = None
    examples: int | tuple[int, ...] | None = None
    record_every: int | None = None
    distance_every: int | None = None
    distance_examples: int | None = None
    kernel_every: int | None = None
    kernel_examples: int | None = None
    precision: str | None = None
    kernel_regression: bool | None = None
    ridge: float | None = None
    from_run: str | None = None

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape (height, width, channels) of what the network sees."""
        side = self.image_size + 2 * self.padding
        return side, side, channels(self.arch, self.dataset)

    @property
    def num_classes(self) -> int:
        """Number L of outputs."""
        return len(self.synsets) if self.synsets else NUM_CLASSES[self.dataset]

    @property
    def synsets(self) -> tuple[str, ...] | None:
        """The chosen classes of `imagenet_snakes`; None for its default."""
        return tuple(self.snake_synsets.split(",")) if self.snake_synsets else None

    @property
    def small(self) -> bool:
        """Whether each operation of a training step is too small to be split over threads.

        Measured with LeNet in batches of 32: one thread for each is faster up to width 2.
        """
        trains = self.experiment in ("train", "trajectory")
        return trains and self.arch == "lenet" and self.width**2 * self.batch_size <= 128

    def learning_rate_in(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0."""
        drops = epoch // self.lr_drop_every if self.lr_drop_every else 0
        return self.learning_rate / self.lr_drop_factor**drops

    def to_dict(self) -> dict[str, Any]:
        """The settings that the experiment reads, by name, ready for JSON."""
        read = settings_read(self.experiment, self.dataset, bool(self.linearized))
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
            if name in read
        }


def resolve(**settings: Any) -> Config:
    """Complete the given settings with the paper's and validate all of them.

    Args:
        **settings: attributes of `Config`; those absent or None take their default, which for
            `experiment` is `train`, for `arch` LeNet, for `dataset` the paper's for that arch.

    Returns:
        The complete configuration.

    Raises:
        SettingError: if a setting has a value that it cannot take, or the experiment does not
            read it.
        TypeError: if a setting is unknown.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    for name, value in given.items():
        if name not in RULES:
            raise TypeError(f"unknown setting {name!r}")
        check(name, value)
    experiment = given.get("experiment", "train")
    foreign = sorted(given.keys() - READS[experiment])
    if foreign:
        readers = [name for name, read in READS.items() if foreign[0] in read]
        raise SettingError(
            f"--{foreign[0]}={given[foreign[0]]}: --experiment={experiment} does not read it;"
            f" read by {', '.join(readers)}"
        )
    precisions = PRECISIONS.get(experiment, ())
    if "precision" in given and given["precision"] not in precisions:
        raise SettingError(
            f"--precision={given['precision']}: with --experiment={experiment} it must be one of"
            f" {', '.join(precisions)}"
        )
    arch = given.get("arch", "alexnet" if experiment == "pretrained" else "lenet")
    dataset = given.get("dataset", PAPER_DATASET[arch])
    linearized = given.get("linearized", False)
    unread = (given.keys() & READS[experiment]) - settings_read(experiment, dataset, linearized)
    for name in sorted(unread):
        only = "--dataset=imagenet_snakes"
        if name == "decay_toward":
            only = "--linearized (in a sweep, --models=linearized)"
        raise SettingError(f"--{name}={given[name]}: read only with {only}")
    if "snake_synsets" in given:
        given["snake_synsets"] = ",".join(sorted(given["snake_synsets"].split(",")))
    config = Config(**(defaults(experiment, arch, dataset, linearized) | given))
    if experiment == "pretrained":
        _check_pretrained(config)
    if experiment == "rank":
        _check_rank(config, given)
    side = config.input_shape[0]
    if side < MINIMUM_SIDE[arch]:
        raise SettingError(
            f"--image_size={config.image_size}: with --padding={config.padding} the input of"
            f" {arch} is {side} pixels wide; it must be at least {MINIMUM_SIDE[arch]}"
        )
    return config


def _check_pretrained(config: Config) -> None:
    """Refuse what a network trained on all of ImageNet cannot be evaluated on.

    Raises:
        SettingError: naming the flag, its value and what is allowed.
    """
    for name, only in (("arch", "alexnet"), ("dataset", "imagenet_snakes")):
        if getattr(config, name) != only:
            raise SettingError(
                f"--{name}={getattr(config, name)}: with --experiment=pretrained it must be {only}"
            )
    if config.weights is None:
        raise SettingError(
            f"--experiment=pretrained: needs --weights={RULES['weights'].allowed}, such as"
            " torchvision's alexnet-owt-7be5be79.pth"
        )


def _check_rank(config: Config, given: dict[str, Any]) -> None:
    """Refuse settings of the rank experiment that do not go together.

    Raises:
        SettingError: naming the flag, its value and what is allowed.
    """
    if isinstance(config.examples, tuple):
        positions = ",".join(map(str, config.examples))
        raise SettingError(f"--examples={positions}: must be one integer of at least 1")
    for name in ("ridge", "test_examples"):
        if name in given and not config.kernel_regression:
            raise SettingError(f"--{name}={given[name]}: read only with --kernel_regression")


def run_name(config: Config) -> str:
    """A readable, unique name: the model and data, then whatever differs from the defaults.

    Returns:
        For example `linlenet_x60_mnist_seed0` or `lenet_x1_digits_seed3_epochs5`.
    """
    prefix = "lin" if config.linearized else ""
    name = f"{prefix}{config.arch}_x{config.width}_{config.dataset}_seed{config.seed}"
    if config.experiment == "baseline":
        name = f"{config.dataset}_for_{config.arch}"
    elif config.experiment == "pretrained":
        name = f"{config.dataset}_{pathlib.Path(config.weights).stem}"
    if config.experiment != "train":
        name = f"{config.experiment}_{name}"
    usual = defaults(config.experiment, config.arch, config.dataset, bool(config.linearized))
    changed = {
        key: getattr(config, key)
        for key, value in usual.items()
        if key not in ("width", "seed", "weights", "from_run") and getattr(config, key) != value
    }
    if config.synsets:  # up to 17 names are too long for a folder's
        checksum = zlib.crc32(config.snake_synsets.encode())
        changed["snake_synsets"] = f"{len(config.synsets)}-{checksum:08x}"
    if config.from_run:
        changed["from"] = f"-{pathlib.Path(config.from_run).name}"
    return name + "".join(f"_{key}{value}" for key, value in changed.items())


def flags_of(config: Config, options: "Options") -> list[str]:
    """The command line that resolves to these settings: only what differs from the defaults.

    Args:
        config: a run's settings.
        options: how and where it is carried out.

    Returns:
        Arguments of `python -m ntk_tf.main`.
    """
    chosen = {name: getattr(config, name) for name in ("experiment", "arch", "width", "dataset")}
    usual = defaults(config.experiment, config.arch, config.dataset, bool(config.linearized))
    chosen["linearized"] = config.linearized or None
    chosen |= {key: getattr(config, key) for key in usual if getattr(config, key) != usual[key]}
    fields = dataclasses.fields(Options)
    chosen |= {
        field.name: getattr(options, field.name)
        for field in fields
        if getattr(options, field.name) != field.default
    }
    return [_flag(name, value) for name, value in chosen.items() if value is not None]


def _flag(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no{name}"
    if isinstance(value, tuple):
        value = ",".join(map(str, value))
    return f"--{name}={value}"


@dataclasses.dataclass(frozen=True)
class Options:
    """How and where a run is carried out; its numbers do not depend on this.

    Attributes:
        workdir: the run directory.
        data_dir: where TFDS keeps prepared datasets; None for its own default.
        manual_dir: folder of original data files, only read; None if there is none.
        resume: continue an unfinished run and keep a finished one.
        checkpoint_minutes: save within an epoch when the last save is so long ago; so long the end
            of a run waits for a disk that is full.
        cache_decoded: keep JPEG files decoded in memory; None where that takes less of it.
        strategy: `one_device`, or `mirrored` to split each batch over all GPUs.
        profile: write a TensorBoard profile of so many updates; None for none.
        memory_gib: memory for a Gram, itself included; None for half of what is free.
    """

    workdir: pathlib.Path
    data_dir: str | None = None
    manual_dir: str | None = None
    resume: bool = True
    checkpoint_minutes: float = 10.0
    cache_decoded: bool | None = None
    strategy: str = "one_device"
    profile: int | None = None
    memory_gib: float | None = None
