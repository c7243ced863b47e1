"""The layers that an architecture is written against, in the NTK parametrization.

    z = sigma_w / sqrt(fan_in) W x + sigma_b b,        W, b ~ N(0, 1), both trained

(Jacot, Gabriel and Hongler 2018, section 3, with sigma_w = 1 and beta for sigma_b; Lee et al. 2019,
equation 1). The fan-in of a convolution is its kernel's positions times its input channels.
"""

import keras

from ntk_tf.models.standard import Standard


@keras.saving.register_keras_serializable(package="ntk_tf")
class NTKDense(keras.layers.Dense):
    """A dense layer that computes activation(kernel_scale * x W + bias_scale * b).

    Args:
        units: number of outputs.
        activation: of Keras.
        kernel_scale: factor of the kernel W.
        bias_scale: factor of the bias b.
        **kwargs: Keras' own.
    """

    def __init__(self, units, activation=None, *, kernel_scale=1.0, bias_scale=1.0, **kwargs):
        super().__init__(units, activation, **kwargs)
        self.kernel_scale, self.bias_scale = kernel_scale, bias_scale

    def call(self, inputs, training=None):
        """Map `[b, ..., inputs]` to `[b, ..., units]`."""
        return _finish(self, self.kernel_scale * keras.ops.matmul(inputs, self.kernel))

    def get_config(self):
        """The constructor's arguments."""
        return super().get_config() | _scales(self)


@keras.saving.register_keras_serializable(package="ntk_tf")
class NTKConv2D(keras.layers.Conv2D):
    """A convolution that computes activation(kernel_scale * x * W + bias_scale * b).

    Args:
        filters: number of output channels.
        kernel_size: of Keras.
        strides: of Keras.
        kernel_scale: factor of the kernel W.
        bias_scale: factor of the bias b.
        **kwargs: Keras' own; `data_format` must be `channels_last`.
    """

    def __init__(
        self, filters, kernel_size, strides=1, *, kernel_scale=1.0, bias_scale=1.0, **kwargs
    ):
        super().__init__(filters, kernel_size, strides, **kwargs)
        if self.data_format != "channels_last":
            raise ValueError(f"data_format={self.data_format!r}: must be 'channels_last'")
        self.kernel_scale, self.bias_scale = kernel_scale, bias_scale

    def call(self, inputs):
        """Map `[b, h, w, c]` to `[b, h', w', filters]`."""
        return _finish(self, self.convolution_op(inputs, self.kernel_scale * self.kernel))

    def get_config(self):
        """The constructor's arguments."""
        return super().get_config() | _scales(self)


def _finish(layer: NTKDense | NTKConv2D, z):
    if layer.use_bias:
        z = z + layer.bias_scale * layer.bias
    return layer.activation(z)


def _scales(layer: NTKDense | NTKConv2D) -> dict[str, float]:
    return {"kernel_scale": layer.kernel_scale, "bias_scale": layer.bias_scale}


class NTKScaled(Standard):
    """Layers of Keras in the NTK parametrization; batch normalization is as in the standard one.

    Args:
        width: see `Standard`.
        seed: see `Standard`.
        sigma_w: standard deviation of the weights' effect.
        sigma_b: of the biases' effect; there are none if it is 0.
        output_factor: see `Standard`.
    """

    _conv, _dense = NTKConv2D, NTKDense

    def __init__(
        self,
        width: float,
        seed: int,
        *,
        sigma_w: float,
        sigma_b: float,
        output_factor: float = 1.0,
    ):
        super().__init__(width, seed, output_factor=output_factor)
        self.sigma_w, self.sigma_b = sigma_w, sigma_b

    def _weights(self, fan_in: int, use_bias: bool, factor: float | None = None) -> dict:
        """Keyword arguments of the next layer that has weights."""
        kernel_seed, bias_seed = self._next_seeds()
        return {
            "kernel_scale": self.sigma_w / fan_in**0.5 if factor is None else factor,
            "bias_scale": self.sigma_b,
            "kernel_initializer": keras.initializers.RandomNormal(0, 1, kernel_seed),
            "bias_initializer": keras.initializers.RandomNormal(0, 1, bias_seed),
            "use_bias": use_bias and self.sigma_b != 0,
        }
