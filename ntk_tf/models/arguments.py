"""Keyword arguments of an architecture's function, and what to say where something is wrong."""

import functools
import importlib
import inspect
import math
import numbers
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ntk_tf.catalogue import architectures
from ntk_tf.settings.setting import TRUE_OR_FALSE, Rule, optional


class UnknownActivationError(Exception):
    """An activation that a set of layers without Keras cannot tell to be one of Keras'."""


class ArchitectureError(ValueError):
    """A network that cannot be built as asked; the message is one line and names the argument."""


def _is_number(value: Any, kind: type) -> bool:
    """Whether it is a number of a kind, NumPy's included; bool is none."""
    return isinstance(value, kind) and not isinstance(value, bool)


_FINITE = Rule("a finite number", lambda v: _is_number(v, numbers.Real) and math.isfinite(v))
#: What an argument may be, by its annotation; whole numbers are numbers of something.
_RULES: dict[Any, Rule] = {
    int: Rule("a whole number of at least 1", lambda v: _is_number(v, numbers.Integral) and v >= 1),
    float: _FINITE,
    float | None: optional(_FINITE),
    bool: TRUE_OR_FALSE,
}


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


def _plain(value: Any) -> Any:
    """A number of Python's for one of NumPy's, which Keras does not take for a size."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else value


def _check_values(taker: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    """Check arguments against the rules of their annotations.

    Raises:
        ArchitectureError: for the first that is wrong.
    """
    for name, parameter in inspect.signature(taker).parameters.items():
        rule = _RULES.get(parameter.annotation)
        if rule and name in arguments and not rule.accepts(arguments[name]):
            raise ArchitectureError(f"{name}={arguments[name]!r}: must be {rule.allowed}")


def resolve(
    arch: str, layers: Callable[..., Any], arguments: Mapping[str, Any]
) -> tuple[dict[str, Any], Callable[..., Any]]:
    """Divide arguments between an architecture and its set of layers.

    What the set takes by keyword only, such as sigma_w, and the arguments do not name, is in the
    architecture's row of the catalogue.

    Args:
        arch: a key of `catalogue.architectures.ARCHITECTURES`.
        layers: makes the set; see `models.standard`.
        arguments: of the architecture and of the set, by name.

    Returns:
        Keyword arguments for the set's constructor, and what maps a set, inputs and a number of
        classes to outputs.

    Raises:
        ValueError: for an unknown architecture.
        ArchitectureError: for an argument that neither takes, or of a value that it cannot have.
    """
    if arch not in architectures.ARCHITECTURES:
        names = ", ".join(architectures.ARCHITECTURES)
        raise ValueError(f"arch={arch!r}: must be one of {names}")
    row = architectures.ARCHITECTURES[arch]
    module, _, name = row.function.partition(":")
    function = getattr(importlib.import_module(module), name)
    its, sets = keyword_only(function), keyword_only(layers)
    settings = {"gain", "output_factor"} - arguments.keys()  # not for arch_args to say
    check(arch, arguments, [name for name in its + sets if name not in settings])
    arguments = {argument: _plain(value) for argument, value in arguments.items()}
    for taker in (function, layers):
        _check_values(taker, arguments)
    for_set = {name: arguments.get(name, getattr(row, name)) for name in sets}
    return for_set, functools.partial(function, **{k: arguments[k] for k in its if k in arguments})


def apply(
    arch: str,
    layers: Callable[..., Any],
    inputs: Any,
    input_shape: tuple[int, ...],
    num_classes: int,
    arguments: Mapping[str, Any],
) -> Any:
    """The outputs of an architecture in a set of layers.

    Args:
        arch: a key of `catalogue.architectures.ARCHITECTURES`.
        layers: makes the set, of keyword arguments.
        inputs: what flows into the set's first layer.
        input_shape: (height, width, channels) of a picture, or (d,) of a vector.
        num_classes: L.
        arguments: see `resolve`.

    Raises:
        ValueError: for an unknown architecture.
        ArchitectureError: for an argument that nothing takes, or where it cannot be built.
    """
    for_set, function = resolve(arch, layers, arguments)
    if len(input_shape) != 3 and not architectures.ARCHITECTURES[arch].takes_vectors:
        raise ArchitectureError(
            f"arch={arch!r}: takes pictures (height, width, channels), not {input_shape}"
        )
    try:
        return function(layers(**for_set), inputs, num_classes)
    except (TypeError, ValueError) as error:  # for too small a picture among others
        row = architectures.ARCHITECTURES[arch]
        changed = {k: v for k, v in arguments.items() if v != getattr(row, k, None)}
        given = [f"{name}={value!r}" for name, value in changed.items()]
        raise ArchitectureError(
            f"arch={arch!r}: cannot be built for input_shape={input_shape}"
            f"{' with ' * bool(given)}{', '.join(given)} ({one_line(error)})"
        ) from error


def one_line(error: BaseException) -> str:
    """An exception's type and message in one line, without terminal colors, shortened."""
    text = " ".join(re.sub(r"\x1b\[[\d;]*m", "", str(error)).split())
    text = text if len(text) <= 300 else text[:297] + "..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
