"""The linearization of any Keras model at its weights, as an operator and as a Keras model."""

from ntk_tf.linearization import derivatives
from ntk_tf.linearization.model import LinearizedModel
from ntk_tf.linearization.operator import Jacobian, map_batches

derivatives.register()

__all__ = ["Jacobian", "LinearizedModel", "map_batches"]
