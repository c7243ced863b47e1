"""PyTorch's SGD as a Keras optimizer, and the schedules of its learning rate."""

import math
import numbers
import re
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

#: Weight decay over momentum is applied to the velocity as long as float32 holds it with ease.
_LARGEST = 1e30


@keras.saving.register_keras_serializable(package="ntk_tf")
class TorchSGD(keras.optimizers.Optimizer):
    """Stochastic gradient descent with momentum and coupled weight decay, as `torch.optim.SGD`.

    For a parameter p with gradient g and velocity v, which starts at 0, an update is

        g <- g + weight_decay * p
        v <- momentum * v + g
        p <- p - learning_rate * v

    With `decay_offsets`, p + offset takes the place of p in the first line: where a
    `LinearizedModel` trains u, the offsets w0 make decay act on the weights w0 + u.

    Unlike Keras' SGD, decay goes through the momentum, and a change of the learning rate acts at
    once on the whole velocity.

    Args:
        learning_rate: a number or a `keras.optimizers.schedules.LearningRateSchedule`.
        momentum: in [0, 1).
        weight_decay: at least 0, and finite.
        decay_offsets: None, or a constant variable or array of the same shape for each trained
            variable; an optimizer that has them cannot be saved, as a configuration holds none.
            Nor can one with variables that `exclude_from_weight_decay` was given, but with names.
        name: of the optimizer.
        **kwargs: Keras' own, such as `clipnorm`.

    Raises:
        ValueError: for a learning rate, momentum or weight decay out of range.
    """

    def __init__(
        self,
        learning_rate=0.01,
        momentum=0.0,
        weight_decay=0.0,
        decay_offsets=None,
        name="torch_sgd",
        **kwargs,
    ):
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum={momentum}: must be at least 0 and below 1")
        if not 0 <= weight_decay < math.inf:
            raise ValueError(f"weight_decay={weight_decay}: must be at least 0, and finite")
        if isinstance(learning_rate, numbers.Real):
            learning_rate = _real(learning_rate, "learning_rate", 0)
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self._given_rate = learning_rate if isinstance(learning_rate, float) else None
        self.momentum = momentum
        self.coupled_weight_decay = weight_decay
        self.decay_offsets = None if decay_offsets is None else tuple(decay_offsets)
        self._undecayed: tuple[Sequence[Any], Sequence[str]] = ([], [])

    def exclude_from_weight_decay(
        self,
        var_list: Sequence[keras.Variable] | None = None,
        var_names: Sequence[str] | None = None,
    ) -> None:
        """Let some variables have no decay; see `keras.optimizers.Optimizer`.

        Args:
            var_list: trained variables.
            var_names: expressions, one of which is found in a variable's name, as `bias`.

        Raises:
            ValueError: if the optimizer is built.
        """
        if self.built:
            raise ValueError("exclude_from_weight_decay: comes before the optimizer is built")
        self._undecayed = (list(var_list or ()), list(var_names or ()))

    def build(self, variables):
        """Create a velocity for every variable, unless there is no momentum.

        Raises:
            ValueError: if there are offsets, and not as many or of other shapes.
        """
        if self.built:
            return
        if self.decay_offsets is not None and len(self.decay_offsets) != len(variables):
            raise ValueError(
                f"decay_offsets: there are {len(self.decay_offsets)} for {len(variables)} variables"
            )
        for offset, v in zip(self.decay_offsets or (), variables, strict=False):
            if tuple(offset.shape) != tuple(v.shape):
                raise ValueError(
                    f"decay_offsets: {tuple(offset.shape)} for {v.path}, which has the shape"
                    f" {tuple(v.shape)}"
                )
        super().build(variables)
        excluded, names = self._undecayed
        spared = {id(_plain(variable)) for variable in excluded}
        self._decays = [
            id(_plain(v)) not in spared and not any(re.search(name, v.name) for name in names)
            for v in variables
        ]
        strategy = tf.distribute.get_strategy()
        self._positions = {
            id(part): i
            for i, variable in enumerate(map(_plain, variables))
            for part in (variable, *strategy.experimental_local_results(variable))
        }
        self.velocities = (
            self.add_optimizer_variables(variables, "velocity") if self.momentum else []
        )

    def update_step(self, gradient, variable, learning_rate):
        """Update one variable in place, by TensorFlow's fused kernels."""
        gradient = tf.convert_to_tensor(gradient)
        learning_rate = self._rate(tf.convert_to_tensor(learning_rate), gradient.dtype)
        decay, momentum = (  # no casts, which would be of float32 numbers
            tf.convert_to_tensor(number, gradient.dtype)
            for number in (self.coupled_weight_decay, self.momentum)
        )
        position = self._positions[id(_plain(variable))]
        decayed = self._decayed(variable, position)
        fused = self.momentum and self.coupled_weight_decay / self.momentum < _LARGEST
        if not fused:
            for part in decayed:
                gradient += decay * part
            decayed = []
        if not self.momentum:
            tf.raw_ops.ResourceApplyGradientDescent(
                var=variable.handle, alpha=learning_rate, delta=gradient
            )
            return
        velocity = self.velocities[position].value
        done: list[tf.Operation] = []
        for part in decayed:  # v <- v + weight_decay / momentum * part, in place, in turn
            with tf.control_dependencies(done):
                update = tf.raw_ops.ResourceApplyGradientDescent(
                    var=velocity.handle, alpha=-decay / momentum, delta=part
                )
            done = [update]
        with tf.control_dependencies(done):
            tf.raw_ops.ResourceApplyMomentum(
                var=variable.handle,
                accum=velocity.handle,
                lr=learning_rate,
                grad=gradient,
                momentum=momentum,
            )

    def _rate(self, learning_rate, dtype):
        """In the update's precision; Keras keeps the number that was given as a float32."""
        if self._given_rate is None or learning_rate.dtype.size >= dtype.size:
            return tf.cast(learning_rate, dtype)
        given = tf.constant(self._given_rate, dtype)
        unchanged = learning_rate == tf.constant(self._given_rate, learning_rate.dtype)
        return tf.where(unchanged, given, tf.cast(learning_rate, dtype))

    def _decayed(self, variable, position):
        """Tensors whose sum decay is proportional to; none without decay."""
        if not (self.coupled_weight_decay and self._decays[position]):
            return []
        parts = [variable.read_value()]
        if self.decay_offsets is not None:
            offset = self.decay_offsets[position]
            parts.append(tf.convert_to_tensor(offset, variable.dtype))
        return parts

    def get_config(self):
        """Everything needed to build the same optimizer again.

        Raises:
            ValueError: if there are offsets, or variables without decay that are not excluded by
                name, which would be lost.
        """
        excluded, names = self._undecayed
        if self.decay_offsets is not None:
            raise ValueError("a TorchSGD with decay_offsets cannot be saved: they would be lost")
        if excluded:
            raise ValueError(
                "a TorchSGD with exclude_from_weight_decay(var_list=...) cannot be saved: they"
                " would be lost; var_names=... are kept"
            )
        config = super().get_config()
        if self._given_rate is not None and config["learning_rate"] == np.float32(self._given_rate):
            config["learning_rate"] = self._given_rate  # Keras has it as a float32
        return config | {
            "momentum": self.momentum,
            "weight_decay": self.coupled_weight_decay,
            "undecayed_names": names,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """The optimizer of a configuration."""
        config = dict(config)
        names = config.pop("undecayed_names", None)
        optimizer = super().from_config(config, custom_objects)
        optimizer.exclude_from_weight_decay(var_names=names)
        return optimizer


def _plain(variable) -> tf.Variable:
    """TensorFlow's variable, in place of Keras' around it."""
    return variable.value if isinstance(variable, keras.Variable) else variable


def _real(number: Any, name: str, least: float, above: bool = False) -> Any:
    """A finite number as a float, in the precision that it has.

    Raises:
        ValueError: if it is none, or smaller than the least, or equal to it where it must be above.
    """
    finite = isinstance(number, numbers.Real) and math.isfinite(number)
    if not finite or number < least or (above and number == least):
        bound = "above" if above else "at least"
        raise ValueError(f"{name}={number}: must be a finite number, {bound} {least:g}")
    return float(number) if isinstance(number, numbers.Integral) else number


def step_schedule(
    learning_rate: float, drop_steps: int, drop_factor: float
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate divided by `drop_factor` after every `drop_steps` updates.

    Its precision is that of the arguments: `np.float64` for float64, Python's numbers for float32.

    Args:
        learning_rate: at the start.
        drop_steps: updates between drops; 0 keeps the learning rate constant.
        drop_factor: divisor of a drop.

    Returns:
        What a Keras optimizer takes as its learning rate.

    Raises:
        ValueError: for a number out of range.
    """
    learning_rate = _real(learning_rate, "learning_rate", 0)
    drop_factor = _real(drop_factor, "drop_factor", 0, above=True)
    if _real(drop_steps, "drop_steps", 0) == 0:
        return learning_rate
    return keras.optimizers.schedules.ExponentialDecay(
        learning_rate, drop_steps, 1 / drop_factor, staircase=True
    )


def inverse_schedule(
    learning_rate: float, steps_per_epoch: int, epochs: float
) -> keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate divided by 1 + e / epochs in epoch e, counted from 0.

    Its precision is as of `step_schedule`.

    Args:
        learning_rate: at the start.
        steps_per_epoch: updates an epoch.
        epochs: after so many the learning rate is half of what it was.

    Returns:
        What a Keras optimizer takes as its learning rate.

    Raises:
        ValueError: for a number out of range.
    """
    learning_rate = _real(learning_rate, "learning_rate", 0)
    epochs = _real(epochs, "epochs", 0, above=True)
    _real(steps_per_epoch, "steps_per_epoch", 1)
    return keras.optimizers.schedules.InverseTimeDecay(
        learning_rate, steps_per_epoch, 1 / epochs, staircase=True
    )
