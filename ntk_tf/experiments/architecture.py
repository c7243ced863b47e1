"""A configuration's network at initialization: built, or only counted, without TensorFlow."""

import contextlib
import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ntk_tf import models
from ntk_tf.catalogue import architectures
from ntk_tf.models import shapes
from ntk_tf.models.arguments import UnknownActivationError
from ntk_tf.process import startup
from ntk_tf.settings import SettingError

if TYPE_CHECKING:
    import keras


def build(config: Any) -> "keras.Model":
    """The network that a configuration's `Network` settings describe.

    Raises:
        SettingError: if the architecture cannot be built for these pictures.
    """
    with _refusals(config):
        return models.build(**_arguments(config), seed=config.seed)


@functools.lru_cache(maxsize=1)
def counts(config: Any) -> shapes.Counts:
    """The network's size; TensorFlow is imported for architectures of the user's.

    Raises:
        SettingError: if the architecture cannot be built for these pictures.
    """
    if not architectures.is_own(config.arch):
        with contextlib.suppress(UnknownActivationError), _refusals(config):
            return shapes.count(**_arguments(config), train_biases=config.train_biases)
    startup.import_tensorflow(config.small)
    from ntk_tf.models import size

    return size.count(_outline(config), config.input_shape)


def _outline(config: Any) -> "keras.Model":
    """The network for its shapes; one of ours without values, see `models.shapes_only`."""
    own = architectures.is_own(config.arch)  # what it does may need values
    with contextlib.nullcontext() if own else models.shapes_only():
        model = build(config)
        if not config.train_biases:
            models.freeze_biases(model)
    return model


def _arguments(config: Any) -> dict[str, Any]:
    return {
        "arch": config.arch,
        "width": config.width,
        "num_classes": config.num_classes,
        "input_shape": config.input_shape,
        "parametrization": config.parametrization,
        **config.layer_arguments,
        **config.arguments,
    }


@contextlib.contextmanager
def _refusals(config: Any) -> Iterator[None]:
    """Errors of an architecture, as those of the settings.

    Raises:
        SettingError: in place of an `ArchitectureError`.
    """
    try:
        yield
    except models.ArchitectureError as error:
        text = str(error).replace(repr(config.arch), config.arch)
        said = "--" if text.startswith("arch=") else f"--arch_args={config.arch_args}: "
        raise SettingError(said + text) from error
