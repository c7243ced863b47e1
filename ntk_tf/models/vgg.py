"""VGG-11 (Simonyan and Zisserman 2015) for small pictures, as of Chizat et al. (2019)."""

#: Channels of the convolutions before each max pooling.
STAGES = ((64,), (128,), (256, 256), (512, 512), (512, 512))


def vgg11(layers, inputs, num_classes: int):
    """VGG-11's outputs, without batch normalization and with one dense layer.

    Chizat et al. (github.com/edouardoyallon/lazy-training-CNN, cnn/models) list a sixth pooling, of
    a single pixel, which PyTorch refuses. Here a pooling that would have nothing left to pool is
    left out: the fifth one of 28x28 pictures too.

    Args:
        layers: set of layers; see `models.standard`.
        inputs: pictures `[b, h, w, c]`; 32x32 in the source.
        num_classes: L.

    Returns:
        `[b, L]`.
    """
    x = inputs
    for stage, convolutions in enumerate(STAGES, 1):
        for i, filters in enumerate(convolutions, 1):
            name = f"stage{stage}_conv{i}"
            x = layers.conv(x, filters, 3, padding=1, activation="relu", name=name)
        if layers.side(x) > 1:
            x = layers.max_pool(x, 2, name=f"stage{stage}_pool")
    x = layers.flatten(x, name="flatten")
    return layers.outputs(x, num_classes)
