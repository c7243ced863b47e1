"""Layers with PyTorch's default initialization, and max pooling that is right under XLA."""

import math

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.eager import record
from tensorflow.python.ops import control_flow_util


def inside_xla() -> bool:
    """Whether the graph being traced right now will be compiled by XLA."""
    graph = tf.compat.v1.get_default_graph()
    return not tf.executing_eagerly() and control_flow_util.GraphOrParentsInXlaContext(graph)


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

    with record.stop_recording():
        y = tf.raw_ops.MaxPool(input=x, **window)
    record.record_operation("DisjointMaxPool", [y], [x], vjp, jvp)
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


class TorchInitialization:
    """PyTorch's default for convolutions and dense layers: U(-1/sqrt(fan_in), 1/sqrt(fan_in)).

    Weights and biases alike. Every layer gets seeds of its own, all derived from one.

    Args:
        seed: non-negative integer.
    """

    def __init__(self, seed: int):
        self._seeds = np.random.SeedSequence(seed)

    def __call__(self, fan_in: int) -> dict[str, keras.initializers.Initializer]:
        """Initializers of the next layer, as keyword arguments for it.

        Args:
            fan_in: number of inputs that an output of the layer depends on.

        Returns:
            `kernel_initializer` and `bias_initializer`.
        """
        kernel_seed, bias_seed = (int(s) for s in self._seeds.spawn(1)[0].generate_state(2))
        bound = fan_in**-0.5
        return {
            "kernel_initializer": keras.initializers.VarianceScaling(
                1 / 3, "fan_in", "uniform", seed=kernel_seed
            ),
            "bias_initializer": keras.initializers.RandomUniform(-bound, bound, seed=bias_seed),
        }

    def conv(self, x, filters: int, kernel_size: int, strides: int = 1, padding: int = 0, name=""):
        """Convolve `x [b, h, w, c]` and apply ReLU, after `padding` zeros on each side."""
        if padding and not (strides == 1 and kernel_size == 2 * padding + 1):
            x = keras.layers.ZeroPadding2D(padding, name=f"{name}_padding")(x)
            padding = 0
        return keras.layers.Conv2D(
            filters,
            kernel_size,
            strides,
            padding="same" if padding else "valid",
            activation="relu",
            name=name,
            **self(kernel_size**2 * x.shape[-1]),
        )(x)

    def dense(self, x, units: int, activation: str | None = "relu", name=""):
        """Apply a dense layer to `x [b, features]`."""
        return keras.layers.Dense(units, activation, name=name, **self(x.shape[-1]))(x)
