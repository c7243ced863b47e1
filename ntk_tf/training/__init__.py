"""Training: optimizer, loop, callbacks, checkpoints."""

from ntk_tf.training.optimizer import TorchSGD, inverse_schedule, step_schedule

__all__ = ["TorchSGD", "inverse_schedule", "step_schedule"]
