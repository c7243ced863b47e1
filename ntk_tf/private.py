"""What TensorFlow and Keras do not offer publicly: a function each, and why it is needed.

Nothing else in the package imports private names, so that a new version of either needs trying
here only; `tests/test_private.py` does.
"""

import collections
import contextlib
import random
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.common import global_state
from tensorflow.python.eager import context, record
from tensorflow.python.framework import ops
from tensorflow.python.ops import control_flow_util

if keras.config.backend() != "tensorflow":  # all that differentiates imports this module
    raise ImportError(
        f"KERAS_BACKEND={keras.config.backend()}: ntk_tf needs Keras on TensorFlow; set"
        " KERAS_BACKEND=tensorflow before Keras is imported"
    )

#: The versions with which all this was tried.
TRIED = {"keras": ("3.15",), "tensorflow": ("2.21",)}


def will_be_compiled_by_xla(graph: tf.Graph) -> bool:
    """Whether a graph, or one that it is inside of, will be compiled by XLA.

    A layer must know before it chooses its ops, and Keras tells only the model.
    """
    return control_flow_util.GraphOrParentsInXlaContext(graph)


def unrecorded() -> contextlib.AbstractContextManager[None]:
    """No tape and no accumulator sees the operations inside; see `record_derivatives`."""
    return record.stop_recording()


def record_derivatives(name: str, x: tf.Tensor, y: tf.Tensor, vjp: Callable, jvp: Callable) -> None:
    """Give y, computed from x `unrecorded`, derivatives of its own.

    `tf.custom_gradient` has no place for a JVP.

    Args:
        name: of the operation.
        x: what y depends on.
        y: the tensor.
        vjp: maps the gradient in y to a list with that in x.
        jvp: maps the tangent of x to a list with that of y.
    """
    record.record_operation(name, [y], [x], vjp, jvp)


def forget_uninitialized_variables() -> None:
    """Variables made so far in a `keras.StatelessScope` never get values.

    Keras gives them values at the scope's end, all of a large network's at once.
    """
    global_state.set_global_attribute("uninitialized_variables", [])


def is_replaced(variable: keras.Variable) -> bool:
    """Whether a `keras.StatelessScope` that somebody has opened gives a variable another value.

    Its `value` is then whatever tensor was put in its place.
    """
    scope = global_state.get_global_attribute("stateless_scope")
    return scope is not None and scope.get_current_value(variable) is not None


def all_layers(model: keras.Model) -> Sequence[keras.Layer]:
    """The layers inside a model at every depth, those that a layer keeps as attributes too.

    `model.layers` has the outermost only, and a `keras.Layer` has no such property.
    """
    return model._flatten_layers(include_self=False)


@contextlib.contextmanager
def fresh_names() -> Iterator[None]:
    """Layers made inside are named as in a new process, `dense`, `dense_1` and so on.

    Checkpoints find weights by name, and the public `keras.utils.clear_session` forgets far more
    than the counters.

    Yields:
        Nothing.
    """
    key = "object_name_uids"
    before = global_state.get_global_attribute(key)
    global_state.set_global_attribute(key, collections.defaultdict(int))
    try:
        yield
    finally:
        global_state.set_global_attribute(key, before)


@contextlib.contextmanager
def random_seed(seed: int) -> Iterator[None]:
    """All draws inside follow from a seed; the generators outside do not notice.

    What `keras.utils.set_random_seed` sets cannot be read publicly, except Python's and NumPy's.

    Args:
        seed: non-negative integer.

    Yields:
        Nothing.
    """
    keys = ("global_random_seed", "global_seed_generator")
    kept = {key: global_state.get_global_attribute(key) for key in keys}
    python, numpy = random.getstate(), np.random.get_state()
    eager = context.context()
    tensorflow = eager._seed, getattr(eager, "_rng", None)  # which the first seed makes
    keras.utils.set_random_seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        eager._seed, eager._rng = tensorflow
        for key, value in kept.items():
            global_state.set_global_attribute(key, value)


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


def keep_loaded(archive) -> None:
    """Let `tf.saved_model.load(folder).serve(x)` work on what an `ExportArchive` writes.

    A loaded function does not hold its variables, which go with the object that `load` returned
    unless that refers to itself; then they stay until the garbage collector comes by.
    """
    archive._tf_trackable.itself = archive._tf_trackable
