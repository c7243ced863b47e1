"""J u and J^T r of a function of TensorFlow variables, in two ways.

A function takes no arguments and returns a structure of tensors; the variables it is differentiated
in, the point, are those that it reads.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from ntk_tf.models.pooling import inside_xla

#: Ways to J u, the preferred first.
WAYS = ("forward", "double_vjp")
Function = Callable[[], Any]
Variables = Sequence[tf.Variable]


def jvp(function: Function, point: Variables, u: Sequence[tf.Tensor], way: str) -> tuple[Any, Any]:
    """The outputs f and J u.

    Args:
        function: f.
        point: the variables.
        u: tensors of their shapes.
        way: `forward` or `double_vjp`.

    Raises:
        ValueError: under XLA, if J u would go through TensorFlow's max pooling.
    """
    if way == "double_vjp":
        outputs, tangent, _ = linearize(function, point, u, way)
        return outputs, tangent
    with tf.autodiff.ForwardAccumulator(point, u) as accumulator:
        outputs = function()
    _refuse_max_pooling()
    return outputs, accumulator.jvp(outputs, tf.UnconnectedGradients.ZERO)


def vjp(
    function: Function, point: Variables, persistent: bool = True
) -> tuple[Any, Callable[[Any], list[tf.Tensor]]]:
    """The outputs f and the function that maps r, a structure like f's, to J^T r.

    None in r stands for zeros.

    Args:
        function: f.
        point: the variables.
        persistent: whether the function may be called several times.
    """
    with tf.GradientTape(persistent, watch_accessed_variables=False) as tape:
        tape.watch(point)
        outputs = function()

    def pullback(r):
        pairs = zip(_leaves(outputs), _leaves(r), strict=True)
        kept = [(f, tf.cast(c, f.dtype)) for f, c in pairs if c is not None and is_float(f)]
        gradients = tape.gradient(
            [f for f, _ in kept],
            point,
            output_gradients=[c for _, c in kept],
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        return [tf.convert_to_tensor(g) for g in gradients]

    return outputs, pullback


def linearize(
    function: Function,
    point: Variables,
    u: Sequence[tf.Tensor],
    way: str,
    persistent: bool = True,
) -> tuple[Any, Any, Callable[[Any], list[tf.Tensor]]]:
    """f, J u and the function that maps r to J^T r, from one forward pass; see `jvp` and `vjp`.

    Args:
        function: f.
        point: the variables.
        u: tensors of their shapes.
        way: `forward` or `double_vjp`.
        persistent: as of `vjp`. A tape for that prepares derivatives of all tangents, which takes
            about as long to trace as the rest.

    Raises:
        ValueError: under XLA, if J u would go through TensorFlow's max pooling.
    """
    if way == "double_vjp":
        outputs, pullback = vjp(function, point)
        tangent = _transposed(pullback, outputs, u)
    else:
        # The tape is inside, where it does not record how tangents are computed.
        with tf.autodiff.ForwardAccumulator(point, u) as accumulator:
            outputs, pullback = vjp(function, point, persistent)
        tangent = accumulator.jvp(outputs, tf.UnconnectedGradients.ZERO)
    _refuse_max_pooling()
    return outputs, tangent, pullback


@contextlib.contextmanager
def exact_products() -> Iterator[None]:
    """Multiply float32 matrices as such: GPUs would round factors to 10 bits (TF32)."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def is_float(tensor: tf.Tensor) -> bool:
    """Whether the tensor can have a derivative."""
    return tensor.dtype.is_floating or tensor.dtype.is_complex


def _transposed(pullback, outputs, u):
    """J u as the gradient of <J^T r, u> in r, which J^T r is linear in."""
    leaves = _leaves(outputs)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        r = [tf.zeros_like(f) for f in leaves]
        tape.watch([c for c in r if is_float(c)])
        gradients = pullback(tf.nest.pack_sequence_as(outputs, r))
    tangents = tape.gradient(
        gradients, r, output_gradients=u, unconnected_gradients=tf.UnconnectedGradients.ZERO
    )
    return tf.nest.pack_sequence_as(outputs, tangents)


def _leaves(structure) -> list:
    return tf.nest.flatten(structure)


def _refuse_max_pooling() -> None:
    """XLA picks each window's maximum after rounding where it compiles `MaxPoolGradGrad`.

    Raises:
        ValueError: if the graph has that op and XLA will compile it.
    """
    if inside_xla():
        graph = tf.compat.v1.get_default_graph()
        found = sorted(t for t in op_types(graph) if re.match("MaxPool.*GradGrad", t))
        if found:
            raise ValueError(
                "XLA corrupts the second derivative of TensorFlow's max pooling"
                f" ({', '.join(found)}): use ntk_tf.models.MaxPooling2D in its place, or"
                " jit_compile=False"
            )


def op_types(graph: tf.Graph) -> set[str]:
    """Types of a graph's ops, those in the functions that it calls among them."""
    definition = graph.as_graph_def()
    nodes = [definition.node, *(f.node_def for f in definition.library.function)]
    return {node.op for part in nodes for node in part}
