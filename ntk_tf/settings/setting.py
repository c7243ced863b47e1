"""One declaration of a setting: its default, what it may be, its help, when it is read.

A setting is a field of a frozen dataclass, and thereby a flag: the command line, `--help`,
validation, `config.json`, run names and the table of flags are made from the declarations.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any

_numbers = itertools.count()


class SettingError(ValueError):
    """A setting that cannot be used; the message is one line for the user."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """What a setting may be.

    Attributes:
        allowed: in words, for the error message.
        accepts: tells whether a value is allowed.
        parse: turns the text of a flag into a value.
        placeholder: stands for the value in `--help`.
    """

    allowed: str
    accepts: Callable[[Any], bool]
    parse: Callable[[str], Any] = str
    placeholder: str = "TEXT"


def one_of(*names: str) -> Rule:
    """One of some words."""
    return Rule("one of " + ", ".join(names), lambda value: value in names, str, "|".join(names))


def integer(minimum: int, maximum: int = 2**31 - 1) -> Rule:
    """A whole number; counts are int32 in TensorFlow's graphs."""

    def accepts(value: Any) -> bool:
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole and minimum <= value <= maximum

    allowed = f"an integer of at least {minimum} and at most {maximum}"
    return Rule(allowed, accepts, int, "N")


#: Sizes of numbers that float32 holds in full precision, whose products with a few others it holds.
SMALLEST, LARGEST = 1e-37, 1e38


def real(allowed: str, accepts: Callable[[float], bool]) -> Rule:
    """A finite number that networks can compute with in float32."""

    def accepts_number(value: Any) -> bool:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and (value == 0 or SMALLEST <= abs(value) <= LARGEST) and accepts(value)

    zero = "0 or " * accepts(0)
    sizes = f"of size {zero}{SMALLEST:.0e} to {LARGEST:.0e}".replace("+", "")
    return Rule(f"a finite number {allowed}, {sizes}", accepts_number, float, "X")


ABOVE_0 = real("above 0", lambda value: value > 0)
AT_LEAST_0 = real("of at least 0", lambda value: value >= 0)


def text(allowed: str, accepts: Callable[[str], bool] = bool, placeholder: str = "TEXT") -> Rule:
    """Words of some form."""
    return Rule(allowed, lambda value: isinstance(value, str) and accepts(value), str, placeholder)


def positions() -> Rule:
    """How many, or a tuple of different positions."""
    count, chosen = integer(1), several(integer(0))

    def accepts(value: Any) -> bool:
        return (chosen if isinstance(value, tuple) else count).accepts(value)

    def parse(given: str) -> int | tuple[int, ...]:
        numbers = chosen.parse(given)
        return numbers if len(numbers) > 1 else numbers[0]

    allowed = "an integer of at least 1, or different integers of at least 0 separated by commas"
    return Rule(allowed, accepts, parse, "N[,N...]")


def several(rule: Rule, different: bool = True) -> Rule:
    """A tuple of values, different ones if it is said."""

    def accepts(value: Any) -> bool:
        each = isinstance(value, tuple) and bool(value) and all(map(rule.accepts, value))
        return each and (not different or len(set(value)) == len(value))

    def parse(given: str) -> tuple[Any, ...]:
        return tuple(rule.parse(part) for part in given.split(","))

    allowed = f"{'different ' * different}values separated by commas, each {rule.allowed}"
    return Rule(allowed, accepts, parse, f"{rule.placeholder}[,{rule.placeholder}...]")


def optional(rule: Rule) -> Rule:
    """The same, or None for a setting that is off by default."""
    return dataclasses.replace(rule, accepts=lambda value: value is None or rule.accepts(value))


TRUE_OR_FALSE = Rule("true or false", lambda value: isinstance(value, bool), placeholder="")


@dataclasses.dataclass(frozen=True)
class Condition:
    """When a setting is read.

    Attributes:
        flags: what a user must say, for the error message.
        holds: tells it from a configuration.
    """

    flags: str
    holds: Callable[[Any], bool]


@dataclasses.dataclass(frozen=True)
class Declaration:
    """All that is said of a setting.

    Attributes:
        default: the value, or a function of the configuration for one that depends on others.
        rule: what it may be.
        help: for `--help` and docs/flags.md, the default's description included where it depends.
        when: the setting is read only then; None for always.
        since: the first version that has it; a `config.json` without it stands for the default.
        plural: the flag of a sweep that lists several values; None where it takes one.
        words: names of the values in such a list; empty where they are parsed by the rule.
        named: whether it appears in a run's name where it is not the default.
        number: place in the order of all declarations.
    """

    default: Any
    rule: Rule
    help: str
    when: Condition | None = None
    since: str = "0.1"
    plural: str | None = None
    words: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    named: bool = True
    number: int = dataclasses.field(default_factory=_numbers.__next__)

    def read_by(self, config: Any) -> bool:
        """Whether a configuration that has the setting reads it."""
        return self.when is None or self.when.holds(config)

    def check_read(self, name: str, value: Any, config: Any) -> None:
        """Refuse a value where a configuration does not read the setting.

        Raises:
            SettingError: naming the flag, its value and with what it is read.
        """
        if self.when is not None and not self.when.holds(config):
            raise SettingError(f"--{name}={shown(value)}: read only with {self.when.flags}")

    def default_for(self, config: Any) -> Any:
        """The default value beside a configuration's other values."""
        return self.default(config) if callable(self.default) else self.default

    def check(self, name: str, value: Any) -> None:
        """Refuse a value that the setting cannot take.

        Raises:
            SettingError: naming the flag, its value and what is allowed.
        """
        if not self.rule.accepts(value):
            raise SettingError(f"--{name}={shown(value)}: must be {self.rule.allowed}")


def setting(default: Any, rule: Rule, help: str, **more: Any) -> Any:
    """Declare a setting: the right-hand side of a dataclass' field; see `Declaration`.

    A field whose default depends on others has none of its own.
    """
    own = dataclasses.MISSING if callable(default) else default
    return dataclasses.field(
        default=own, metadata={"setting": Declaration(default, rule, help, **more)}
    )


def declarations(owner: Any) -> dict[str, Declaration]:
    """The settings of a dataclass or of one of its objects by name, in the order of declaration."""
    found = {
        field.name: field.metadata["setting"]
        for field in dataclasses.fields(owner)
        if "setting" in field.metadata
    }
    return dict(sorted(found.items(), key=lambda item: item[1].number))


def shown(value: Any) -> str:
    """A value as the command line has it."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
