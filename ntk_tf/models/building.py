"""Networks of the package's architectures and of the user's own, as Keras models."""

import contextlib
import functools
import math
import numbers
import operator
from collections.abc import Iterator
from typing import Any

import keras

from ntk_tf import private
from ntk_tf.catalogue import architectures
from ntk_tf.models import arguments as keywords
from ntk_tf.models import own
from ntk_tf.models.ntk_scaled import NTKScaled
from ntk_tf.models.standard import Standard

#: The sets of layers that make Keras models, by parametrization.
LAYERS = {"standard": Standard, "ntk": NTKScaled}


def build(
    arch: str,
    width: float,
    num_classes: int,
    input_shape: tuple[int, ...],
    seed: int = 0,
    parametrization: str = "standard",
    **arguments: Any,
) -> keras.Model:
    """Build a network at its initialization.

    Args:
        arch: a key of `catalogue.architectures.ARCHITECTURES`, or `PACKAGE.MODULE:FUNCTION` of the
            user's own; see `models.own`.
        width: width factor k > 0: every convolution's channels and every hidden dense layer's units
            are k times those at width 1, rounded, at least 1. The output layer keeps `num_classes`.
        num_classes: number of outputs, L.
        input_shape: (height, width, channels) of a picture, or (d,) of a vector where the
            architecture takes such.
        seed: fixes the weights, drawn as PyTorch does by default, U(-1/sqrt(fan_in),
            1/sqrt(fan_in)), where the architecture's source does not say otherwise.
        parametrization: a key of `LAYERS`; an architecture of the user's has its own.
        **arguments: keyword arguments of the architecture's function, and of the parametrization.

    Returns:
        A model that maps `[b, *input_shape]` to `[b, L]`, without a final activation; a functional
        one if the architecture is the package's.

    Raises:
        ValueError: for an unknown architecture or parametrization, or a width that is not positive.
        ArchitectureError: a ValueError, for an argument that the architecture does not take, or
            where it cannot be built.
    """
    if not isinstance(arch, str):
        raise ValueError(f"arch={arch!r}: must be a name, or 'PACKAGE.MODULE:FUNCTION' of your own")
    architectures.find(arch)
    if not 0 < width < math.inf:
        raise ValueError(f"width={width}: must be above 0, and finite")
    num_classes = operator.index(num_classes)
    if not isinstance(seed, numbers.Integral) or seed < 0:
        raise ValueError(f"seed={seed}: must be a whole number of at least 0")
    if architectures.is_own(arch):
        if parametrization != "standard":
            raise ValueError(
                f"parametrization={parametrization!r}: must be 'standard' for {arch!r}, which has"
                " its own"
            )
        return own.build(arch, width, num_classes, input_shape, seed, arguments)
    if parametrization not in LAYERS:
        raise ValueError(f"parametrization={parametrization!r}: must be one of {', '.join(LAYERS)}")
    layers = functools.partial(LAYERS[parametrization], width, seed)
    shape = tuple(map(operator.index, input_shape))
    if min(shape, default=0) < 1:
        raise ValueError(f"input_shape={shape}: must be at least one number, each at least 1")
    inputs = keras.Input(shape, dtype=keras.config.dtype_policy().variable_dtype)
    with _channels_last():
        outputs = keywords.apply(arch, layers, inputs, shape, num_classes, arguments)
    return keras.Model(inputs, outputs, name=arch)


@contextlib.contextmanager
def _channels_last() -> Iterator[None]:
    """Layers made inside take `[b, h, w, c]`, whatever Keras is configured for."""
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_last")
    try:
        yield
    finally:
        keras.config.set_image_data_format(before)


def freeze_biases(model: keras.Model) -> None:
    """Leave all biases as they are: not trainable, and in no linearization made afterwards.

    Biases are the weights whose names end in `bias`, at every depth, as Keras calls all of its own
    but the shifts of normalizations. Keras does not save this with a model.

    Args:
        model: a built network.

    Raises:
        ValueError: if it is not built.
    """
    if not model.built:
        raise ValueError(f"{model.name} is not built: its biases are not known yet")
    for weight in model.trainable_weights:
        if weight.name.endswith("bias"):
            weight.trainable = False


@contextlib.contextmanager
def shapes_only() -> Iterator[None]:
    """Models built inside have layers and shapes, but no values: they take no memory or time.

    Keras defers initialization inside a stateless scope to the scope's end; here it never happens.

    Yields:
        Nothing.
    """
    with keras.StatelessScope():
        yield
        private.forget_uninitialized_variables()
