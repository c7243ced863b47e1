"""Training: optimizer, loop, callbacks, checkpoints."""

from ntk_tf.training.optimizer import TorchSGD, step_schedule

__all__ = ["TorchSGD", "step_schedule"]
