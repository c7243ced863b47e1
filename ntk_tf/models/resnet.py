"""ResNet-18 (He et al. 2016) for small pictures, as of Chizat et al. (2019)."""


def resnet18(layers, inputs, num_classes: int, *, batch_norm: bool = False):
    """ResNet-18's outputs.

    Chizat et al. (github.com/edouardoyallon/lazy-training-CNN, cnn/models) leave batch
    normalization out. The last pooling is over the whole picture, as theirs over 4x4 pixels is for
    32x32 pictures.

    Args:
        layers: set of layers; see `models.standard`.
        inputs: pictures `[b, h, w, c]`; 32x32 in the source.
        num_classes: L.
        batch_norm: whether a batch normalization follows each convolution and stands for its bias,
            as is usual where the network is trained for its accuracy.

    Returns:
        `[b, L]`.
    """

    def conv(x, filters, kernel_size, strides, name):
        arguments = filters, kernel_size, strides, kernel_size // 2
        x = layers.conv(x, *arguments, use_bias=not batch_norm, name=name)
        return layers.norm(x, name=f"{name}_norm") if batch_norm else x

    def block(x, filters, strides, changes, name):
        y = conv(x, filters, 3, strides, f"{name}_conv1")
        y = layers.activation(y, "relu", name=f"{name}_relu1")
        y = conv(y, filters, 3, 1, f"{name}_conv2")
        shortcut = conv(x, filters, 1, strides, f"{name}_shortcut") if changes else x
        y = layers.add(y, shortcut, name=f"{name}_add")
        return layers.activation(y, "relu", name=f"{name}_relu2")

    x = layers.activation(conv(inputs, 64, 3, 1, "conv"), "relu", name="relu")
    for group, filters in enumerate((64, 128, 256, 512), 1):
        first = group > 1  # whose first block halves the picture and doubles the channels
        x = block(x, filters, 1 + first, first, f"group{group}_block1")
        x = block(x, filters, 1, False, f"group{group}_block2")
    x = layers.global_average_pool(x, name="average_pool")
    return layers.outputs(x, num_classes)
