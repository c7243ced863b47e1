"""The command line: the only place that defines flags, and turns them into settings."""

import functools
import pathlib
import re
import sys
from collections.abc import Sequence

from absl import flags

from ntk_tf import config as settings
from ntk_tf.config import Config, Options, SettingError

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

    choice("experiment", None, settings.EXPERIMENTS, "what to run (default: train)")
    choice("arch", None, settings.ARCHS, "architecture (default: lenet)")
    integer("width", None, "width factor: multiplies channels and hidden units (default: 1)")
    boolean("linearized", None, "train the linearization in place of the network")
    choice("dataset", None, settings.DATASETS, "pictures (default: the paper's for the arch)")
    integer("image_size", None, "pictures are resized to this side (default: the arch's)")
    integer("padding", None, "pixels of black border added on each side (default: 0)")
    choice("loss", None, settings.LOSSES, "l2 is the mean over batch and outputs (default: l2)")
    integer("epochs", None, f"passes over the training set ({_PAPER})")
    integer("batch_size", None, f"pictures an update ({_PAPER})")
    real("learning_rate", None, f"SGD's step size ({_PAPER})")
    real("momentum", None, f"SGD's momentum ({_PAPER})")
    real("weight_decay", None, f"coupled weight decay, on u if linearized ({_PAPER})")
    integer("lr_drop_every", None, f"epochs between drops, 0 for constant ({_PAPER})")
    real("lr_drop_factor", None, f"a drop divides the learning rate by this ({_PAPER})")
    integer("max_steps", None, "stop after so many updates (default: all epochs)")
    integer("seed", None, "fixes initialization and data order (default: 0)")
    integer("train_examples", None, "use only the first so many training pictures")
    integer("test_examples", None, "use only the first so many test pictures")
    choice("augment", None, settings.AUGMENTATIONS, "of training pictures (default: none)")
    string("snake_synsets", None, "classes, comma-separated (default: first ten of 1,300 pictures)")
    boolean("skip_corrupt_images", None, "prepare imagenet_snakes without undecodable pictures")
    string("weights", None, "network trained on ImageNet: .pth, .safetensors or .npz")
    boolean("cache_decoded", None, "keep JPEG files decoded (default: where that is smaller)")
    string("data_dir", None, "where TFDS keeps prepared datasets (default: TFDS' own)")
    string("manual_dir", None, "folder of original data files, for machines without network")
    string("workdir", None, "run directory (default: a readable name under --runs_dir)")
    string("runs_dir", "runs", "parent of the default run directory")
    boolean("resume", True, "go on with an unfinished run, keep a finished one")
    real("checkpoint_minutes", 10.0, "save within an epoch so often")
    boolean("dry_run", False, "validate, show settings and size, and run nothing")
    boolean("help", False, "show this help", short_name="h")


def parse(argv: Sequence[str]) -> tuple[Config, Options, bool]:
    """Turn a command line into settings.

    Args:
        argv: program name and arguments.

    Returns:
        The run's settings, how to carry it out, and whether it is a dry run.

    Raises:
        SettingError: for an unknown flag or a bad value.
        SystemExit: after `--help`.
    """
    values = flags.FlagValues()
    define_flags(values)
    try:
        rest = values(list(argv))[1:]
    except (flags.Error, ValueError) as error:
        raise SettingError(_explain(error)) from error
    if values.help:
        print(f"usage: python -m ntk_tf.main [flags]\n{values.get_help()}")
        sys.exit(0)
    if rest:
        raise SettingError(f"{rest[0]}: unexpected argument; flags start with --")
    given = {name: values[name].value for name in settings.RULES}
    given["weights"] = _expanded(given["weights"])
    config = settings.resolve(**given)
    if config.weights and not pathlib.Path(config.weights).is_file():
        raise SettingError(f"--weights={config.weights}: there is no such file")
    if not values.checkpoint_minutes > 0:
        raise SettingError(
            f"--checkpoint_minutes={values.checkpoint_minutes}: must be a number above 0"
        )
    workdir = values.workdir or str(pathlib.Path(values.runs_dir) / settings.run_name(config))
    options = Options(
        workdir=pathlib.Path(workdir).expanduser(),
        data_dir=_expanded(values.data_dir),
        manual_dir=_expanded(values.manual_dir),
        resume=values.resume,
        checkpoint_minutes=values.checkpoint_minutes,
        cache_decoded=values.cache_decoded,
    )
    return config, options, values.dry_run


def _explain(error: flags.Error) -> str:
    """One line for an error of absl's, naming what is allowed where that is known."""
    message = " ".join(str(error).split())
    found = re.match(r"flag --(\w+)=(.*?): ", message)
    if found and found[1] in settings.RULES:
        return f"--{found[1]}={found[2]}: must be {settings.RULES[found[1]].allowed}"
    return message


def _expanded(path: str | None) -> str | None:
    """A path with its `~` expanded."""
    return None if path is None else str(pathlib.Path(path).expanduser())
