"""LeNet-5 (LeCun et al. 1998) with ReLU and max pooling, as common today."""

import keras

from ntk_tf.models.layers import MaxPooling2D, TorchInitialization


def lenet(inputs, channels, num_classes: int, init: TorchInitialization):
    """LeNet's outputs.

    Args:
        inputs: Keras tensor `[b, h, w, c]`, h and w at least 16.
        channels: maps a number of channels or units at width 1 to that at the model's width.
        num_classes: L.
        init: makes the layers.

    Returns:
        Keras tensor `[b, L]`.
    """
    x = init.conv(inputs, channels(6), 5, name="conv1")
    x = MaxPooling2D(2, name="pool1")(x)
    x = init.conv(x, channels(16), 5, name="conv2")
    x = MaxPooling2D(2, name="pool2")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = init.dense(x, channels(120), name="dense1")
    x = init.dense(x, channels(84), name="dense2")
    return init.dense(x, num_classes, activation=None, name="outputs")
