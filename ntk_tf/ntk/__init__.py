"""The empirical neural tangent kernel: Gram matrices, products, spectra, measures, regression."""

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
