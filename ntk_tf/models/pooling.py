"""Max pooling that is right under XLA, and average pooling to a fixed grid."""

import math

import keras
import numpy as np
import tensorflow as tf

from ntk_tf import private


def inside_xla() -> bool:
    """Whether the graph being traced right now will be compiled by XLA."""
    graph = tf.compat.v1.get_default_graph()
    return not tf.executing_eagerly() and private.will_be_compiled_by_xla(graph)


@keras.saving.register_keras_serializable(package="ntk_tf")
class MaxPooling2D(keras.layers.MaxPooling2D):
    """Max pooling without padding whose JVP is exact under XLA too.

    XLA compiles the second derivative of TensorFlow's `MaxPool` (which forward-mode
    differentiation uses) so that it picks each window's maximum after rounding. Under XLA this
    layer takes the maximum of strided slices instead; of equal values the first counts, as in the
    native op, which is faster without XLA and is used there. The JVP of windows that do not overlap
    is faster than TensorFlow's.

    Args:
        pool_size: side of the window.
        strides: distance between windows; `pool_size` if None.
        **kwargs: Keras' own.
    """

    def __init__(self, pool_size=2, strides=None, **kwargs):
        super().__init__(pool_size, strides, **kwargs)
        if self.padding != "valid" or self.data_format != "channels_last":
            raise ValueError(
                f"MaxPooling2D supports padding='valid' and data_format='channels_last', not"
                f" {self.padding!r} and {self.data_format!r}"
            )

    def call(self, inputs):
        """Map `[b, h, w, c]` to `[b, (h - pool) // stride + 1, ..., c]`."""
        inputs = tf.convert_to_tensor(inputs)
        if inside_xla():
            return max_of_slices(inputs, self.pool_size, self.strides)
        if self.pool_size == self.strides:
            return disjoint_max_pool(inputs, self.pool_size)
        return super().call(inputs)


def disjoint_max_pool(x: tf.Tensor, pool_size: tuple[int, int]) -> tf.Tensor:
    """Max pooling of `x [b, h, w, c]` by windows that do not overlap, with a fast JVP.

    The JVP is the sum over each window of the tangent where the maximum is; where that is comes
    from the native op's gradient. TensorFlow's own JVP, `MaxPoolGradGrad`, searches every window
    again and takes several times as long. Where a `tf.function` is differentiated as a whole, the
    native derivatives are used, which are the same.
    """
    window = {"ksize": (1, *pool_size, 1), "strides": (1, *pool_size, 1), "padding": "VALID"}

    def scatter(g):
        return tf.raw_ops.MaxPoolGrad(orig_input=x, orig_output=y, grad=g, **window)

    def vjp(g):
        (_, height, width, channels), (pool_h, pool_w) = x.shape, pool_size
        if not _in_inner_graph(y) or height % pool_h or width % pool_w:
            return [scatter(g)]
        # A loop over many gradients: where the maximum is need only be found once, outside it.
        with y.graph.as_default():
            chosen = scatter(tf.ones_like(y))
        rows, columns = height // pool_h, width // pool_w
        g = tf.reshape(g, [-1, rows, 1, columns, 1, channels])
        spread = g * tf.reshape(chosen, [-1, rows, pool_h, columns, pool_w, channels])
        return [tf.reshape(spread, [-1, height, width, channels])]

    def jvp(t):
        mean = tf.nn.avg_pool2d(scatter(tf.ones_like(y)) * t, pool_size, pool_size, "VALID")
        return [mean * tf.cast(math.prod(pool_size), t.dtype)]

    with private.unrecorded():
        y = tf.raw_ops.MaxPool(input=x, **window)
    private.record_derivatives("DisjointMaxPool", x, y, vjp, jvp)
    return y


def _in_inner_graph(tensor: tf.Tensor) -> bool:
    """Whether the graph being traced is another, such as a loop's body, than the tensor's own."""
    graph = getattr(tensor, "graph", None)
    return graph is not None and graph is not tf.compat.v1.get_default_graph()


def max_of_slices(x: tf.Tensor, pool_size: tuple[int, int], strides: tuple[int, int]) -> tf.Tensor:
    """Max pooling of `x [b, h, w, c]` as the maximum over the window's positions."""
    (pool_h, pool_w), (stride_h, stride_w) = pool_size, strides
    reach_h = x.shape[1] - pool_h + 1
    reach_w = x.shape[2] - pool_w + 1
    result = None
    for i in range(pool_h):
        for j in range(pool_w):
            window = x[:, i : i + reach_h : stride_h, j : j + reach_w : stride_w]
            result = window if result is None else tf.maximum(result, window)
    return result


@keras.saving.register_keras_serializable(package="ntk_tf")
class AdaptiveAveragePooling2D(keras.layers.Layer):
    """PyTorch's `AdaptiveAvgPool2d`: means over windows that divide any input into a fixed grid.

    Of `size` windows along an axis of length h, window i reaches from floor(i h / size) to
    ceil((i + 1) h / size). Keras' layer of this name fails for inputs smaller than the grid.

    Args:
        size: side of the output grid.
        **kwargs: Keras' own.
    """

    def __init__(self, size: int, **kwargs):
        super().__init__(**kwargs)
        self.size = size

    def call(self, inputs):
        """Map `[b, h, w, c]` to `[b, size, size, c]`."""
        rows, columns = (
            tf.constant(window_means(length, self.size), inputs.dtype)
            for length in inputs.shape[1:3]
        )
        return tf.einsum("ih,bhwc,jw->bijc", rows, inputs, columns)

    def compute_output_shape(self, input_shape):
        """The grid in place of height and width."""
        return (input_shape[0], self.size, self.size, input_shape[3])

    def get_config(self):
        """The constructor's arguments."""
        return super().get_config() | {"size": self.size}


def window_means(length: int, size: int) -> np.ndarray:
    """Matrix `[size, length]` that averages over each of the adaptive windows."""
    matrix = np.zeros((size, length))
    for i in range(size):
        start, end = i * length // size, -(-(i + 1) * length // size)
        matrix[i, start:end] = 1 / (end - start)
    return matrix
