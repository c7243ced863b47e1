"""The paper's architectures as Keras models, each with a width factor."""

import contextlib
from collections.abc import Iterator

import keras
from keras.src.backend.common import global_state

from ntk_tf.models.alexnet import alexnet
from ntk_tf.models.layers import MaxPooling2D, TorchInitialization
from ntk_tf.models.lenet import lenet

__all__ = ["ARCHITECTURES", "MaxPooling2D", "build", "freeze_biases", "shapes_only"]

ARCHITECTURES = {"lenet": lenet, "alexnet": alexnet}


def build(
    arch: str,
    width: float,
    num_classes: int,
    input_shape: tuple[int, int, int],
    seed: int = 0,
) -> keras.Model:
    """Build a network at its initialization.

    Args:
        arch: a key of `ARCHITECTURES`.
        width: width factor k > 0: every convolution's channels and every hidden dense layer's units
            are k times those at width 1, rounded, at least 1. The output layer keeps `num_classes`.
        num_classes: number of outputs, L.
        input_shape: (height, width, channels) of a picture.
        seed: fixes the weights, drawn as PyTorch does by default, U(-1/sqrt(fan_in),
            1/sqrt(fan_in)).

    Returns:
        A functional model that maps `[b, *input_shape]` to `[b, L]`, without a final activation.

    Raises:
        ValueError: for an unknown architecture or a width that is not positive.
    """
    if arch not in ARCHITECTURES:
        raise ValueError(f"arch={arch!r}: must be one of {', '.join(ARCHITECTURES)}")
    if not width > 0:
        raise ValueError(f"width={width}: must be above 0")

    def channels(count: int) -> int:
        return max(1, round(width * count))

    inputs = keras.Input(input_shape)
    outputs = ARCHITECTURES[arch](inputs, channels, num_classes, TorchInitialization(seed))
    return keras.Model(inputs, outputs, name=arch)


def freeze_biases(model: keras.Model) -> None:
    """Leave all biases as they are: not trainable, and in no linearization made afterwards.

    Keras does not save this with a model.

    Args:
        model: a built network of layers in a row.
    """
    for layer in model.layers:
        if getattr(layer, "use_bias", False):
            layer.bias.trainable = False


@contextlib.contextmanager
def shapes_only() -> Iterator[None]:
    """Models built inside have layers and shapes, but no values: they take no memory or time.

    Keras defers initialization inside a stateless scope to the scope's end; here it never happens.

    Yields:
        Nothing.
    """
    with keras.StatelessScope():
        yield
        global_state.set_global_attribute("uninitialized_variables", [])
