"""What a finished run leaves in result.json."""

import pathlib
from collections.abc import Mapping
from typing import Any

from ntk_tf.runs.files import RunDirectoryError, read_json

METRICS_COLUMNS = (
    "epoch",
    "step",
    "learning_rate",
    "running_train_loss",
    "running_train_accuracy",
    "test_loss",
    "test_accuracy",
    "seconds",
)


#: The numbers that more than one experiment writes.
NUMBERS = (
    "train_accuracy",
    "test_accuracy",
    "diverged_at_step",
    "diverged_at_learning_rate",
    "epochs",
    "steps",
    "seconds",
)


#: Names of an earlier version, and those of this one.
_RENAMED = {"condition": "condition_of_singular_values"}


def read_result(workdir: pathlib.Path) -> dict[str, Any]:
    """Read a finished run's result.json and see that it is one.

    Returns:
        Its content; those of `NUMBERS` that it lacks are None.

    Raises:
        RunDirectoryError: if the file cannot be read or is no run's result.
    """
    path = workdir / "result.json"
    result = dict.fromkeys(NUMBERS) | renamed(read_json(path))
    if result.get("status") not in ("completed", "diverged"):
        raise RunDirectoryError(f"{path}: its status must be completed or diverged")
    for name in NUMBERS:
        number(result, name, path)
    return result


def renamed(content: dict[str, Any]) -> dict[str, Any]:
    """The content of a file of an earlier version with the names of this one."""
    return {_RENAMED.get(name, name): value for name, value in content.items()}


def number(content: Mapping[str, Any], name: str, path: pathlib.Path) -> float | None:
    """A number of a file that anybody may have edited; None where there is none.

    Args:
        content: of the file.
        name: of the number.
        path: of the file, for the error message.

    Raises:
        RunDirectoryError: if it is no number, or beyond all reason.
    """
    value = content.get(name)
    limit = 1e18 if isinstance(value, int) else 1e300
    if value is not None and not (isinstance(value, int | float) and abs(value) < limit):
        raise RunDirectoryError(f"{path}: its {name} must be a number")
    return value


def is_finished(workdir: pathlib.Path) -> bool:
    """Whether the run directory holds a result."""
    return (workdir / "result.json").exists()
