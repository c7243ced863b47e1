"""Keyword arguments of an architecture's function, and what to say where something is wrong."""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any


class ArchitectureError(ValueError):
    """A network that cannot be built as asked; the message is one line and names the argument."""


def named(function: Callable, besides: Iterable[str] = ()) -> list[str]:
    """Names of a function's keyword arguments.

    Args:
        function: or a class, whose constructor is meant.
        besides: names that are left out.
    """
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(function).parameters.items()
    return [name for name, one in parameters if one.kind in kinds and name not in besides]


def keyword_only(function: Callable) -> list[str]:
    """Names of the arguments that a function takes by keyword only."""
    parameters = inspect.signature(function).parameters.items()
    return [name for name, one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY]


def takes_any(function: Callable) -> bool:
    """Whether a function takes keyword arguments of any name."""
    kinds = [one.kind for one in inspect.signature(function).parameters.values()]
    return inspect.Parameter.VAR_KEYWORD in kinds


def check(arch: str, arguments: Mapping[str, Any], allowed: Iterable[str]) -> None:
    """Check that an architecture takes some arguments.

    Args:
        arch: its name.
        arguments: by name.
        allowed: names of those that it takes.

    Raises:
        ArchitectureError: if there is another.
    """
    allowed = list(allowed)
    for name in arguments:
        if name not in allowed:
            takes = ", ".join(allowed) or "no arguments"
            raise ArchitectureError(
                f"{name}={arguments[name]!r}: the architecture {arch} takes {takes}"
            )


def one_line(error: BaseException) -> str:
    """An exception's type and message in one line, without terminal colors, shortened."""
    text = " ".join(re.sub(r"\x1b\[[\d;]*m", "", str(error)).split())
    text = text if len(text) <= 300 else text[:297] + "..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
