"""Names that TensorFlow and Keras keep to themselves, each with why there is no other way."""

import tensorflow as tf
from tensorflow.python.framework import ops


def carry_mask(source: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """Give a tensor the mask of another; Keras offers no public way to attach one."""
    mask = getattr(source, "_keras_mask", None)
    if mask is not None:
        target._keras_mask = mask
    return target


def forget_gradient(op_type: str) -> None:
    """Make `tf.RegisterGradient` possible for an op that has a gradient.

    The registry refuses a second entry, and has no public way to take out the first.
    """
    ops.gradient_registry._registry.pop(op_type, None)


def has_gradient(op_type: str) -> bool:
    """Whether a gradient is registered; "not differentiable" is registered as None."""
    try:
        return ops.gradient_registry.lookup(op_type) is not None
    except LookupError:
        return False


def layers_of(model) -> list:
    """A model's layers at every depth, itself among them; `model.layers` has the top level only."""
    return model._flatten_layers()


def keep_loaded(archive) -> None:
    """Let `tf.saved_model.load(folder).serve(x)` work on what an `ExportArchive` writes.

    A loaded function does not hold its variables, which go with the object that `load` returned
    unless that refers to itself; then they stay until the garbage collector comes by.
    """
    archive._tf_trackable.itself = archive._tf_trackable
