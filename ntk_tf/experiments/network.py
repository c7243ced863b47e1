"""Where settings meet the network: built, with the weights of a run, linearized, compiled."""

import pathlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ntk_tf import models, private, runs
from ntk_tf.catalogue import architectures
from ntk_tf.experiments import architecture, trained_weights
from ntk_tf.linearization import CenteredModel, LazyLoss, LinearizedModel
from ntk_tf.linearization.check import UNCHECKED
from ntk_tf.settings import Config, SettingError
from ntk_tf.settings.groups import INVERSE_EPOCHS
from ntk_tf.training import TorchSGD, inverse_schedule, step_schedule
from ntk_tf.training.metrics import FirstNonFinite, loss_function


def build(config: Any, workdir: pathlib.Path | None = None) -> tuple[keras.Model, int]:
    """The network of a configuration's `Network` settings, with the weights that it starts from.

    It computes in the configuration's precision; the initialization is that of float32.

    Args:
        config: the run's settings.
        workdir: the run directory, which holds the training before the run if there was one.

    Returns:
        The network, and the number of updates that its weights have seen.

    Raises:
        SettingError: if the architecture cannot be built for these pictures, or in float64.
        DataError: if `from_run` holds no weights for it.
    """
    model, step = architecture.build(config), 0
    if getattr(config, "precision", "float32") == "float64":
        model = _in_float64(model, config)
    if config.from_run is not None:
        step = trained_weights.load(model, config, config.from_run)
    elif workdir and config.pretrain_steps:
        step = trained_weights.load(model, config, workdir / runs.PRETRAINING)
    if not config.train_biases:
        models.freeze_biases(model)
    return model, step


def _in_float64(model: keras.Model, config: Any) -> keras.Model:
    """The same network with the same weights, computing in float64.

    Raises:
        SettingError: if a layer of a network of the user's has another precision of its own.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    try:
        precise = architecture.build(config)
    finally:
        keras.config.set_dtype_policy(before)
    for layer in [precise, *private.all_layers(precise)]:
        if keras.backend.is_float_dtype(layer.compute_dtype) and layer.compute_dtype != "float64":
            raise SettingError(
                f"--precision=float64: {layer.name} of {config.arch} computes in"
                f" {layer.compute_dtype}; its dtype must be Keras' policy, as it is without one"
            )
    for variable, source in zip(precise.variables, model.variables, strict=True):
        variable.assign(tf.cast(source.value, tf.float64))
    return precise


def compiled(
    config: Any, steps_per_epoch: int, linearized: bool, workdir: pathlib.Path | None = None
) -> keras.Model:
    """The network or its linearization, ready to train.

    Args:
        config: the run's settings.
        steps_per_epoch: updates an epoch, for the schedule of the learning rate.
        linearized: which of the two.
        workdir: see `build`.

    Returns:
        A compiled model whose optimizer is built.

    Raises:
        SettingError: if a network of the user's cannot be linearized.
    """
    model, _ = build(config, workdir)
    dtype = "float64" if config.precision == "float64" else "float32"
    centered = getattr(config, "centered", False)
    offsets = _decay_offsets(model, config, linearized)
    if linearized:
        model = LinearizedModel(model, centered=centered)
    elif centered:
        model = CenteredModel(model)
    loss = loss_function(config.loss, dtype)
    if getattr(config, "alpha", 1.0) != 1:
        loss = LazyLoss(loss, config.alpha)
    model.compile(
        optimizer=TorchSGD(
            _learning_rate(config, steps_per_epoch), config.momentum, config.weight_decay, offsets
        ),
        loss=loss,
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy"), FirstNonFinite()],
        jit_compile=False,  # or Keras would choose XLA where there is a GPU, and there alone
    )
    model.optimizer.build(model.trainable_variables)
    if linearized:
        check_linearizable(config, model.check, dtype)
    return model


def check_linearizable(config: Any, check: Callable[[tf.Tensor], None], dtype: str) -> None:
    """Refuse a network of the user's that cannot be linearized, before the work begins.

    Args:
        config: the run's settings.
        check: of the linearization, in the mode of the run; takes a batch.
        dtype: of the inputs.

    Raises:
        SettingError: if it cannot; the message names the layer.
    """
    if not architectures.is_own(config.arch):
        return
    try:
        check(tf.zeros([2, *config.input_shape], dtype))
    except ValueError as error:
        reason = " ".join(str(error).split()).removesuffix(f"; {UNCHECKED}")
        raise SettingError(f"--arch={config.arch}: {reason}") from error


def _learning_rate(config: Any, steps_per_epoch: int) -> Any:
    """What the optimizer takes as its learning rate."""
    number = np.float64 if config.precision == "float64" else float
    rate = number(config.learning_rate)
    if config.schedule == "inverse":
        return inverse_schedule(rate, steps_per_epoch, number(INVERSE_EPOCHS))
    drop_steps = config.lr_drop_every * steps_per_epoch
    return step_schedule(rate, drop_steps, number(config.lr_drop_factor))


def _decay_offsets(model: keras.Model, config: Any, linearized: bool) -> list[Any] | None:
    """What is added to the trained variables where weight decay acts on them.

    That is w0 for u, so that decay acts on w0 + u, and -w0 for a centered network's w.
    """
    if linearized:
        return model.trainable_variables if config.decay_toward == "zero" else None
    toward_start = getattr(config, "centered", False) and config.decay_toward != "zero"
    if not (toward_start and config.weight_decay):
        return None
    return [tf.Variable(-w.value, trainable=False) for w in model.trainable_variables]


def title(config: Config) -> str:
    """The run's name on the screen, such as `LinLeNet x5 on mnist`."""
    lin = "Lin" if getattr(config, "linearized", False) else ""
    return f"{lin}{architectures.find(config.arch).title} x{config.width} on {config.dataset}"
