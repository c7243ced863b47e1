"""Wide residual networks without batch normalization, as of Lee et al. (2019)."""


def wrn(layers, inputs, num_classes: int, *, blocks: int = 1, channels: int = 1024):
    """The outputs of a wide residual network.

    The layers are those of neural-tangents' README; that all have 1,024 channels, and one block a
    group, is the paper's table S1, from memory. Padding is as there: where a stride halves an even
    picture, the one zero is behind. The last pooling is over the whole picture, as theirs over 8x8
    pixels is for 32x32 pictures.

    Args:
        layers: set of layers; see `models.standard`.
        inputs: pictures `[b, h, w, c]`; 32x32 in the source.
        num_classes: L.
        blocks: number of residual blocks in each of the three groups.
        channels: of all convolutions, at width 1.

    Returns:
        `[b, L]`.

    """

    def conv(x, strides, name):
        return layers.conv(x, channels, 3, strides, "same", name=name)

    def block(x, strides, changes, name):
        y = layers.activation(x, "relu", name=f"{name}_relu1")
        y = conv(y, strides, f"{name}_conv1")
        y = layers.activation(y, "relu", name=f"{name}_relu2")
        y = conv(y, 1, f"{name}_conv2")
        shortcut = conv(x, strides, f"{name}_shortcut") if changes else x
        return layers.add(y, shortcut, name=f"{name}_add")

    x = conv(inputs, 1, "conv")
    for group, strides in enumerate((1, 2, 2), 1):
        x = block(x, strides, True, f"group{group}_block1")
        for i in range(2, blocks + 1):
            x = block(x, 1, False, f"group{group}_block{i}")
    x = layers.global_average_pool(x, name="average_pool")
    return layers.outputs(x, num_classes)
