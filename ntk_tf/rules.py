"""What each setting may be, and the error that says so."""

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

from ntk_tf.choices import (
    ARCHS,
    AUGMENTATIONS,
    DATASETS,
    DECAY_TARGETS,
    EXPERIMENTS,
    LOSSES,
    PRECISIONS,
    SNAKE_SYNSETS,
    WEIGHT_FORMATS,
)


class SettingError(ValueError):
    """A setting that cannot be used; the message is one line for the user."""


@dataclasses.dataclass(frozen=True)
class _Rule:
    """What a setting may be: a predicate and its description for the error message."""

    allowed: str
    accepts: Callable[[Any], bool]


def _one_of(names: tuple[str, ...]) -> _Rule:
    return _Rule("one of " + ", ".join(names), lambda value: value in names)


def _snakes(value: Any) -> bool:
    names = value.split(",") if isinstance(value, str) else []
    return 2 <= len(names) == len(set(names)) and set(names) <= set(SNAKE_SYNSETS)


def _integer(minimum: int, maximum: int = 2**31 - 1) -> _Rule:
    """Counts are int32 in TensorFlow's graphs."""
    return _Rule(
        f"an integer of at least {minimum} and at most {maximum}",
        lambda value: (
            isinstance(value, int) and not isinstance(value, bool) and minimum <= value <= maximum
        ),
    )


def _optional(rule: _Rule) -> _Rule:
    return _Rule(rule.allowed, lambda value: value is None or rule.accepts(value))


def _real(allowed: str, accepts: Callable[[float], bool]) -> _Rule:
    return _Rule(
        f"a finite number {allowed}",
        lambda value: isinstance(value, int | float) and math.isfinite(value) and accepts(value),
    )


_TRUE_OR_FALSE = _Rule("true or false", lambda value: isinstance(value, bool))

RULES: dict[str, _Rule] = {
    "experiment": _one_of(EXPERIMENTS),
    "arch": _one_of(ARCHS),
    "width": _integer(1),
    "linearized": _TRUE_OR_FALSE,
    "dataset": _one_of(DATASETS),
    "image_size": _integer(1),
    "padding": _integer(0),
    "train_biases": _TRUE_OR_FALSE,
    "loss": _one_of(LOSSES),
    "epochs": _integer(1),
    "batch_size": _integer(1),
    "learning_rate": _real("above 0", lambda value: value > 0),
    "momentum": _real("of at least 0 and below 1", lambda value: 0 <= value < 1),
    "weight_decay": _real("of at least 0", lambda value: value >= 0),
    "decay_toward": _one_of(DECAY_TARGETS),
    "lr_drop_every": _integer(0),
    "lr_drop_factor": _real("above 0", lambda value: value > 0),
    "max_steps": _optional(_integer(1)),
    "seed": _integer(0, 2**32 - 1),
    "train_examples": _optional(_integer(1)),
    "test_examples": _optional(_integer(1)),
    "augment": _one_of(AUGMENTATIONS),
    "snake_synsets": _Rule(
        "at least two different ones of " + ", ".join(SNAKE_SYNSETS) + ", separated by commas",
        _snakes,
    ),
    "skip_corrupt_images": _TRUE_OR_FALSE,
    "weights": _Rule(
        "a file that ends in " + ", ".join(WEIGHT_FORMATS),
        lambda value: isinstance(value, str) and value.endswith(WEIGHT_FORMATS),
    ),
    "examples": _Rule(
        "an integer of at least 1, or different integers of at least 0 separated by commas",
        lambda value: (
            all(isinstance(i, int) and i >= 0 for i in value) and len(set(value)) == len(value) > 0
            if isinstance(value, tuple)
            else _integer(1).accepts(value)
        ),
    ),
    "record_every": _integer(1),
    "distance_every": _integer(1),
    "distance_examples": _integer(1),
    "kernel_every": _optional(_integer(1)),
    "kernel_examples": _integer(2),
    "precision": _one_of(tuple(dict.fromkeys(itertools.chain(*PRECISIONS.values())))),
    "kernel_regression": _TRUE_OR_FALSE,
    "ridge": _real("of at least 0", lambda value: value >= 0),
    "from_run": _optional(_Rule("a run directory", lambda value: isinstance(value, str))),
}


def check(name: str, value: Any) -> None:
    """Refuse a value that setting `name` cannot take.

    Raises:
        SettingError: naming the flag, its value and what is allowed.
    """
    rule = RULES[name]
    if not rule.accepts(value):
        raise SettingError(f"--{name}={value}: must be {rule.allowed}")
