"""Regression with a network's kernel, before and after training, beside the network itself.

How much of what a network learns its kernel knows: the labels are regressed on the kernel alone,
f(x') = Theta(x', x) alpha, without the network's outputs (as Long 2021, "Properties of the after
kernel", does with a support vector machine).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from rich.table import Table

from ntk_tf import ntk
from ntk_tf.linearization import Jacobian, map_batches
from ntk_tf.linearization.operator import batch_ranges
from ntk_tf.ntk.leave_one_out import leave_one_out
from ntk_tf.ntk.regression import Regression, accuracy

#: Test pictures whose kernel with the training pictures is held at one time.
_TEST_ROWS = 1000


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """Pictures and labels to learn and to predict, and with which kernel.

    Attributes:
        x: n training pictures.
        labels: theirs.
        targets: of the outputs, `[n, L]`.
        test: m test pictures.
        test_labels: theirs.
        outputs: what is kept of the kernel; see `ntk.gram`.
        precision: see `ntk.gram`.
        memory_gib: see `ntk.gram`.
    """

    x: np.ndarray
    labels: np.ndarray
    targets: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray
    outputs: str | int
    precision: str
    memory_gib: float

    def predict(self, model: keras.Model, duals: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Theta(x', x) alpha `[m, L]` at the test pictures, for several alpha `[n, L]`."""
        if self.outputs == "full":  # the kernel of m x n pictures would be L^2 times as large
            return [_along(model, self, dual.astype(self.precision)) for dual in duals]
        kernel = ntk.GramFunction(model, self.precision, self.outputs)
        blocks = []
        for some in batch_ranges(len(self.test), _TEST_ROWS):
            cross = np.asarray(kernel(self.test[some], self.x, memory_gib=self.memory_gib))
            blocks.append([cross @ dual for dual in duals])
        return [np.concatenate(parts) for parts in zip(*blocks, strict=True)]

    def accuracies(self, fitted: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
        """How often the largest output is the label's, of outputs `[n, L]` and `[m, L]`."""
        return {
            "train_accuracy": accuracy(fitted, self.labels),
            "test_accuracy": accuracy(predicted, self.test_labels),
        }


def _along(model: keras.Model, problem: Problem, dual: np.ndarray) -> np.ndarray:
    """J' u at the test pictures, for u = J^T alpha."""
    jacobian = Jacobian(model)
    u = jacobian.vjp_in_batches(problem.x, dual)
    return map_batches(lambda part: jacobian.jvp(part, u)[1], problem.test)


@dataclasses.dataclass(frozen=True, eq=False)
class Fits:
    """Regressions of the targets on a kernel.

    Attributes:
        plain: without a ridge.
        best: with that which is best for examples left out.
        ridge: the latter's; see `ntk.kernel_regression`.
        error: mean squared error of the left-out.
    """

    plain: Regression
    best: Regression
    ridge: float
    error: float

    @property
    def duals(self) -> list[np.ndarray]:
        """What `Problem.predict` takes, of `best` and of `plain`."""
        return [self.best.dual, self.plain.dual]


def fit(gram: np.ndarray, problem: Problem) -> Fits:
    """Regress with a Gram, which is only read."""
    targets = problem.targets
    chosen = leave_one_out(gram, targets)
    plain = ntk.kernel_regression(gram, targets, precision=problem.precision)
    return Fits(plain, chosen.regression, chosen.ridge, chosen.error)


def of_kernel(
    fits: Fits, predicted: Sequence[np.ndarray], problem: Problem, updates: int
) -> dict[str, Any]:
    """The row of a kernel in `accuracies` of rank.json.

    Args:
        fits: the regressions.
        predicted: by `best` and by `plain`, at the test pictures.
        problem: what was learnt.
        updates: that the network's weights had seen.
    """
    best, plain = predicted
    without = problem.accuracies(fits.plain.fitted, plain)
    return {
        "of": "kernel",
        "updates": updates,
        **problem.accuracies(fits.best.fitted, best),
        "ridge": fits.ridge,
        "leave_one_out_error": fits.error,
        **{f"{name}_without_ridge": value for name, value in without.items()},
    }


def show(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The rows as a table on the screen, accuracies in percent."""
    heads = ("", "train", "test", "ridge", "no ridge\ntrain", "\ntest")
    table = Table(*heads, box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        ridge = f"{row['ridge']:.1e}" if "ridge" in row else ""
        given = [_percent(row, f"{name}{end}") for end in ("", "_without_ridge") for name in _NAMES]
        table.add_row(title(row), *given[:2], ridge, *given[2:])
    return table


_NAMES = ("train_accuracy", "test_accuracy")


def _percent(row: Mapping[str, Any], name: str) -> str:
    return f"{100 * row[name]:.1f}" if name in row else ""


def title(row: Mapping[str, Any]) -> str:
    """What a row is of, in words."""
    moment = f"after {row['updates']:,} updates" if row["updates"] else "at the initialization"
    return f"{row['of']} {moment}"
