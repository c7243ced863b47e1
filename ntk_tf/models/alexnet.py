"""AlexNet in the variant of Krizhevsky (2014), "One weird trick", as in torchvision."""

import functools


def alexnet(layers, inputs, num_classes: int):
    """AlexNet's outputs; there is no dropout.

    Args:
        layers: set of layers; see `models.standard`.
        inputs: pictures `[b, h, w, 3]`, h and w at least 63; 224 in the paper.
        num_classes: L.

    Returns:
        `[b, L]`.
    """
    conv = functools.partial(layers.conv, activation="relu")
    x = conv(inputs, 64, 11, strides=4, padding=2, name="conv1")
    x = layers.max_pool(x, 3, 2, name="pool1")
    x = conv(x, 192, 5, padding=2, name="conv2")
    x = layers.max_pool(x, 3, 2, name="pool2")
    x = conv(x, 384, 3, padding=1, name="conv3")
    x = conv(x, 256, 3, padding=1, name="conv4")
    x = conv(x, 256, 3, padding=1, name="conv5")
    x = layers.max_pool(x, 3, 2, name="pool5")
    x = layers.adaptive_average_pool(x, 6, name="average_pool")
    x = layers.flatten(x, name="flatten")
    x = layers.dense(x, 4096, activation="relu", name="dense6")
    x = layers.dense(x, 4096, activation="relu", name="dense7")
    return layers.outputs(x, num_classes)
