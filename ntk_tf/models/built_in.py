"""The package's own architectures, in any set of layers."""

import functools
import importlib
from collections.abc import Callable, Mapping
from typing import Any

import keras

from ntk_tf.catalogue import architectures
from ntk_tf.models import arguments as keywords
from ntk_tf.models.arguments import ArchitectureError
from ntk_tf.models.ntk_scaled import NTKScaled
from ntk_tf.models.standard import Standard

#: The sets of layers that make Keras models, by parametrization.
LAYERS = {"standard": Standard, "ntk": NTKScaled}


def resolve(
    arch: str, layers: type, arguments: Mapping[str, Any]
) -> tuple[dict[str, Any], Callable[..., Any]]:
    """Divide arguments between an architecture and its set of layers.

    What the set takes by keyword only, such as sigma_w, and the arguments do not name, is in the
    architecture's row of the catalogue.

    Args:
        arch: a key of `catalogue.architectures.ARCHITECTURES`.
        layers: class of the set; see `models.standard`.
        arguments: of the architecture and of the set, by name.

    Returns:
        Keyword arguments for the set's constructor, and what maps a set, inputs and a number of
        classes to outputs.

    Raises:
        ValueError: for an unknown architecture.
        ArchitectureError: for an argument that neither takes.
    """
    if arch not in architectures.ARCHITECTURES:
        names = ", ".join(architectures.ARCHITECTURES)
        raise ValueError(f"arch={arch!r}: must be one of {names}")
    row = architectures.ARCHITECTURES[arch]
    module, _, name = row.function.partition(":")
    function = getattr(importlib.import_module(module), name)
    its, sets = keywords.keyword_only(function), keywords.keyword_only(layers)
    keywords.check(arch, arguments, its + sets)
    for_set = {name: arguments.get(name, getattr(row, name)) for name in sets}
    return for_set, functools.partial(function, **{k: arguments[k] for k in its if k in arguments})


def build(
    arch: str,
    width: float,
    num_classes: int,
    input_shape: tuple[int, ...],
    seed: int,
    parametrization: str,
    arguments: Mapping[str, Any],
) -> keras.Model:
    """See `models.build`.

    Raises:
        ValueError: see there.
        ArchitectureError: see there.
    """
    if parametrization not in LAYERS:
        raise ValueError(f"parametrization={parametrization!r}: must be one of {', '.join(LAYERS)}")
    for_set, function = resolve(arch, LAYERS[parametrization], arguments)
    if len(input_shape) != 3 and not architectures.ARCHITECTURES[arch].takes_vectors:
        raise ArchitectureError(
            f"arch={arch!r}: takes pictures (height, width, channels), not {input_shape}"
        )
    inputs = keras.Input(input_shape)
    try:
        outputs = function(LAYERS[parametrization](width, seed, **for_set), inputs, num_classes)
    except (TypeError, ValueError) as error:  # of Keras, for too small a picture among others
        given = [f"{name}={value!r}" for name, value in arguments.items()]
        raise ArchitectureError(
            f"arch={arch!r}: cannot be built for input_shape={tuple(input_shape)}"
            f"{' with ' * bool(given)}{', '.join(given)} ({keywords.one_line(error)})"
        ) from error
    return keras.Model(inputs, outputs, name=arch)
