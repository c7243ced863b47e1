"""The empirical neural tangent kernel: Gram matrices, their spectra, kernel regression."""

from ntk_tf.ntk.gram import PROPAGATION, GramFunction, Partial, PartialError, Step, gram
from ntk_tf.ntk.plan import BudgetError, free_memory
from ntk_tf.ntk.regression import Regression, kernel_regression
from ntk_tf.ntk.spectrum import Spectrum, decompose, effective_rank

__all__ = [
    "BudgetError",
    "GramFunction",
    "PROPAGATION",
    "Partial",
    "PartialError",
    "Regression",
    "Spectrum",
    "Step",
    "decompose",
    "effective_rank",
    "free_memory",
    "gram",
    "kernel_regression",
]
