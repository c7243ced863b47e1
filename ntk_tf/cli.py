"""The command line: the only place that defines flags, and turns them into settings."""

import dataclasses
import functools
import pathlib
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags

from ntk_tf import choices
from ntk_tf.config import Config, Options, resolve, run_name
from ntk_tf.rules import RULES, SettingError, check
from ntk_tf.sweeps import grid

_PAPER = "default: the paper's for the arch and dataset"


def define_flags(values: flags.FlagValues) -> None:
    """Define every flag of `ntk_tf.main`.

    Args:
        values: where to define them.
    """
    choice = functools.partial(flags.DEFINE_enum, flag_values=values)
    integer = functools.partial(flags.DEFINE_integer, flag_values=values)
    real = functools.partial(flags.DEFINE_float, flag_values=values)
    string = functools.partial(flags.DEFINE_string, flag_values=values)
    boolean = functools.partial(flags.DEFINE_boolean, flag_values=values)

    choice("experiment", None, choices.EXPERIMENTS, "what to run (default: train)")
    choice("arch", None, choices.ARCHS, "architecture (default: lenet)")
    integer("width", None, "width factor: multiplies channels and hidden units (default: 1)")
    string("widths", None, "several width factors, comma-separated: one run each, one figure")
    boolean("linearized", None, "train the linearization in place of the network")
    boolean("train_biases", None, "train biases, or leave them as they start (default: on)")
    choice("dataset", None, choices.DATASETS, "pictures (default: the paper's for the arch)")
    integer("image_size", None, "pictures are resized to this side (default: the arch's)")
    integer("padding", None, "pixels of black border added on each side (default: 0)")
    choice("loss", None, choices.LOSSES, "l2 is the mean over batch and outputs (default: l2)")
    integer("epochs", None, f"passes over the training set ({_PAPER})")
    integer("batch_size", None, f"pictures an update ({_PAPER})")
    real("learning_rate", None, f"SGD's step size ({_PAPER})")
    real("momentum", None, f"SGD's momentum ({_PAPER})")
    real("weight_decay", None, f"coupled weight decay ({_PAPER})")
    choice(
        "decay_toward",
        None,
        choices.DECAY_TARGETS,
        "linearized: decay acts on u, or toward zero on w0 + u (default: initialization)",
    )
    integer("lr_drop_every", None, f"epochs between drops, 0 for constant ({_PAPER})")
    real("lr_drop_factor", None, f"a drop divides the learning rate by this ({_PAPER})")
    integer("max_steps", None, "stop after so many updates (default: all epochs)")
    integer("seed", None, "fixes initialization and data order (default: 0)")
    integer("train_examples", None, "use only the first so many training pictures")
    integer("test_examples", None, "use only the first so many test pictures")
    choice("augment", None, choices.AUGMENTATIONS, "of training pictures (default: none)")
    string("snake_synsets", None, "classes, comma-separated (default: first ten of 1,300 pictures)")
    boolean("skip_corrupt_images", None, "prepare imagenet_snakes without undecodable pictures")
    string("weights", None, "network trained on ImageNet: .pth, .safetensors or .npz")
    boolean("cache_decoded", None, "keep JPEG files decoded (default: where that is smaller)")
    string(
        "examples",
        None,
        "pictures: how many, or test positions, comma-separated (default: 3; rank: 600)",
    )
    integer("record_every", None, "updates between records of the trajectory (default: 1)")
    integer("distance_every", None, "updates between measurements of the distance (default: 50)")
    integer("distance_examples", None, "test pictures for the distance (default: 200)")
    integer("kernel_every", None, "updates between measurements of the kernel (default: never)")
    integer("kernel_examples", None, "test pictures for the kernel (default: 50)")
    string("precision", None, "of matrix products: float32; tf32 on GPUs; rank: float32 or float64")
    boolean("kernel_regression", None, "also solve the regression with the kernel")
    real("ridge", None, "weight decay of the kernel regression (default: 0)")
    string("from_run", None, "training run whose weights to use (default: the initialization)")
    real("memory_gib", None, "memory for the Gram (default: half of what is free)")
    string("data_dir", None, "where TFDS keeps prepared datasets (default: TFDS' own)")
    string("manual_dir", None, "folder of original data files, for machines without network")
    string("workdir", None, "run directory (default: a readable name under --runs_dir)")
    string("runs_dir", "runs", "parent of the default run directory")
    string("strategy", "one_device", "one_device, or mirrored: each batch split over all GPUs")
    boolean("resume", True, "go on with an unfinished run, keep a finished one")
    real("checkpoint_minutes", 10.0, "between saves within a long epoch; a full disk is waited for")
    integer("profile", None, "write a TensorBoard profile of so many updates")
    boolean("dry_run", False, "validate, show settings and size, and run nothing")
    boolean("prepare_data", False, "download or prepare the data, and run nothing")


@dataclasses.dataclass(frozen=True)
class Command:
    """What a command line asks for.

    Attributes:
        config: the run's settings.
        options: how and where to carry it out.
        widths: several widths to run in place of the one in `config`; empty for one run.
        dry_run: validate and describe, and run nothing.
        prepare_data: see that the data is at hand, and run nothing.
    """

    config: Config
    options: Options
    widths: tuple[int, ...]
    dry_run: bool
    prepare_data: bool


def parse(argv: Sequence[str]) -> Command:
    """Turn a command line into settings.

    Args:
        argv: program name and arguments.

    Returns:
        What it asks for, complete and valid.

    Raises:
        SettingError: for an unknown flag or a bad value.
        SystemExit: after `--help`.
    """
    values = flags.FlagValues()
    define_flags(values)
    _read(values, argv, "main")
    given = {name: values[name].value for name in RULES}
    given["weights"] = _expanded(given["weights"])
    given["examples"] = _numbers(given["examples"])
    config = resolve(**given)
    if config.weights and not pathlib.Path(config.weights).is_file():
        raise SettingError(f"--weights={config.weights}: there is no such file")
    widths = _widths(values, config)
    name = run_name(config)
    if widths:
        name = name.replace(f"_x{config.width}_", f"_x{'-'.join(map(str, widths))}_")
    workdir = values.workdir or str(pathlib.Path(values.runs_dir) / name)
    return Command(config, _options(values, workdir), widths, values.dry_run, values.prepare_data)


def _options(values: flags.FlagValues, workdir: str) -> Options:
    """How and where to run.

    Raises:
        SettingError: for a bad value.
    """
    if not values.checkpoint_minutes > 0:
        raise SettingError(
            f"--checkpoint_minutes={values.checkpoint_minutes}: must be a number above 0"
        )
    if values.memory_gib is not None and not values.memory_gib > 0:
        raise SettingError(f"--memory_gib={values.memory_gib}: must be a number above 0")
    if values.strategy not in choices.STRATEGIES:
        raise SettingError(
            f"--strategy={values.strategy}: must be one of {', '.join(choices.STRATEGIES)};"
            " training over several machines fails with Keras 3 on TensorFlow 2.21"
        )
    experiment = values.experiment or "train"
    if values.profile is not None and (values.profile < 1 or experiment != "train"):
        raise SettingError(
            f"--profile={values.profile}: must be an integer of at least 1, with --experiment=train"
        )
    if values.strategy != "one_device" and experiment != "train":
        raise SettingError(
            f"--strategy={values.strategy}: --experiment={experiment} runs on one_device only"
        )
    return Options(
        workdir=pathlib.Path(workdir).expanduser(),
        data_dir=_expanded(values.data_dir),
        manual_dir=_expanded(values.manual_dir),
        resume="resume" not in values or values.resume,  # a sweep always goes on
        checkpoint_minutes=values.checkpoint_minutes,
        cache_decoded=values.cache_decoded,
        strategy=values.strategy,
        profile=values.profile,
        memory_gib=values.memory_gib,
    )


#: The flags of a sweep that list the values of a setting: setting, how to read one, help.
_LISTS: dict[str, tuple[str, Callable[[str], Any], str]] = {
    "widths": ("width", int, "width factors (default: 1)"),
    "models": ("linearized", {"standard": False, "linearized": True}.__getitem__, "default: both"),
    "losses": ("loss", str, "losses (default: l2)"),
    "learning_rates": ("learning_rate", float, "SGD's step sizes (default: the paper's)"),
    "weight_decays": ("weight_decay", float, "coupled weight decays (default: the paper's)"),
    "seeds": ("seed", int, "initializations and data orders (default: 0)"),
}


def define_sweep_flags(values: flags.FlagValues) -> None:
    """Define every flag of `ntk_tf.sweep`: a run's, with lists for the settings that vary.

    Args:
        values: where to define them.
    """
    define_flags(values)
    for name in ("widths", "workdir", "resume", *grid.AXES):
        delattr(values, name)
    string = functools.partial(flags.DEFINE_string, flag_values=values)
    integer = functools.partial(flags.DEFINE_integer, flag_values=values)
    for name, (_, _, text) in _LISTS.items():
        string(name, None, f"comma-separated: {text}")
    integer("jobs", None, "runs at once (default: one a GPU, or one)")
    flags.DEFINE_boolean(
        "emit_commands", False, "print the runs' command lines, run nothing", flag_values=values
    )
    flags.DEFINE_enum("executor", "local", ("local", "slurm"), "where to run", flag_values=values)
    string("slurm_partition", None, "SLURM: partition (default: the cluster's)")
    integer("slurm_minutes", 24 * 60, "SLURM: time limit of a job; it is requeued when it ends")
    integer("slurm_cpus", 4, "SLURM: CPUs of a job")
    integer("slurm_gpus", 0, "SLURM: GPUs of a job")
    string("slurm_memory", None, "SLURM: memory of a job, such as 16GB (default: the cluster's)")


def parse_sweep(argv: Sequence[str]) -> grid.Sweep:
    """Turn the command line of `ntk_tf.sweep` into the runs that it asks for.

    Args:
        argv: program name and arguments.

    Returns:
        The sweep, each of its runs complete and valid.

    Raises:
        SettingError: for an unknown flag or a bad value.
        SystemExit: after `--help`.
    """
    values = flags.FlagValues()
    define_sweep_flags(values)
    _read(values, argv, "sweep")
    common = {name: values[name].value for name in RULES if name not in grid.AXES}
    common["examples"] = _numbers(common["examples"])
    axes = {setting: _list(values, name) for name, (setting, *_) in _LISTS.items()}
    experiment = common["experiment"] or "train"
    if axes["linearized"] is None and "linearized" in choices.READS[experiment]:
        axes["linearized"] = (False, True)
    for name in ("jobs", "slurm_minutes", "slurm_cpus"):
        if values[name].value is not None and values[name].value < 1:
            raise SettingError(f"--{name}={values[name].value}: must be an integer of at least 1")
    if values.slurm_gpus < 0:
        raise SettingError(f"--slurm_gpus={values.slurm_gpus}: must be an integer of at least 0")
    options = _options(values, values.runs_dir)
    return grid.Sweep(
        runs=grid.combine(common, axes, options),
        runs_dir=options.workdir,
        jobs=values.jobs,
        executor=values.executor,
        slurm={
            "partition": values.slurm_partition,
            "time": values.slurm_minutes,
            "cpus_per_task": values.slurm_cpus,
            "gres": f"gpu:{values.slurm_gpus}" if values.slurm_gpus else None,
            "mem": values.slurm_memory,
        },
        prepare_data=values.prepare_data,
        dry_run=values.dry_run,
        emit_commands=values.emit_commands,
    )


def _list(values: flags.FlagValues, name: str) -> tuple[Any, ...] | None:
    """The values that a comma-separated flag lists; None if it is not given.

    Raises:
        SettingError: for anything but different values that the setting can take.
    """
    setting, convert, _ = _LISTS[name]
    text = values[name].value
    if text is None:
        return None
    allowed = "standard, linearized" if name == "models" else RULES[setting].allowed
    try:
        found = tuple(convert(part.strip()) for part in text.split(","))
        for value in found:
            check(setting, value)
        valid = len(set(found)) == len(found)
    except (KeyError, ValueError):
        valid = False
    if not valid:
        raise SettingError(
            f"--{name}={text}: must be different values separated by commas, each {allowed}"
        )
    return found


def parse_report(argv: Sequence[str]) -> tuple[pathlib.Path, pathlib.Path | None]:
    """Turn the command line of `ntk_tf.report` into folders.

    Args:
        argv: program name and arguments.

    Returns:
        The folder of runs to read, and the one to write to; None for a table on the screen.
    """
    values = flags.FlagValues()
    string = functools.partial(flags.DEFINE_string, flag_values=values)
    string("runs_dir", "runs", "parent of run directories")
    string("output_dir", None, "where tables, figures and a page go (default: only the screen)")
    _read(values, argv, "report")
    output_dir = _expanded(values.output_dir)
    return pathlib.Path(values.runs_dir).expanduser(), output_dir and pathlib.Path(output_dir)


def _read(values: flags.FlagValues, argv: Sequence[str], program: str) -> None:
    """Parse a command line; print help and leave if it asks for that.

    Raises:
        SettingError: for an unknown flag, a bad value or anything that is no flag.
    """
    flags.DEFINE_boolean("help", False, "show this help", short_name="h", flag_values=values)
    try:
        rest = values(list(argv))[1:]
    except (flags.Error, ValueError) as error:
        raise SettingError(_explain(error)) from error
    if values.help:
        print(f"usage: python -m ntk_tf.{program} [flags]\n{values.get_help()}")
        sys.exit(0)
    if rest:
        raise SettingError(f"{rest[0]}: unexpected argument; flags start with --")


def _explain(error: flags.Error) -> str:
    """One line for an error of absl's, naming what is allowed where that is known."""
    message = " ".join(str(error).split())
    found = re.match(r"flag --(\w+)=(.*?): ", message)
    if found and found[1] in RULES:
        return f"--{found[1]}={found[2]}: must be {RULES[found[1]].allowed}"
    return message


def _widths(values: flags.FlagValues, config: Config) -> tuple[int, ...]:
    """The width factors of `--widths`, in the order given.

    Raises:
        SettingError: for anything but different positive integers, or where they make no sense.
    """
    if values.widths is None:
        return ()
    numbers = _numbers(values.widths)
    widths = (numbers,) if isinstance(numbers, int) else numbers
    if isinstance(widths, str) or min(widths) < 1 or len(set(widths)) < len(widths):
        raise SettingError(
            f"--widths={values.widths}: must be different integers of at least 1, comma-separated"
        )
    if config.experiment not in choices.OVER_WIDTHS:
        raise SettingError(
            f"--widths={values.widths}: --experiment={config.experiment} takes one --width; several"
            f" are for {', '.join(choices.OVER_WIDTHS)}"
        )
    if values.width is not None:
        raise SettingError(f"--width={values.width}: must not be given together with --widths")
    return widths


def _numbers(text: str | None) -> int | tuple[int, ...] | str | None:
    """A number, or several separated by commas; text that is neither is left as it is."""
    if text is None or not re.fullmatch(r"-?\d+(,-?\d+)*", text):
        return text
    numbers = tuple(int(part) for part in text.split(","))
    return numbers if len(numbers) > 1 else numbers[0]


def _expanded(path: str | None) -> str | None:
    """A path with its `~` expanded."""
    return None if path is None else str(pathlib.Path(path).expanduser())
