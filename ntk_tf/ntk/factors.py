"""What each kind of layer contributes to the NTK: the factors of its weights' gradients.

The gradient of an output f_l at example x in a layer's weights is a sum over the positions p at
which the layer applies them,

    dW_l = sum_p delta_l(p) a(p)^T,

with a(p) `[K]` the layer's input there and delta_l(p) `[C]` the gradient of f_l in the layer's
output before its activation. A bias is a weight of an input that is always 1. A convolution has
one position per output pixel, a grouped one such a sum per group, and a batch normalization in
inference mode is, per channel, a weight of the normalized input and a bias (compare Novak,
Sohl-Dickstein and Schoenholz 2022, "Fast finite width neural tangent kernel", section 3).
"""

import dataclasses
import math
from collections.abc import Callable

import keras
import tensorflow as tf

#: Convolving with an identity is the faster way to patches of at most so many numbers: measured.
_SMALL_PATCH = 64


@dataclasses.dataclass(frozen=True)
class Shape:
    """Sizes of a layer's factors.

    Attributes:
        groups: number g of independent sums.
        positions: number P of positions of one example.
        inputs: K, the bias's constant input included.
        channels: C, outputs per group.
    """

    groups: int
    positions: int
    inputs: int
    channels: int

    @property
    def weights(self) -> int:
        """Number of weights g K C."""
        return self.groups * self.inputs * self.channels


@dataclasses.dataclass(frozen=True)
class Rule:
    """How to get a layer's factors.

    Attributes:
        accepts: whether the rule is exact for a layer of the kind.
        inputs: maps the layer and its input to a `[b, g, P, K]`.
        outputs: maps the layer and the gradient in its output to delta `[b, g, P, C]`.
    """

    accepts: Callable[[keras.Layer], bool]
    inputs: Callable[[keras.Layer, tf.Tensor], tf.Tensor]
    outputs: Callable[[keras.Layer, tf.Tensor], tf.Tensor]


def rule_for(layer: keras.Layer) -> Rule | None:
    """The rule for a layer's kind, or None where only the general way is exact.

    Subclasses may compute anything, so they have no rule; nor have layers in mixed precision,
    quantized ones, and those with some weights frozen or added.
    """
    rule = RULES.get(type(layer))
    plain = layer.compute_dtype == layer.variable_dtype and not getattr(
        layer, "quantization_mode", None
    )
    if rule is None or not plain or not rule.accepts(layer):
        return None
    return rule


def _count(layer: keras.Layer) -> int:
    return len(layer.trainable_weights)


def _with_bias(layer: keras.Layer, a: tf.Tensor) -> tf.Tensor:
    return tf.concat([a, tf.ones_like(a[..., :1])], axis=-1) if layer.use_bias else a


def _positions(x: tf.Tensor) -> int:
    """Number of positions of `x [b, ..., c]`."""
    return math.prod(x.shape[1:-1])


def _dense_inputs(layer: keras.Layer, x: tf.Tensor) -> tf.Tensor:
    return _with_bias(layer, tf.reshape(x, [-1, 1, _positions(x), x.shape[-1]]))


def _dense_outputs(layer: keras.Layer, gradient: tf.Tensor) -> tf.Tensor:
    return _split_channels(gradient, 1)


def _split_channels(gradient: tf.Tensor, groups: int) -> tf.Tensor:
    """`[b, ..., g * C]` to `[b, g, P, C]`."""
    positions, channels = _positions(gradient), gradient.shape[-1] // groups
    if groups == 1:
        return tf.reshape(gradient, [-1, 1, positions, channels])
    return tf.transpose(tf.reshape(gradient, [-1, positions, groups, channels]), [0, 2, 1, 3])


def _patches(layer: keras.Layer, x: tf.Tensor) -> tf.Tensor:
    """`[b, h, w, c]` to `[b, P, kh * kw, c]`: what the kernel sees at each output pixel."""
    height, width = layer.kernel_size
    size = height * width * x.shape[-1]
    if size <= _SMALL_PATCH:
        identity = tf.reshape(tf.eye(size, dtype=x.dtype), [height, width, -1, size])
        patches = tf.nn.convolution(
            x, identity, layer.strides, layer.padding.upper(), dilations=layer.dilation_rate
        )
    else:
        patches = tf.image.extract_patches(
            x,
            sizes=(1, height, width, 1),
            strides=(1, *layer.strides, 1),
            rates=(1, *layer.dilation_rate, 1),
            padding=layer.padding.upper(),
        )
    return tf.reshape(patches, [-1, _positions(patches), height * width, x.shape[-1]])


def _conv_inputs(layer: keras.Layer, x: tf.Tensor) -> tf.Tensor:
    patches = _patches(layer, x)
    positions, taps, channels = patches.shape[1:]
    groups = layer.groups
    size = taps * channels // groups
    split = tf.reshape(patches, [-1, positions, taps, groups, channels // groups])
    split = split if groups == 1 else tf.transpose(split, [0, 3, 1, 2, 4])
    return _with_bias(layer, tf.reshape(split, [-1, groups, positions, size]))


def _conv_outputs(layer: keras.Layer, gradient: tf.Tensor) -> tf.Tensor:
    return _split_channels(gradient, layer.groups)


def _depthwise_inputs(layer: keras.Layer, x: tf.Tensor) -> tf.Tensor:
    return _with_bias(layer, tf.transpose(_patches(layer, x), [0, 3, 1, 2]))


def _depthwise_outputs(layer: keras.Layer, gradient: tf.Tensor) -> tf.Tensor:
    return _split_channels(gradient, gradient.shape[-1] // layer.depth_multiplier)


def _normalization_inputs(layer: keras.Layer, x: tf.Tensor) -> tf.Tensor:
    normalized = (x - layer.moving_mean) / tf.sqrt(layer.moving_variance + layer.epsilon)
    parts = [normalized] * layer.scale + [tf.ones_like(x)] * layer.center
    flat = [tf.reshape(part, [-1, _positions(x), x.shape[-1]]) for part in parts]
    return tf.transpose(tf.stack(flat, axis=-1), [0, 2, 1, 3])


def _normalization_outputs(layer: keras.Layer, gradient: tf.Tensor) -> tf.Tensor:
    return _split_channels(gradient, gradient.shape[-1])


def _accepts_kernel(layer: keras.Layer) -> bool:
    return (
        _count(layer) == 1 + layer.use_bias
        and not getattr(layer, "lora_enabled", False)
        and not isinstance(layer.activation, keras.Layer)
    )


def _accepts_convolution(layer: keras.Layer) -> bool:
    return (
        _accepts_kernel(layer)
        and layer.data_format == "channels_last"
        and layer.padding in ("valid", "same")
    )


def _accepts_normalization(layer: keras.Layer) -> bool:
    last = layer.axis in (-1, layer.input_spec.ndim - 1)
    return last and _count(layer) == layer.scale + layer.center > 0


RULES = {
    keras.layers.Dense: Rule(_accepts_kernel, _dense_inputs, _dense_outputs),
    keras.layers.Conv2D: Rule(_accepts_convolution, _conv_inputs, _conv_outputs),
    keras.layers.DepthwiseConv2D: Rule(_accepts_convolution, _depthwise_inputs, _depthwise_outputs),
    keras.layers.BatchNormalization: Rule(
        _accepts_normalization, _normalization_inputs, _normalization_outputs
    ),
}
