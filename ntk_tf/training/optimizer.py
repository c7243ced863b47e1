"""PyTorch's SGD as a Keras optimizer, and the paper's learning rate schedule."""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="ntk_tf")
class TorchSGD(keras.optimizers.Optimizer):
    """Stochastic gradient descent with momentum and coupled weight decay, as `torch.optim.SGD`.

    For a parameter p with gradient g and velocity v, which starts at 0, an update is

        g <- g + weight_decay * p
        v <- momentum * v + g
        p <- p - learning_rate * v

    Unlike Keras' SGD, decay goes through the momentum, and a change of the learning rate acts at
    once on the whole velocity.

    Args:
        learning_rate: a number or a `keras.optimizers.schedules.LearningRateSchedule`.
        momentum: in [0, 1).
        weight_decay: at least 0.
        name: of the optimizer.
        **kwargs: Keras' own, such as `clipnorm`.

    Raises:
        ValueError: for a momentum or weight decay out of range.
    """

    def __init__(
        self, learning_rate=0.01, momentum=0.0, weight_decay=0.0, name="torch_sgd", **kwargs
    ):
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum={momentum}: must be at least 0 and below 1")
        if not weight_decay >= 0:
            raise ValueError(f"weight_decay={weight_decay}: must be at least 0")
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.momentum = momentum
        self.coupled_weight_decay = weight_decay

    def build(self, variables):
        """Create a velocity for every variable, unless there is no momentum."""
        if self.built:
            return
        super().build(variables)
        self.velocities = (
            self.add_optimizer_variables(variables, "velocity") if self.momentum else []
        )

    def update_step(self, gradient, variable, learning_rate):
        """Update one variable in place, by TensorFlow's fused kernels."""
        gradient = tf.convert_to_tensor(gradient)
        learning_rate, decay, momentum = (
            tf.cast(number, gradient.dtype)
            for number in (learning_rate, self.coupled_weight_decay, self.momentum)
        )
        if not self.momentum:
            if self.coupled_weight_decay:
                gradient += decay * variable
            tf.raw_ops.ResourceApplyGradientDescent(
                var=variable.handle, alpha=learning_rate, delta=gradient
            )
            return
        velocity = self.velocities[self._get_variable_index(variable)].value
        decayed = []
        if self.coupled_weight_decay:  # v <- v + weight_decay / momentum * p, in place
            decayed = [
                tf.raw_ops.ResourceApplyGradientDescent(
                    var=velocity.handle, alpha=-decay / momentum, delta=variable.read_value()
                )
            ]
        with tf.control_dependencies(decayed):
            tf.raw_ops.ResourceApplyMomentum(
                var=variable.handle,
                accum=velocity.handle,
                lr=learning_rate,
                grad=gradient,
                momentum=momentum,
            )

    def get_config(self):
        """Everything needed to build the same optimizer again."""
        return super().get_config() | {
            "momentum": self.momentum,
            "weight_decay": self.coupled_weight_decay,
        }


def step_schedule(
    learning_rate: float, drop_steps: int, drop_factor: float
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate divided by `drop_factor` after every `drop_steps` updates.

    Args:
        learning_rate: at the start.
        drop_steps: updates between drops; 0 keeps the learning rate constant.
        drop_factor: divisor of a drop.

    Returns:
        What a Keras optimizer takes as its learning rate.
    """
    if drop_steps == 0:
        return learning_rate
    return keras.optimizers.schedules.ExponentialDecay(
        learning_rate, drop_steps, 1 / drop_factor, staircase=True
    )
