"""The empirical neural tangent kernel: Gram matrices, products, spectra, measures, regression."""

import importlib
from typing import Any

from ntk_tf.ntk.gram import PROPAGATION, GramFunction, Partial, PartialError, Step, gram
from ntk_tf.ntk.lanczos import Estimate, estimate_spectrum, top_eigenvalues
from ntk_tf.ntk.operator import KernelOperator, product
from ntk_tf.ntk.plan import BudgetError
from ntk_tf.ntk.regression import Regression, kernel_regression
from ntk_tf.ntk.spectrum import Spectrum, decompose, effective_rank

__all__ = [
    "BudgetError",
    "Estimate",
    "GramFunction",
    "KernelOperator",
    "PROPAGATION",
    "Partial",
    "PartialError",
    "Regression",
    "Spectrum",
    "Step",
    "decompose",
    "effective_rank",
    "estimate_spectrum",
    "gram",
    "kernel_regression",
    "product",
    "top_eigenvalues",
]


def __getattr__(name: str) -> Any:
    """`ntk.compare`, `ntk.infinite` and other modules, imported when they are first used.

    Raises:
        AttributeError: if there is no such module.
    """
    if name in ("compare", "infinite", "leave_one_out"):
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
