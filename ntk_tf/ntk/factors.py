"""What each kind of layer contributes to the NTK: the factors of its weights' gradients.

The gradient of an output f_l at example x in a layer's weights is a sum over the positions p at
which the layer applies them,

    dW_l = sum_p delta_l(p) a(p)^T,

with a(p) `[K]` the layer's input there and delta_l(p) `[C]` the gradient of f_l in the layer's
output before its activation. A bias is a weight of an input that is always 1. A convolution has
one position per output pixel, a grouped one such a sum per group; a transposed one has a position
per input pixel, where delta is what the kernel sees of the gradient, and a bias of its own. A
normalization is, per channel, a weight of the normalized input and a bias; an embedding a weight
of a one-hot input (compare Novak, Sohl-Dickstein and Schoenholz 2022, "Fast finite width neural
tangent kernel", section 3).

A layer class from elsewhere gets its rule by `register`.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from ntk_tf.models.ntk_scaled import NTKConv2D, NTKDense

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
        lookup: whether a(p) is one-hot and given as its number, so that K counts as 1.
    """

    groups: int
    positions: int
    inputs: int
    channels: int
    lookup: bool = False

    @property
    def weights(self) -> int:
        """Number of weights g K C."""
        return self.groups * self.inputs * self.channels


@dataclasses.dataclass(frozen=True)
class Rule:
    """How to get the factors of a layer's weights.

    Attributes:
        accepts: whether the rule is exact for a layer of the class.
        inputs: maps the layer and its input to a `[b, g, P, K]`; K in the order of the weights.
        outputs: maps the layer and the gradient in its output to delta `[b, g, P, C]`.
        weights: the trainable weights that it is for; None for all.
        lookup: whether a(p) is one-hot and `inputs` gives its number, K = 1.
        name: tells apart the rules of a layer that has several.
    """

    accepts: Callable[[keras.Layer], bool]
    inputs: Callable[[keras.Layer, tf.Tensor], tf.Tensor]
    outputs: Callable[[keras.Layer, tf.Tensor], tf.Tensor]
    weights: Callable[[keras.Layer], list[keras.Variable]] | None = None
    lookup: bool = False
    name: str = ""

    def trainable(self, layer: keras.Layer) -> list[keras.Variable]:
        """The layer's trainable weights that the rule is for."""
        return layer.trainable_weights if self.weights is None else self.weights(layer)


_RULES: dict[type[keras.Layer], tuple[Rule, ...]] = {}


def register(layer_class: type[keras.Layer], *rules: Rule) -> None:
    """Give a layer class its rules, in place of those it had.

    They hold for the class itself: a subclass may compute anything and needs its own. A layer
    whose rules do not explain its gradient falls to the general way, which is slow but right.

    Args:
        layer_class: of layers called on one tensor, whose gradients are taken before `activation`.
        rules: which together cover the layer's trainable weights.

    Raises:
        ValueError: without a rule.
    """
    if not rules:
        raise ValueError(f"{layer_class.__name__} needs at least one rule")
    _RULES[layer_class] = rules


def registered(layer_class: type[keras.Layer]) -> tuple[Rule, ...]:
    """The rules of a layer class; empty if it has none."""
    return _RULES.get(layer_class, ())


def scaled(
    rule: Rule,
    kernel: Callable[[keras.Layer], float],
    bias: Callable[[keras.Layer], float] = lambda layer: 1.0,
) -> Rule:
    """The rule of a layer that multiplies its kernel and its bias by constants.

    So does the NTK parametrization, sigma_w / sqrt(fan_in) W x + sigma_b b.

    Args:
        rule: of the same layer with factors 1, its bias, if any, being the last of K inputs.
        kernel: the kernel's factor for a layer.
        bias: the bias's.

    Returns:
        The rule, to be registered for the layer's class.
    """

    def inputs(layer, x):
        a = rule.inputs(layer, x)
        biases = len(_trained(layer, "bias"))
        factors = [kernel(layer)] * (a.shape[-1] - biases) + [bias(layer)] * biases
        return a * tf.constant(factors, a.dtype)

    return dataclasses.replace(rule, inputs=inputs)


def rules_for(layer: keras.Layer) -> list[Rule]:
    """The rules for a layer's trainable weights, or none where only the general way is exact.

    Subclasses may compute anything, so they have no rule; nor have layers in mixed precision,
    quantized ones, and those with weights added.
    """
    rules = [rule for rule in registered(type(layer)) if rule.accepts(layer)]
    plain = layer.compute_dtype == layer.variable_dtype and not (
        getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False)
    )
    covered = [id(w) for rule in rules for w in rule.trainable(layer)]
    if not plain or sorted(covered) != sorted(id(w) for w in layer.trainable_weights):
        return []
    return [rule for rule in rules if rule.trainable(layer)]


def _trained(layer: keras.Layer, *names: str) -> list[keras.Variable]:
    """Those of a layer's weights that exist and are trained."""
    weights = [getattr(layer, name, None) for name in names]
    return [w for w in weights if isinstance(w, keras.Variable) and w.trainable]


def _kernel_and_bias(layer: keras.Layer, a: tf.Tensor) -> tf.Tensor:
    """The inputs of those weights that are trained, a bias's last."""
    parts = [a] if _trained(layer, "kernel") else []
    parts += [tf.ones_like(a[..., :1])] if _trained(layer, "bias") else []
    return parts[0] if len(parts) == 1 else tf.concat(parts, axis=-1)


def _positions(x: tf.Tensor) -> int:
    """Number of positions of `x [b, ..., c]`."""
    return math.prod(x.shape[1:-1])


def _dense_inputs(layer: keras.Layer, x: tf.Tensor) -> tf.Tensor:
    return _kernel_and_bias(layer, tf.reshape(x, [-1, 1, _positions(x), x.shape[-1]]))


def _dense_outputs(layer: keras.Layer, gradient: tf.Tensor) -> tf.Tensor:
    return _split_channels(gradient, 1)


def _split_channels(gradient: tf.Tensor, groups: int) -> tf.Tensor:
    """`[b, ..., g * C]` to `[b, g, P, C]`."""
    positions, channels = _positions(gradient), gradient.shape[-1] // groups
    if groups == 1:
        return tf.reshape(gradient, [-1, 1, positions, channels])
    return tf.transpose(tf.reshape(gradient, [-1, positions, groups, channels]), [0, 2, 1, 3])


def _axes_last(x: tf.Tensor, axes: Sequence[int]) -> tf.Tensor:
    """With some axes moved to the end."""
    axes = [axis % x.shape.rank for axis in axes]
    others = [axis for axis in range(x.shape.rank) if axis not in axes]
    order = [*others, *axes]
    return x if order == sorted(order) else tf.transpose(x, order)


def _channels_last(layer: keras.Layer, x: tf.Tensor) -> tf.Tensor:
    return x if layer.data_format == "channels_last" else _axes_last(x, [1])


def _patches(layer: keras.Layer, x: tf.Tensor) -> tf.Tensor:
    """`[b, ..., c]` to `[b, P, taps, c]`: what the kernel sees at each output pixel."""
    taps = math.prod(layer.kernel_size)
    size, padding = taps * x.shape[-1], layer.padding.upper()
    if padding == "CAUSAL":
        before = layer.dilation_rate[0] * (layer.kernel_size[0] - 1)
        x, padding = tf.pad(x, [(0, 0), (before, 0), (0, 0)]), "VALID"
    if size <= _SMALL_PATCH:
        identity = tf.reshape(tf.eye(size, dtype=x.dtype), [*layer.kernel_size, -1, size])
        patches = tf.nn.convolution(
            x, identity, layer.strides, padding, dilations=layer.dilation_rate
        )
    elif len(layer.kernel_size) == 2:
        patches = tf.image.extract_patches(
            x,
            sizes=(1, *layer.kernel_size, 1),
            strides=(1, *layer.strides, 1),
            rates=(1, *layer.dilation_rate, 1),
            padding=padding,
        )
    else:
        patches = _slices(layer, x, padding)
    return tf.reshape(patches, [-1, _positions(patches), taps, x.shape[-1]])


def _slices(layer: keras.Layer, x: tf.Tensor, padding: str) -> tf.Tensor:
    """Patches `[b, ..., taps * c]` in any number of dimensions, a strided slice for each tap."""
    geometry = list(
        zip(x.shape[1:-1], layer.kernel_size, layer.strides, layer.dilation_rate, strict=True)
    )
    reach = [(kernel - 1) * dilation + 1 for _, kernel, _, dilation in geometry]
    if padding == "SAME":
        sizes = [-(-size // stride) for size, _, stride, _ in geometry]
        missing = [
            max(0, (out - 1) * stride + need - size)
            for out, need, (size, _, stride, _) in zip(sizes, reach, geometry, strict=True)
        ]
        x = tf.pad(x, [(0, 0), *[(pad // 2, pad - pad // 2) for pad in missing], (0, 0)])
    else:
        sizes = [
            (size - need) // stride + 1
            for need, (size, _, stride, _) in zip(reach, geometry, strict=True)
        ]
    taps = []
    for tap in itertools.product(*[range(kernel) for kernel in layer.kernel_size]):
        starts = [t * dilation for t, (_, _, _, dilation) in zip(tap, geometry, strict=True)]
        ranges = [
            slice(start, start + (out - 1) * stride + 1, stride)
            for start, out, (_, _, stride, _) in zip(starts, sizes, geometry, strict=True)
        ]
        taps.append(x[(slice(None), *ranges, slice(None))])
    return tf.concat(taps, axis=-1)


def _conv_inputs(layer: keras.Layer, x: tf.Tensor) -> tf.Tensor:
    patches = _patches(layer, _channels_last(layer, x))
    positions, taps, channels = patches.shape[1:]
    groups = layer.groups
    size = taps * channels // groups
    split = tf.reshape(patches, [-1, positions, taps, groups, channels // groups])
    split = split if groups == 1 else tf.transpose(split, [0, 3, 1, 2, 4])
    return _kernel_and_bias(layer, tf.reshape(split, [-1, groups, positions, size]))


def _conv_outputs(layer: keras.Layer, gradient: tf.Tensor) -> tf.Tensor:
    return _split_channels(_channels_last(layer, gradient), layer.groups)


def _depthwise_inputs(layer: keras.Layer, x: tf.Tensor) -> tf.Tensor:
    patches = _patches(layer, _channels_last(layer, x))
    return _kernel_and_bias(layer, tf.transpose(patches, [0, 3, 1, 2]))


def _depthwise_outputs(layer: keras.Layer, gradient: tf.Tensor) -> tf.Tensor:
    gradient = _channels_last(layer, gradient)
    return _split_channels(gradient, gradient.shape[-1] // layer.depth_multiplier)


def _transposed_inputs(layer: keras.Layer, x: tf.Tensor) -> tf.Tensor:
    return _split_channels(_channels_last(layer, x), 1)


def _transposed_outputs(layer: keras.Layer, gradient: tf.Tensor) -> tf.Tensor:
    patches = _patches(layer, _channels_last(layer, gradient))
    positions, taps, channels = patches.shape[1:]
    return tf.reshape(patches, [-1, 1, positions, taps * channels])


def _bias_inputs(layer: keras.Layer, x: tf.Tensor) -> tf.Tensor:
    """A constant input for each output pixel of a transposed convolution."""
    shape = layer.compute_output_shape([1, *x.shape[1:]])
    positions = math.prod(shape[1:]) // layer.filters
    return tf.ones_like(tf.reshape(x, [tf.shape(x)[0], -1])[:, :1, None, None]) * tf.ones(
        [positions, 1], x.dtype
    )


def _bias_outputs(layer: keras.Layer, gradient: tf.Tensor) -> tf.Tensor:
    return _split_channels(_channels_last(layer, gradient), 1)


def _embedding_inputs(layer: keras.Layer, x: tf.Tensor) -> tf.Tensor:
    numbers = tf.math.floormod(tf.cast(x, tf.int32), layer.input_dim)
    numbers = tf.reshape(numbers, [-1, 1, math.prod(x.shape[1:]), 1])
    return tf.cast(numbers, tf.float32)


def _scale_and_shift(layer: keras.Layer, normalized: tf.Tensor) -> tf.Tensor:
    """The inputs of a scale and a shift, of `[b, P, g]`: `[b, g, P, K]`."""
    parts = [normalized] if _trained(layer, "gamma", "scale") else []
    parts += [tf.ones_like(normalized)] if _trained(layer, "beta") else []
    return tf.transpose(tf.stack(parts, axis=-1), [0, 2, 1, 3])


def _normalized_axes(layer: keras.Layer) -> list[int]:
    return [layer.axis] if isinstance(layer.axis, int) else list(layer.axis)


def _flat_channels(layer: keras.Layer, x: tf.Tensor) -> tf.Tensor:
    """`[b, P, g]`, g the elements that have weights of their own."""
    axes = _normalized_axes(layer)
    channels = math.prod(x.shape[axis] for axis in axes)
    moved = _axes_last(x, axes)
    return tf.reshape(moved, [-1, math.prod(moved.shape[1:]) // channels, channels])


def _batch_normalization_inputs(layer: keras.Layer, x: tf.Tensor) -> tf.Tensor:
    x = _flat_channels(layer, x)
    deviation = tf.sqrt(layer.moving_variance + layer.epsilon)
    return _scale_and_shift(layer, (x - layer.moving_mean) / deviation)


def _layer_normalization_inputs(layer: keras.Layer, x: tf.Tensor) -> tf.Tensor:
    normalized = keras.ops.layer_normalization(x, axis=layer.axis, epsilon=layer.epsilon)
    return _scale_and_shift(layer, _flat_channels(layer, normalized))


def _rms_normalization_inputs(layer: keras.Layer, x: tf.Tensor) -> tf.Tensor:
    normalized = keras.ops.rms_normalization(x, axis=layer.axis, epsilon=layer.epsilon)
    return _scale_and_shift(layer, _flat_channels(layer, normalized))


def _group_normalization_inputs(layer: keras.Layer, x: tf.Tensor) -> tf.Tensor:
    x = _flat_channels(layer, x)
    positions, channels = x.shape[1:]
    groups = tf.reshape(x, [-1, positions, layer.groups, channels // layer.groups])
    mean, variance = tf.nn.moments(groups, [1, 3], keepdims=True)
    normalized = (groups - mean) / tf.sqrt(variance + layer.epsilon)
    return _scale_and_shift(layer, tf.reshape(normalized, [-1, positions, channels]))


def _normalization_outputs(layer: keras.Layer, gradient: tf.Tensor) -> tf.Tensor:
    gradient = _flat_channels(layer, gradient)
    return _split_channels(gradient, gradient.shape[-1])


@dataclasses.dataclass(frozen=True)
class _Einsum:
    """An equation's letters by their part in the gradient of the kernel.

    Attributes:
        inputs: of the layer's input, in order.
        outputs: of its output, in order.
        groups: in all three.
        contracted: in the kernel and the input only.
        produced: in the kernel and the output only.
        positions: in input and output only, the examples' first.
    """

    inputs: str
    outputs: str
    groups: str
    contracted: str
    produced: str
    positions: str


def _einsum(layer: keras.Layer, rank: int) -> _Einsum | None:
    """What an `EinsumDense` layer sums over, or None if some axis is in one place only."""
    x, rest = layer.equation.replace(" ", "").split(",")
    kernel, y = rest.split("->")
    unused = [chr(code) for code in range(ord("A"), ord("z")) if chr(code).isalpha()]
    unused = [letter for letter in unused if letter not in layer.equation]
    more = "".join(unused[: max(0, rank - len(x.replace("...", "")))])
    x, y = x.replace("...", more), y.replace("...", more)
    places = [set(x), set(kernel), set(y)]
    once = [c for c in set().union(*places) if sum(c in place for place in places) == 1]
    repeated = any(len(set(text)) < len(text) for text in (x, kernel, y))
    if once or repeated or x[0] != y[0] or x[0] in kernel:
        return None
    return _Einsum(
        x,
        y,
        "".join(c for c in kernel if c in x and c in y),
        "".join(c for c in kernel if c in x and c not in y),
        "".join(c for c in kernel if c in y and c not in x),
        "".join(c for c in x if c in y and c not in kernel),
    )


def _accepts_einsum(layer: keras.Layer) -> bool:
    found = _einsum(layer, layer.input_spec.ndim)
    if found is None or not _accepts_kernel(layer):
        return False
    return layer.bias is None or set(layer.bias_axes) == set(found.groups + found.produced)


def _einsum_factor(x: tf.Tensor, letters: str, groups: str, positions: str, last: str) -> tf.Tensor:
    """`[b, g, P, ...]` of a tensor whose axes are named."""
    order = [letters.index(c) for c in positions[0] + groups + positions[1:] + last]
    size = {c: x.shape[letters.index(c)] for c in letters}
    sizes = [math.prod(size[c] for c in part) for part in (groups, positions[1:], last)]
    return tf.reshape(tf.transpose(x, order), [-1, *sizes])


def _einsum_inputs(layer: keras.Layer, x: tf.Tensor) -> tf.Tensor:
    e = _einsum(layer, x.shape.rank)
    return _kernel_and_bias(layer, _einsum_factor(x, e.inputs, e.groups, e.positions, e.contracted))


def _einsum_outputs(layer: keras.Layer, gradient: tf.Tensor) -> tf.Tensor:
    e = _einsum(layer, layer.input_spec.ndim)
    return _einsum_factor(gradient, e.outputs, e.groups, e.positions, e.produced)


def _always(layer: keras.Layer) -> bool:
    return True


def _accepts_kernel(layer: keras.Layer) -> bool:
    return not isinstance(layer.activation, keras.Layer)


def _accepts_embedding(layer: keras.Layer) -> bool:
    # Numbers are compared in float32, exact up to 2^24.
    return layer.input_dim < 2**24


def _accepts_layer_normalization(layer: keras.Layer) -> bool:
    return not layer.rms_scaling


def _register_all() -> None:
    kinds = keras.layers
    register(kinds.Dense, Rule(_accepts_kernel, _dense_inputs, _dense_outputs))
    register(kinds.EinsumDense, Rule(_accepts_einsum, _einsum_inputs, _einsum_outputs))
    for kind in (kinds.Conv1D, kinds.Conv2D, kinds.Conv3D):
        register(kind, Rule(_accepts_kernel, _conv_inputs, _conv_outputs))
    for kind in (kinds.DepthwiseConv1D, kinds.DepthwiseConv2D):
        register(kind, Rule(_accepts_kernel, _depthwise_inputs, _depthwise_outputs))
    transposed = Rule(
        _accepts_kernel,
        _transposed_inputs,
        _transposed_outputs,
        weights=lambda layer: _trained(layer, "kernel"),
    )
    bias = Rule(
        _accepts_kernel,
        _bias_inputs,
        _bias_outputs,
        weights=lambda layer: _trained(layer, "bias"),
        name="bias",
    )
    for kind in (kinds.Conv1DTranspose, kinds.Conv2DTranspose, kinds.Conv3DTranspose):
        register(kind, transposed, bias)
    embedding = Rule(_accepts_embedding, _embedding_inputs, _dense_outputs, lookup=True)
    register(kinds.Embedding, embedding)
    for kind, accepts, inputs in (
        (kinds.BatchNormalization, _always, _batch_normalization_inputs),
        (kinds.LayerNormalization, _accepts_layer_normalization, _layer_normalization_inputs),
        (kinds.RMSNormalization, _always, _rms_normalization_inputs),
        (kinds.GroupNormalization, _always, _group_normalization_inputs),
    ):
        register(kind, Rule(accepts, inputs, _normalization_outputs))
    for kind, unscaled in ((NTKDense, kinds.Dense), (NTKConv2D, kinds.Conv2D)):
        (rule,) = registered(unscaled)
        register(kind, scaled(rule, lambda own: own.kernel_scale, lambda own: own.bias_scale))


_register_all()
