"""Settings that several experiments share, in groups that they inherit.

Their order is that of run names, `config.json`, `--help` and docs/flags.md.
"""

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

from ntk_tf.catalogue import architectures, datasets, paper
from ntk_tf.settings.config import Config
from ntk_tf.settings.setting import (
    ABOVE_0,
    AT_LEAST_0,
    LARGEST,
    TRUE_OR_FALSE,
    Condition,
    Rule,
    SettingError,
    integer,
    one_of,
    optional,
    real,
    setting,
    several,
    text,
)

_PAPER = "default: the paper's for the architecture and dataset"
_SOURCE = "default: the source's for the architecture"

SNAKES = Condition("--dataset=imagenet_snakes", lambda c: c.dataset == "imagenet_snakes")
BUILT_IN = Condition("a built-in --arch", lambda c: c.arch in architectures.ARCHITECTURES)
FROM_START = Condition(
    "--linearized (in a sweep, --models=linearized) or --centered",
    lambda c: getattr(c, "linearized", True) or c.centered,
)
STARTED = Condition(
    "a linearization, as --linearized (in a sweep, --models=linearized), and without --from_run",
    lambda c: getattr(c, "linearized", True) and c.from_run is None,
)
STEPS = Condition("--schedule=step", lambda c: c.schedule == "step")
L2 = Condition(
    "--loss=l2, in --experiment=rank with --kernel_regression",
    lambda c: getattr(c, "loss", "l2") == "l2" and getattr(c, "kernel_regression", True),
)
STANDARD = Condition(
    "a built-in --arch and --parametrization=standard",
    lambda c: BUILT_IN.holds(c) and c.parametrization == "standard",
)
XAVIER = Condition(
    "a built-in --arch and --initialization=xavier_normal",
    lambda c: STANDARD.holds(c) and c.initialization == "xavier_normal",
)
SUBSET = Condition("--train_examples", lambda c: c.train_examples is not None)
LAZY = Condition("--centered and --nolinearized", lambda c: c.centered and not c.linearized)
#: A scaled network's outputs h, rounded at their 24th binary digit, are multiplied by alpha.
FLOAT32_ALPHA = 1e3
#: The schedule of Chizat et al. (2019), cnn/train.py: lr / (1 + 100 e / 300).
INVERSE_EPOCHS = 3


def _paper(name: str) -> Callable[[Any], Any]:
    """The paper's value for a run, or the general one where it has none."""

    def value(config: Any) -> Any:
        linearized = bool(getattr(config, "linearized", False))
        return paper.training(config.arch, config.dataset, linearized)[name]

    return value


@dataclasses.dataclass(frozen=True, kw_only=True)
class Epochs(Config):
    """How long to train."""

    epochs: int = setting(_paper("epochs"), integer(1), f"passes over the training set ({_PAPER})")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Descent(Config):
    """Stochastic gradient descent."""

    batch_size: int = setting(
        _paper("batch_size"),
        integer(1),
        f"pictures an update; the last batch of an epoch may be smaller ({_PAPER})",
    )
    learning_rate: float = setting(
        _paper("learning_rate"),
        ABOVE_0,
        f"SGD's step size at the start ({_PAPER})",
        plural="learning_rates",
    )
    momentum: float = setting(
        _paper("momentum"),
        real("of at least 0 and below 1", lambda value: 0 <= value < 1),
        f"SGD's momentum ({_PAPER})",
    )
    weight_decay: float = setting(
        _paper("weight_decay"),
        AT_LEAST_0,
        f"coupled decay, added to the gradient as PyTorch does ({_PAPER})",
        plural="weight_decays",
    )
    schedule: str = setting(
        _paper("schedule"),
        one_of("step", "inverse"),
        "of the learning rate: step drops it, inverse divides it by 1 + e / 3 in epoch e, from 0"
        f" ({_SOURCE}, or step)",
        since="0.2",
    )
    lr_drop_every: int = setting(
        _paper("lr_drop_every"),
        integer(0),
        f"epochs between drops of the learning rate, 0 for constant ({_PAPER})",
        when=STEPS,
    )
    lr_drop_factor: float = setting(
        _paper("lr_drop_factor"),
        ABOVE_0,
        f"a drop divides the learning rate by this ({_PAPER})",
        when=STEPS,
    )

    def check(self, given: dict[str, Any]) -> None:
        """Refuse a factor of drops that there are not, or that leads out of all numbers.

        Raises:
            SettingError: naming the flag, its value and what is allowed.
        """
        super().check(given)
        if "lr_drop_factor" in given and not self.lr_drop_every:
            raise SettingError(
                f"--lr_drop_factor={self.lr_drop_factor:g}: read only with --lr_drop_every above 0"
            )
        last = getattr(self, "epochs", None) or 1
        if self.learning_rate_in(last - 1) > LARGEST:
            raise SettingError(
                f"--lr_drop_factor={self.lr_drop_factor:g}: the learning rate of epoch {last} is"
                f" beyond {LARGEST:.0e}".replace("+", "")
            )

    def learning_rate_in(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0."""
        if self.schedule == "inverse":
            return self.learning_rate / (1 + epoch / INVERSE_EPOCHS)
        drops = epoch // self.lr_drop_every if self.lr_drop_every else 0
        try:
            return self.learning_rate / self.lr_drop_factor**drops
        except OverflowError:
            return 0.0
        except ZeroDivisionError:
            return math.inf


def _dataset(config: Any) -> str:
    return architectures.find(config.arch).dataset or "mnist"


def _image_size(config: Any) -> int | None:
    """The architecture's side, the dataset's, or None for pictures of the user's as they are."""
    usual = architectures.find(config.arch).usual_side or datasets.USUAL_SIDE.get(config.dataset)
    if usual is None and (config.card.photographs or not datasets.is_own(config.dataset)):
        usual = config.card.shape[0]
    return usual if len(config.card.shape) == 3 else None


def _is_arch(value: str) -> bool:
    return value in architectures.ARCHITECTURES or architectures.is_own(value)


def _is_dataset(value: str) -> bool:
    return value in datasets.DATASETS or datasets.is_own(value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pictures(Config):
    """What the network sees."""

    arch: str = setting(
        "lenet",
        text(architectures.ALLOWED, _is_arch, "NAME"),
        f"architecture: {architectures.ALLOWED} (default: lenet)",
        named=False,
    )
    dataset: str = setting(
        _dataset,
        text(datasets.ALLOWED, _is_dataset, "NAME"),
        f"pictures: {datasets.ALLOWED} (default: the paper's for the architecture)",
        named=False,
    )
    image_size: int | None = setting(
        _image_size,
        optional(integer(1)),
        "pictures are resized to this side (default: the architecture's or the dataset's)",
    )
    padding: int = setting(0, integer(0), "pixels of black border added on each side (default: 0)")

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of what the network sees, (height, width, channels) or `(d,)`."""
        if len(self.card.shape) == 1:
            return self.card.shape
        height, width, channels = self.card.shape
        if self.image_size is not None:
            height = width = self.image_size
        border = 2 * self.padding
        wanted = architectures.find(self.arch).channels or channels
        return height + border, width + border, wanted

    @property
    def num_classes(self) -> int:
        """Number L of outputs."""
        return len(self.synsets) if self.synsets else self.card.classes

    @property
    def synsets(self) -> tuple[str, ...] | None:
        """The chosen classes of `imagenet_snakes`; None for its default."""
        chosen = getattr(self, "snake_synsets", None)
        return tuple(chosen.split(",")) if chosen else None

    def check(self, given: dict[str, Any]) -> None:
        """Refuse pictures that the architecture cannot take.

        Raises:
            SettingError: naming the flag, its value and what is allowed.
        """
        super().check(given)
        arch = architectures.find(self.arch)
        shape = "x".join(map(str, self.card.shape))
        if len(self.card.shape) == 1:
            if not arch.takes_vectors:
                raise SettingError(
                    f"--dataset={self.dataset}: has vectors of {shape} numbers; --arch={self.arch}"
                    " takes pictures"
                )
            for name in ("image_size", "padding", "augment"):
                if name in given:
                    raise SettingError(
                        f"--{name}={given[name]}: --dataset={self.dataset} has vectors"
                    )
            return
        *sides, channels = self.input_shape
        if self.card.shape[-1] not in (1, channels):
            raise SettingError(
                f"--dataset={self.dataset}: has pictures of {shape}; --arch={self.arch} takes"
                f" {channels} channels"
            )
        # With arguments of its own, as of smaller kernels, building it tells.
        if not self.builds_network or getattr(self, "arch_args", None):
            return
        if min(sides) < arch.smallest_side:
            size = f"image_size={self.image_size}" if self.image_size else f"dataset={self.dataset}"
            raise SettingError(
                f"--{size}: with --padding={self.padding} the input of {self.arch} is"
                f" {min(sides)} pixels wide; it must be at least {arch.smallest_side}"
            )


def _two_numbers() -> Rule:
    """Two finite numbers, the smaller one first."""
    pair = several(real("", lambda value: True))
    return dataclasses.replace(
        pair,
        allowed="two finite numbers LOW,HIGH, the first below the second",
        accepts=lambda value: pair.accepts(value) and len(value) == 2 and value[0] < value[1],
        placeholder="LOW,HIGH",
    )


def _targets(config: Any) -> tuple[float, float]:
    one_hot = (0.0, 1.0)
    return _paper("targets")(config) if L2.holds(config) else one_hot


@dataclasses.dataclass(frozen=True, kw_only=True)
class Targets(Config):
    """What the outputs are fitted to."""

    targets: tuple[float, float] = setting(
        _targets,
        _two_numbers(),
        "of the outputs for the other classes and for the picture's, such as -.1,.9"
        f" ({_SOURCE}, or 0,1)",
        when=L2,
        since="0.2",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective(Targets):
    """What is minimized, and for how many updates."""

    loss: str = setting(
        "l2",
        one_of("l2", "cross_entropy"),
        "l2 is the mean over batch and outputs (default: l2)",
        plural="losses",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaxSteps(Config):
    """An early end."""

    max_steps: int | None = setting(
        None,
        optional(integer(1)),
        "stop after so many updates, of baseline iterations of L-BFGS (default: all epochs, of"
        " trajectory one, of baseline 100 iterations)",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainSubset(Config):
    """How many of the training pictures, and which."""

    train_examples: int | None = setting(
        None, optional(integer(1)), "use only the first so many training pictures (default: all)"
    )
    subset_seed: int | None = setting(
        None,
        optional(integer(0, 2**32 - 1)),
        "draw the pictures of --train_examples at random; more of them with the same seed include"
        " them (default: the first)",
        when=SUBSET,
        since="0.2",
        plural="subset_seeds",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TestSubset(Config):
    """How many of the test pictures."""

    test_examples: int | None = setting(
        None, optional(integer(1)), "use only the first so many test pictures (default: all)"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation(Config):
    """Random changes of the training pictures."""

    augment: str = setting(
        _paper("augment"),
        one_of("none", "flip_crop", "padded_crop"),
        "of training pictures: flip_crop for a random resized crop and flip, padded_crop for a"
        " random crop of the picture with a black border of 4 pixels, and flip"
        f" ({_SOURCE} and dataset, or none)",
    )


def _are_snakes(value: str) -> bool:
    names = value.split(",")
    return 2 <= len(names) == len(set(names)) and set(names) <= set(datasets.SNAKE_SYNSETS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Snakes(Config):
    """Which of ImageNet's snakes."""

    snake_synsets: str | None = setting(
        None,
        optional(
            text(
                f"at least two different ones of {', '.join(datasets.SNAKE_SYNSETS)}, separated by"
                " commas",
                _are_snakes,
                "SYNSET,SYNSET...",
            )
        ),
        "classes of imagenet_snakes (default: the first ten that have 1,300 training pictures)",
        when=SNAKES,
    )
    skip_corrupt_images: bool = setting(
        False,
        TRUE_OR_FALSE,
        "prepare imagenet_snakes without pictures that cannot be decoded (default: off)",
        when=SNAKES,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecayToward(Config):
    """Where weight decay pulls a linearization, or a centered network."""

    decay_toward: str = setting(
        "initialization",
        one_of("initialization", "zero"),
        "weight decay of a linearization acts on u, or toward zero on its weights w0 + u, as on a"
        " network's; of a centered network on w - w0, or on w (default: initialization)",
        when=FROM_START,
        since="0.1.1",
    )


def _precision(config: Any) -> str:
    return "float64" if getattr(config, "alpha", 1.0) > FLOAT32_ALPHA else "float32"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Precision(Config):
    """Of numbers while training."""

    precision: str = setting(
        _precision,
        one_of("float32", "tf32", "float64"),
        "tf32 rounds the factors of matrix products to 10 bits on NVIDIA GPUs and is faster;"
        " float64 is for all of the network (default: float32, and float64, which it needs, for an"
        f" alpha above {FLOAT32_ALPHA:g})",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Centered(Config):
    """Outputs that start at 0."""

    centered: bool = setting(
        False,
        TRUE_OR_FALSE,
        "train f(w, x) - f(w0, x), and of a linearization J u alone (default: off)",
        since="0.2",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Centering(Centered):
    """Outputs that start at 0, and how lazily they are trained."""

    alpha: float = setting(
        1.0,
        real("of at least 1e-9 and at most 1e9", lambda value: 1e-9 <= value <= 1e9),
        "train by loss(alpha h) / alpha^2, h the centered network; the larger, the lazier, and the"
        " limit is --linearized --centered (default: 1)",
        when=LAZY,
        since="0.2",
        plural="alphas",
    )

    def check(self, given: dict[str, Any]) -> None:
        """Refuse an alpha that leaves nothing of the outputs but rounding.

        Raises:
            SettingError: naming the flag, its value and what is allowed.
        """
        super().check(given)
        if self.alpha > FLOAT32_ALPHA and self.precision != "float64":
            raise SettingError(
                f"--precision={self.precision}: must be float64 with --alpha={self.alpha}, above"
                f" {FLOAT32_ALPHA:g}"
            )


#: What an architecture is given besides its keyword arguments.
_GIVEN = ("arch", "parametrization", "width", "num_classes", "input_shape", "seed")
#: What a built-in one is given besides, by settings of their own.
_BUILT_IN_GIVEN = ("gain", "output_factor", "train_biases")


def _initialization(config: Any) -> str:
    return "pytorch" if architectures.find(config.arch).gain is None else "xavier_normal"


def _gain(config: Any) -> float:
    return architectures.find(config.arch).gain or 1.0


def _output_factor(config: Any) -> float:
    return architectures.find(config.arch).output_factor


def _arguments() -> Rule:
    """Keyword arguments `name=value,...`; values are numbers, true, false, none or words."""
    form = re.compile(r"[A-Za-z_]\w*=[^,=]+(,[A-Za-z_]\w*=[^,=]+)*")

    def accepts(value: str) -> bool:
        names = [part.partition("=")[0] for part in value.split(",")]
        return form.fullmatch(value) is not None and len(set(names)) == len(names)

    allowed = "different name=value pairs separated by commas, such as kernel_size=3"
    return text(allowed, accepts, "NAME=VALUE,...")


def _value(word: str) -> Any:
    constants = {"true": True, "false": False, "none": None}
    if word.lower() in constants:
        return constants[word.lower()]
    for convert in (int, float):
        try:
            return convert(word)
        except ValueError:
            pass
    return word


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start(Config):
    """A network's width, and where its weights start."""

    width: int = setting(
        1,
        integer(1),
        "width factor k: multiplies channels and hidden units (default: 1)",
        plural="widths",
        named=False,
    )
    seed: int = setting(
        0,
        integer(0, 2**32 - 1),
        "fixes initialization and data order (default: 0)",
        plural="seeds",
        named=False,
    )
    train_biases: bool = setting(
        True,
        TRUE_OR_FALSE,
        "train the biases; without, they stay at their initialization and a linearization has no u"
        " for them (default: on)",
        since="0.1.1",
    )
    from_run: str | None = setting(
        None,
        optional(text("a run directory", placeholder="DIR")),
        "training run whose newest weights the network starts from (default: initialization)",
        since="0.2",
        named=False,
    )
    pretrain_steps: int = setting(
        0,
        integer(0),
        "train the network for so many updates first, by these settings, and start from its weights"
        " (default: 0)",
        when=STARTED,
        plural="pretrain_steps",
        since="0.2",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArchArgs(Config):
    """Keyword arguments of the architecture."""

    arch_args: str | None = setting(
        None,
        optional(_arguments()),
        "keyword arguments of the architecture, such as kernel_size=3 for lenet (default: none)",
        since="0.2",
    )

    def check(self, given: dict[str, Any]) -> None:
        """Refuse keyword arguments that are settings of their own.

        Raises:
            SettingError: naming the flag, its value and what is allowed.
        """
        super().check(given)
        own = _BUILT_IN_GIVEN if BUILT_IN.holds(self) else ()
        for name in _GIVEN + own:
            if name in self.arguments:
                flag = name in {field.name for field in dataclasses.fields(self)}
                said = "has a flag of its own" if flag else "follows from the data"
                raise SettingError(f"--arch_args={self.arch_args}: {name} {said}")

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments in `arch_args`."""
        parts = self.arch_args.split(",") if self.arch_args else []
        pairs = (part.split("=") for part in parts)
        return {name: _value(word) for name, word in pairs}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network(ArchArgs, Start):
    """The network and where its weights start."""

    parametrization: str = setting(
        "standard",
        one_of("standard", "ntk"),
        "of the weights: ntk draws them from N(0, 1), and layers multiply them by sigma_w /"
        " sqrt(fan_in) and biases by sigma_b (default: standard)",
        when=BUILT_IN,
        since="0.2",
    )
    initialization: str = setting(
        _initialization,
        one_of("pytorch", "xavier_normal"),
        "of the weights: pytorch is U(-1/sqrt(fan_in), 1/sqrt(fan_in)), biases too; xavier_normal"
        f" is N(0, 2 gain^2 / (fan_in + fan_out)), biases 0 ({_SOURCE}, or pytorch)",
        when=STANDARD,
        since="0.2",
    )
    gain: float = setting(
        _gain,
        ABOVE_0,
        f"of the initialization ({_SOURCE}, or 1)",
        when=XAVIER,
        since="0.2",
    )
    output_factor: float = setting(
        _output_factor,
        ABOVE_0,
        f"kappa that the outputs are multiplied by ({_SOURCE}, or 1)",
        when=BUILT_IN,
        since="0.2",
    )

    @property
    def layer_arguments(self) -> dict[str, Any]:
        """The keyword arguments of a built-in architecture's layers."""
        if not BUILT_IN.holds(self):
            return {}
        given: dict[str, Any] = {"output_factor": self.output_factor}
        if STANDARD.holds(self):
            given["gain"] = self.gain if XAVIER.holds(self) else None
        return given


@dataclasses.dataclass(frozen=True, kw_only=True)
class Normalization(Config):
    """How pixels become inputs."""

    normalization: str = setting(
        "standard",
        one_of("standard", "half", "unit"),
        "of pixels x in [0, 1]: standard, by each channel's mean and standard deviation; half,"
        " (x - .5) / .5; unit, x itself (default: standard)",
        since="0.2",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data(Normalization, Snakes, Pictures):
    """What every experiment has: pictures, as a network sees them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training(Precision, DecayToward, Augmentation, MaxSteps, Objective, Descent):
    """What training by SGD takes, but for how long."""

    @property
    def small(self) -> bool:
        """Whether each operation of a training step is too small to be split over threads.

        Measured with LeNet in batches of 32: one thread for each is faster up to width 2. It is not
        measured at the start, since the number of threads changes the last bits of sums: the same
        command would give other numbers on a busy machine.
        """
        limit = architectures.find(self.arch).one_thread_width
        return self.width**2 * self.batch_size <= 32 * limit**2
