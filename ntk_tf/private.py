"""Names that TensorFlow and Keras keep for themselves, and why there is no public way."""

import keras


def flatten_layers(model: keras.Layer) -> list[keras.Layer]:
    """All layers inside of a model at any depth; `model.layers` shows but the outermost."""
    return list(model._flatten_layers(include_self=False))
