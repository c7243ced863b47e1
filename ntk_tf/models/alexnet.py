"""AlexNet in the variant of Krizhevsky (2014), "One weird trick", as in torchvision."""

import keras

from ntk_tf.models.layers import AdaptiveAveragePooling2D, MaxPooling2D, TorchInitialization


def alexnet(inputs, channels, num_classes: int, init: TorchInitialization):
    """AlexNet's outputs; there is no dropout.

    Args:
        inputs: Keras tensor `[b, h, w, 3]`, h and w at least 63; 224 in the paper.
        channels: maps a number of channels or units at width 1 to that at the model's width.
        num_classes: L.
        init: makes the layers.

    Returns:
        Keras tensor `[b, L]`.
    """
    x = init.conv(inputs, channels(64), 11, strides=4, padding=2, name="conv1")
    x = MaxPooling2D(3, 2, name="pool1")(x)
    x = init.conv(x, channels(192), 5, padding=2, name="conv2")
    x = MaxPooling2D(3, 2, name="pool2")(x)
    x = init.conv(x, channels(384), 3, padding=1, name="conv3")
    x = init.conv(x, channels(256), 3, padding=1, name="conv4")
    x = init.conv(x, channels(256), 3, padding=1, name="conv5")
    x = MaxPooling2D(3, 2, name="pool5")(x)
    if tuple(x.shape[1:3]) != (6, 6):
        x = AdaptiveAveragePooling2D(6, name="average_pool")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = init.dense(x, channels(4096), name="dense6")
    x = init.dense(x, channels(4096), name="dense7")
    return init.dense(x, num_classes, activation=None, name="outputs")
