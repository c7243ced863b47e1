"""The command line: flags made from the declarations of the settings, and settings from flags."""

import dataclasses
import difflib
import functools
import pathlib
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from ntk_tf import __version__, data
from ntk_tf.experiments import EXPERIMENTS
from ntk_tf.experiments.resolving import all_declarations, readers, resolve
from ntk_tf.process.paths import expanded
from ntk_tf.settings import Config, Options, SettingError, check_for, fingerprint, options, run_name
from ntk_tf.settings.cluster import Cluster
from ntk_tf.settings.setting import Declaration, declarations
from ntk_tf.sweeps import grid

#: Experiments that draw several widths in one figure.
_DRAWN = ", ".join(name for name, experiment in EXPERIMENTS.items() if experiment.figure)
#: Flags that set no setting: name, placeholder or "" for on and off, help.
_MAIN = {
    "workdir": ("DIR", "run directory (default: a readable name under --runs_dir)"),
    "runs_dir": ("DIR", "parent of the default run directory (default: runs)"),
    "widths": ("N,N...", f"several width factors: one run each, and one figure [{_DRAWN}]"),
    "fingerprint": ("TEXT", "of your network's code and your data, refused if they have another"),
    "dry_run": ("", "validate, show settings, size and time, and run nothing"),
    "prepare_data": ("", "download or prepare the data, and run nothing"),
}
_SWEEP = {
    "runs_dir": ("DIR", "parent of the run directories (default: runs)"),
    "jobs": ("N", "runs at once (default: one a GPU, or one; of SLURM, 256)"),
    "dry_run": ("", "list the runs with their size and time, and run nothing"),
    "prepare_data": ("", "download or prepare the data, and run nothing"),
    "emit_commands": ("", "print the runs' command lines, and run nothing"),
}
_REPORT = {
    "runs_dir": ("DIR", "parent of run directories (default: runs)"),
    "output_dir": ("DIR", "where tables, figures and a page go (default: only the screen)"),
}
_OWN = {"main": _MAIN, "sweep": _SWEEP, "report": _REPORT}
#: Examples at the top of each program's help.
_EXAMPLES = {
    "main": (
        "  python -m ntk_tf.main --arch=lenet --width=60 --linearized",
        "  python -m ntk_tf.main --experiment=trajectory --widths=1,3,10 --max_steps=300",
        "  python -m ntk_tf.main --arch=mynet:build --dataset=pictures/ --linearized",
    ),
    "sweep": ("  python -m ntk_tf.sweep --flagfile=flags/smoke.flags --jobs=2",),
    "report": ("  python -m ntk_tf.report --runs_dir=runs --output_dir=report",),
}
#: What a condition begins with that asks for an experiment.
_EXPERIMENT = "--experiment="
_PACKAGE = pathlib.Path(__file__).parent
#: Headings of flags.
_THIS, _EVERY, _HOW = "this command", "settings of every experiment", "how and where to run"
_SECTIONS = (_THIS, _EVERY, *(f"--experiment={name}" for name in EXPERIMENTS), _HOW)
#: What people call a flag that has another name here.
_MEANT = {
    "lr": "learning_rate",
    "lrs": "learning_rates",
    "wd": "weight_decay",
    "bs": "batch_size",
    "batch": "batch_size",
    "batchsize": "batch_size",
    "model": "arch",
    "architecture": "arch",
    "network": "arch",
    "k": "width",
    "data": "dataset",
    "num_epochs": "epochs",
    "steps": "max_steps",
    "random_seed": "seed",
    "output": "output_dir",
    "out": "output_dir",
    "logdir": "workdir",
    "kernel_size": "arch_args=kernel_size",
}


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


class _Line:
    """A parsed command line.

    Args:
        argv: program name and arguments.
        program: for the help.
        settings: declarations of settings that are flags.
        others: the other flags.
    """

    def __init__(
        self,
        argv: Sequence[str],
        program: str,
        settings: Mapping[str, Declaration],
        others: Mapping[str, tuple[str, str]],
    ):
        self.settings = settings
        self.known = {n: (d.rule.placeholder, help_of(n, d)) for n, d in settings.items()}
        self.known |= dict(others)
        self.known |= {"help": ("", "show this help"), "version": ("", "show the version")}
        self.values = flags.FlagValues()
        for name, (placeholder, text) in self.known.items():
            define = flags.DEFINE_string if placeholder else flags.DEFINE_boolean
            define(name, None, text, flag_values=self.values)
        self._parse(argv, program)

    def _parse(self, argv: Sequence[str], program: str) -> None:
        """Read the flags; print help or the version and leave if they ask for that.

        Raises:
            SettingError: for an unknown flag, a bad value or anything that is no flag.
        """
        argv = [_with_own_flagfile("--help" if a == "-h" else a) for a in argv]
        try:
            rest = self.values(argv)[1:]
        except flags.UnrecognizedFlagError as error:
            raise SettingError(self._unknown(error.flagname, program)) from error
        except (flags.Error, ValueError) as error:
            raise SettingError(_explain(error)) from error
        if self.values["help"].value:
            print(_usage(program, self.known))
            sys.exit(0)
        if self.values["version"].value:
            print(f"ntk_tf {__version__}")
            sys.exit(0)
        for name in self.known:
            value = str(self.text(name))
            if value.startswith("~") and str(expanded(value)).startswith("~"):
                raise SettingError(f"--{name}={value}: there is no such home directory")
            if value != value.encode(errors="ignore").decode():
                raise SettingError(f"--{name}={ascii(value)}: must be text in UTF-8")
        if rest:
            other = rest[0] in _EXAMPLES
            meant = f"python -m ntk_tf.{rest[0]} is a program" if other else "flags start with --"
            raise SettingError(f"{rest[0]}: unexpected argument; {meant}")

    def _unknown(self, given: str, program: str) -> str:
        """One line for a flag that the program does not have, and which one may be meant."""
        name = given.replace("-", "_").lower()
        name = _MEANT.get(name, name)
        declared = all_declarations()
        singular = {d.plural: n for n, d in declared.items() if d.plural}
        if name in singular and program == "main":
            several = f"; several: python -m ntk_tf.sweep --{name}"
            return f"--{given}: a run takes one --{singular[name]}{several}"
        if program == "sweep" and name in declared:
            plural = declared[name].plural
            return f"--{given}: a sweep takes several values: --{plural}={_listed(declared[name])}"
        found = [name] if name.partition("=")[0] in self.known else []
        found = found or difflib.get_close_matches(name, self.known, 1, 0.75)
        meant = f"did you mean --{found[0]}?" if found else f"see python -m ntk_tf.{program} --help"
        return f"--{given}: there is no such flag; {meant}"

    def text(self, name: str) -> Any:
        """A flag as it is given; None if it is not."""
        return self.values[name].value

    def given(self, names: Sequence[str]) -> dict[str, Any]:
        """The settings that are given, parsed and checked as the experiment has them."""
        experiment = EXPERIMENTS.get(self.text("experiment") or "train")
        own = declarations(experiment.settings) if experiment else {}
        return {
            name: _parsed(name, self.text(name), own.get(name, self.settings[name]))
            for name in names
            if self.text(name) is not None
        }


def _with_own_flagfile(argument: str) -> str:
    """An argument; a flagfile that is not there is looked for among those of the package.

    Raises:
        SettingError: if it is not among them either.
    """
    name = argument.partition("=")[2]
    if not re.match("--?flagfile=", argument) or expanded(name).is_file():
        return argument
    for folder in (_PACKAGE / "flags", _PACKAGE.parent / "flags"):  # installed, or a checkout
        found = folder / pathlib.Path(name).name
        if found.is_file():
            return f"--flagfile={found}"
        if folder.is_dir():
            known = ", ".join(sorted(path.name for path in folder.glob("*.flags")))
            raise SettingError(f"{argument}: there is no such file; of the package's own: {known}")
    raise SettingError(f"{argument}: there is no such file")


def _listed(declaration: Declaration) -> str:
    """What a sweep's list of a setting's values looks like."""
    return ",".join(declaration.words) or "A,B..."


def _explain(error: Exception) -> str:
    """One line for an error of absl's."""
    message = " ".join(str(error).split())
    found = re.match(r"flag (--\w+=.*?): .*Non-boolean", message)
    return f"{found[1]}: must be true or false" if found else message


def _usage(program: str, known: Mapping[str, tuple[str, str]]) -> str:
    """The help of a program: examples, then every flag, by what reads it."""
    parts = [f"usage: python -m ntk_tf.{program} [flags]", "", *_EXAMPLES[program]]
    known = {**known, "flagfile": ("FILE", "read flags from a file, or from one of the package's")}
    sections: dict[str, list[str]] = {title: [] for title in _SECTIONS}
    for name, (placeholder, text) in known.items():
        title = _THIS if name in _OWN[program] else _section(name)
        sections[title] += _flag_help(name, placeholder, text, switch=title != _THIS)
    for title, lines in sections.items():
        parts += ["", f"{title}:", *lines] if lines else []
    return "\n".join(parts)


def _section(name: str) -> str:
    """The heading of a flag: of the experiments that read it the first, where not all do."""
    declared = all_declarations()
    singular = {d.plural: n for n, d in declared.items() if d.plural}
    setting = name if name in declared else singular.get(name)
    if setting is None:
        return _HOW if name in declarations(Options) else _THIS
    found = readers(setting)
    return _EVERY if len(found) == len(EXPERIMENTS) else f"--experiment={found[0]}"


def _flag_help(name: str, placeholder: str, text: str, switch: bool) -> list[str]:
    """A flag and what it is; a switch without a value can also be off."""
    form = f"--{name}={placeholder}" if placeholder else f"--{'[no]' * switch}{name}"
    wrapped = textwrap.wrap(text, 78, initial_indent=" " * 8, subsequent_indent=" " * 8)
    return [f"  {form}", *wrapped]


def help_of(name: str, declaration: Declaration) -> str:
    """The help of a setting, and which experiments read it so if not all do."""
    if name == "experiment":
        return f"what to run: one of {', '.join(EXPERIMENTS)} (default: train)"
    texts: dict[str, list[str]] = {}
    for experiment in EXPERIMENTS.values():
        if (own := declarations(experiment.settings).get(name)) is not None:
            texts.setdefault(own.help, []).append(experiment.name)
    if not texts and declaration.when and declaration.when.flags.startswith(_EXPERIMENT):
        said, _, sweeps = declaration.when.flags.removeprefix(_EXPERIMENT).partition(";")
        return f"{declaration.help} [{said}{', sweeps' * bool(sweeps)}]"
    if not texts or list(map(len, texts.values())) == [len(EXPERIMENTS)]:
        return declaration.help
    return "; ".join(f"{text} [{', '.join(found)}]" for text, found in texts.items())


def _several(name: str, declaration: Declaration) -> str:
    """The help of the flag of a sweep that lists several values of a setting."""
    if declaration.words:
        return f"any of {', '.join(declaration.words)} (default: all of them)"
    return f"several values: {help_of(name, declaration)}"


def _parsed(name: str, given: Any, declaration: Declaration) -> Any:
    """The value of a flag's text.

    Raises:
        SettingError: if it is not what is allowed.
    """
    if isinstance(given, bool):
        return given
    try:
        value = _as_meant(declaration.rule.parse(given), declaration)
    except ValueError:
        value = None
    if value is None or not declaration.rule.accepts(value):
        raise SettingError(f"--{name}={given}: must be {declaration.rule.allowed}")
    return value


def _as_meant(value: Any, declaration: Declaration) -> Any:
    """A word as it is spelt here, where it is only spelt otherwise: `LeNet`, `CIFAR-10`."""
    if not isinstance(value, str) or not re.fullmatch(r"[\w-]+", value):
        return value
    small = value.lower()
    spellings = (value, small, small.replace("-", ""), small.replace("-", "_"))
    return next(filter(declaration.rule.accepts, spellings), value)


def parse(argv: Sequence[str]) -> Command:
    """Turn the command line of `ntk_tf.main` into settings.

    Args:
        argv: program name and arguments.

    Returns:
        What it asks for, complete and valid.

    Raises:
        SettingError: for an unknown flag or a bad value.
        DataError: if the user's own data cannot be had.
        SystemExit: after `--help`.
    """
    settings, how = all_declarations(), declarations(Options)
    line = _Line(argv, "main", settings | how, _MAIN)
    config = resolve(_cards(line), **line.given(tuple(settings)))
    _check_fingerprint(line.text("fingerprint"), config)
    widths = _widths(line, config)
    shown = {"width": "-".join(map(str, widths))} if widths else {}
    runs_dir = pathlib.Path(line.text("runs_dir") or "runs")
    workdir = line.text("workdir") or runs_dir / run_name(config, **shown)
    chosen = options(workdir, **line.given(tuple(how)))
    check_for(config, chosen)
    return Command(
        config, chosen, widths, bool(line.text("dry_run")), bool(line.text("prepare_data"))
    )


def _check_fingerprint(expected: str | None, config: Config) -> None:
    """Refuse to run under the name of a network or data that has been changed meanwhile.

    Raises:
        SettingError: if it has.
    """
    found = fingerprint(config)
    if expected is not None and expected != found:
        raise SettingError(
            f"--fingerprint={expected}: the network's code or the data has been changed since, and"
            f" has {found or 'none'} now; start the sweep again, or leave the flag out"
        )


def _cards(line: _Line):
    """What looks at the user's data where the command line says it is, once for each name."""
    return functools.cache(lambda name: data.card(name, line.text("data_dir")))


def _widths(line: _Line, config: Config) -> tuple[int, ...]:
    """The width factors of `--widths`, in the order given.

    Raises:
        SettingError: for anything but different positive integers, or where they make no sense.
    """
    text = line.text("widths")
    if text is None:
        return ()
    if not EXPERIMENTS[config.experiment].figure:
        raise SettingError(
            f"--widths={text}: --experiment={config.experiment} takes one --width; several are for"
            f" {_DRAWN}, and for python -m ntk_tf.sweep --widths={text}"
        )
    if line.text("width") is not None:
        raise SettingError(
            f"--width={line.text('width')}: must not be given together with --widths"
        )
    return _list("widths", text, all_declarations()["width"])


def _list(name: str, text: str, declaration: Declaration) -> tuple[Any, ...]:
    """The values that a comma-separated flag lists.

    Raises:
        SettingError: for anything but different values that the setting can take.
    """
    words, rule = declaration.words, declaration.rule
    try:
        parts = [part.strip() for part in text.split(",")]
        found = tuple(
            words[part] if words else _as_meant(rule.parse(part), declaration) for part in parts
        )
        valid = all(map(rule.accepts, found)) and len(set(found)) == len(found)
    except (KeyError, ValueError):
        valid = False
    if not valid:
        allowed = ", ".join(words) or rule.allowed
        raise SettingError(
            f"--{name}={text}: must be different values separated by commas, each {allowed}"
        )
    return found


def parse_sweep(argv: Sequence[str]) -> grid.Sweep:
    """Turn the command line of `ntk_tf.sweep` into the runs that it asks for.

    Args:
        argv: program name and arguments.

    Returns:
        The sweep, each of its runs complete and valid.

    Raises:
        SettingError: for an unknown flag or a bad value.
        DataError: if the user's own data cannot be had.
        SystemExit: after `--help`.
    """
    settings = all_declarations()
    axes = {name: d.plural for name, d in settings.items() if d.plural}
    lists = axes.values()
    common = {name: d for name, d in settings.items() if name not in axes and name not in lists}
    cluster = declarations(Cluster)
    own = ("resume", "jobs", *cluster)  # of a single run
    how = {name: d for name, d in declarations(Options).items() if name not in own}
    several = {p: (_listed(settings[n]), _several(n, settings[n])) for n, p in axes.items()}
    line = _Line(argv, "sweep", common | how | cluster, _SWEEP | several)
    values = {
        name: _list(plural, line.text(plural), settings[name])
        for name, plural in axes.items()
        if line.text(plural) is not None
    }
    given = line.given(tuple(common))
    jobs = line.text("jobs")
    experiment = EXPERIMENTS.get(given.get("experiment", "train"))
    if experiment and "linearized" in declarations(experiment.settings):
        values.setdefault("linearized", (False, True))
    chosen = options(line.text("runs_dir") or "runs", **line.given(tuple(how)))
    runs = grid.combine(given, values, chosen, _cards(line))
    check_for(runs[0].config, chosen)
    where = Cluster(**line.given(tuple(cluster)))
    return grid.Sweep(
        runs=runs,
        runs_dir=chosen.workdir,
        jobs=jobs and _parsed("jobs", jobs, declarations(Options)["jobs"]),
        executor=where.executor,
        slurm=where.asked(cpus=4),
        prepare_data=bool(line.text("prepare_data")),
        dry_run=bool(line.text("dry_run")),
        emit_commands=bool(line.text("emit_commands")),
    )


def parse_report(argv: Sequence[str]) -> tuple[pathlib.Path, pathlib.Path | None]:
    """Turn the command line of `ntk_tf.report` into folders.

    Args:
        argv: program name and arguments.

    Returns:
        The folder of runs to read, and the one to write to; None for a table on the screen.
    """
    line = _Line(argv, "report", {}, _REPORT)
    runs_dir = expanded(line.text("runs_dir") or "runs")
    output_dir = line.text("output_dir")
    return runs_dir, expanded(output_dir) if output_dir else None


def in_flags(error: Exception | str) -> str:
    """One line for an error, whose arguments are written as the flags that they are.

    `name=value` becomes `--name=value`, and a name of several words, as `manual_dir`, its flag.
    """
    known = {*all_declarations(), *declarations(Options), *_MAIN, *_SWEEP, *_REPORT}
    phrases = "|".join(sorted(name for name in known if "_" in name))
    words = "|".join(sorted(known))
    form = rf"(?<![\w/.=-])(?:({phrases})(?![\w/.]| is )|({words})(?==))"
    return re.sub(form, lambda found: f"--{found[0]}", " ".join(str(error).split()))
