"""The linearization of any Keras model at its weights, as an operator and as a Keras model."""

from ntk_tf.linearization import derivatives
from ntk_tf.linearization.model import LinearizedModel
from ntk_tf.linearization.operator import Jacobian, map_batches
from ntk_tf.linearization.scaling import CenteredModel, LazyLoss
from ntk_tf.linearization.solve import Solution, solve, solve_each
from ntk_tf.models import building  # noqa: F401  registers layers: Keras can load networks of ours

derivatives.register()

__all__ = [
    "CenteredModel",
    "Jacobian",
    "LazyLoss",
    "LinearizedModel",
    "Solution",
    "map_batches",
    "solve",
    "solve_each",
]
