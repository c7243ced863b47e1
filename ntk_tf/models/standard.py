"""The layers that an architecture is written against, as Keras' in the standard parametrization.

An architecture is a function of a set of layers, in a file of its own,

    def mlp(layers, inputs, num_classes, *, depth=4):
        x = layers.flatten(inputs, name="flatten")
        for i in range(1, depth):
            x = layers.dense(x, 100, activation="relu", name=f"dense{i}")
        return layers.outputs(x, num_classes)

that calls nothing but the set's methods on what flows between them. What that is, is the set's own
affair: Keras tensors here and in `ntk_scaled`, and another set may carry kernels of infinitely wide
layers. Channels and units are those at width 1; the set knows the width. The keyword arguments of
the function are the architecture's, and those of the set's constructor the parametrization's.
"""

import keras
import numpy as np

from ntk_tf.models.pooling import AdaptiveAveragePooling2D, MaxPooling2D


@keras.saving.register_keras_serializable(package="ntk_tf")
def erf(x):
    """The error function, which Keras has no name for as an activation."""
    return keras.ops.erf(x)


_NAMED = {"erf": erf}


def _activation(kind: str | None):
    """What Keras takes as an activation.

    Raises:
        ValueError: for one that Keras does not know, or that has not an output for each input.
    """
    function = _NAMED.get(kind, kind)
    if function is not None:
        pair = keras.KerasTensor((1, 2))
        if keras.activations.get(function)(pair).shape != pair.shape:
            raise ValueError(f"activation={kind!r}: must have an output for each of its inputs")
    return function


class Standard:
    """Layers of Keras with PyTorch's initialization; every picture is `[b, h, w, c]`.

    Weights and biases are U(-1/sqrt(fan_in), 1/sqrt(fan_in)) by default. Every layer gets seeds of
    its own, all derived from one, in the order of the calls.

    Args:
        width: width factor k > 0 of channels and units, rounded, at least 1.
        seed: non-negative integer.
        gain: kernels are drawn from N(0, 2 gain^2 / (fan_in + fan_out)) instead, "Xavier normal"
            (Glorot and Bengio 2010), and biases are 0.
        output_factor: that `outputs` multiplies by, kappa in Arora et al. (2019).
    """

    _conv, _dense = keras.layers.Conv2D, keras.layers.Dense

    def __init__(
        self, width: float, seed: int, *, gain: float | None = None, output_factor: float = 1.0
    ):
        self.width, self.gain, self.output_factor = width, gain, output_factor
        self._seeds = np.random.SeedSequence(seed)

    def channels(self, count: int) -> int:
        """Number of channels or units at the set's width, from that at width 1."""
        return max(1, round(self.width * count))

    def side(self, x) -> int:
        """The smaller side of a picture."""
        return min(x.shape[1:3])

    def conv(
        self,
        x,
        filters: int,
        kernel_size: int,
        strides: int = 1,
        padding: int | str = 0,
        *,
        activation: str | None = None,
        use_bias: bool = True,
        weight_factor: float | None = None,
        name: str,
    ):
        """Convolve a picture.

        Args:
            x: the picture.
            filters: channels at width 1.
            kernel_size: side of the kernel.
            strides: distance between its positions.
            padding: number of zeros on each side, or "same" for the least, the odd one behind, that
                leave a position for each stride.
            activation: "relu", "erf", or another that Keras knows, afterwards.
            use_bias: whether there is one.
            weight_factor: of the weights in NTK parametrization, in place of sigma_w /
                sqrt(fan_in); the standard one has none.
            name: of the layer.
        """
        if padding not in (0, "same"):
            if strides == 1 and kernel_size == 2 * padding + 1:
                padding = "same"
            else:
                x = self.zero_padding(x, padding, name=f"{name}_padding")
        return self._conv(
            self.channels(filters),
            kernel_size,
            strides,
            padding="same" if padding == "same" else "valid",
            activation=_activation(activation),
            name=name,
            **self._weights(kernel_size**2 * x.shape[-1], use_bias, weight_factor),
        )(x)

    def dense(
        self, x, units: int, *, activation: str | None = None, use_bias: bool = True, name: str
    ):
        """Apply a dense layer of so many units at width 1 to vectors; see `conv`."""
        return self._dense(
            self.channels(units),
            _activation(activation),
            name=name,
            **self._weights(x.shape[-1], use_bias),
        )(x)

    def outputs(self, x, num_classes: int, *, use_bias: bool = True, name: str = "outputs"):
        """Apply the last dense layer, which the width leaves alone, and the output factor."""
        x = self._dense(num_classes, name=name, **self._weights(x.shape[-1], use_bias))(x)
        return x if self.output_factor == 1 else self.scale(x, self.output_factor, name="scaled")

    def norm(self, x, *, name: str):
        """Batch normalization, with PyTorch's momentum and epsilon."""
        return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)

    def activation(self, x, kind: str, *, name: str):
        """Apply an activation; see `conv`."""
        return keras.layers.Activation(_activation(kind), name=name)(x)

    def max_pool(self, x, size: int, strides: int | None = None, *, name: str):
        """Maxima over windows that lie inside the picture; they touch if there are no strides."""
        return MaxPooling2D(size, strides, name=name)(x)

    def average_pool(self, x, size: int, strides: int | None = None, *, name: str):
        """Means over the windows of `max_pool`."""
        return keras.layers.AveragePooling2D(size, strides, name=name)(x)

    def global_average_pool(self, x, *, name: str):
        """Means over the picture: vectors, one entry a channel."""
        return keras.layers.GlobalAveragePooling2D(name=name)(x)

    def adaptive_average_pool(self, x, size: int, *, name: str):
        """Means over a grid of size x size windows, whatever the picture; none where it fits."""
        if tuple(x.shape[1:3]) == (size, size):
            return x
        return AdaptiveAveragePooling2D(size, name=name)(x)

    def flatten(self, x, *, name: str):
        """Vectors of all the entries."""
        return keras.layers.Flatten(name=name)(x)

    def add(self, x, y, *, name: str):
        """The sum of two, as behind a residual block."""
        return keras.layers.Add(name=name)([x, y])

    def zero_padding(self, x, padding: int, *, name: str):
        """Put so many zeros on each side of a picture."""
        return keras.layers.ZeroPadding2D(padding, name=name)(x)

    def scale(self, x, factor: float, *, name: str):
        """Multiply by a constant."""
        return keras.layers.Rescaling(factor, name=name)(x)

    def _weights(self, fan_in: int, use_bias: bool, factor: float | None = None) -> dict:
        """Keyword arguments of the next layer that has weights."""
        kernel_seed, bias_seed = self._next_seeds()
        if self.gain is None:
            bound = fan_in**-0.5
            kernel = keras.initializers.VarianceScaling(
                1 / 3, "fan_in", "uniform", seed=kernel_seed
            )
            bias = keras.initializers.RandomUniform(-bound, bound, seed=bias_seed)
        else:
            kernel = keras.initializers.VarianceScaling(
                self.gain**2, "fan_avg", "untruncated_normal", seed=kernel_seed
            )
            bias = "zeros"
        return {"kernel_initializer": kernel, "bias_initializer": bias, "use_bias": use_bias}

    def _next_seeds(self) -> tuple[int, int]:
        """Seeds of the next layer's kernel and bias."""
        kernel, bias = self._seeds.spawn(1)[0].generate_state(2)
        return int(kernel), int(bias)
