"""LeNet-5 (LeCun et al. 1998) with ReLU and max pooling, as common today."""


def lenet(layers, inputs, num_classes: int, *, kernel_size: int = 5, pooling: str = "max"):
    """LeNet's outputs.

    Args:
        layers: set of layers; see `models.standard`.
        inputs: pictures `[b, h, w, c]`, h and w at least 16 with kernels of side 5.
        num_classes: L.
        kernel_size: side of both kernels. PyTorch's tutorial had 3 from 2019 to 2020.
        pooling: `max`, or `average` as in LeCun's.

    Returns:
        `[b, L]`.

    Raises:
        ValueError: for another pooling.
    """
    pools = {"max": layers.max_pool, "average": layers.average_pool}
    if pooling not in pools:
        raise ValueError(f"pooling={pooling!r}: must be one of {', '.join(pools)}")
    x = layers.conv(inputs, 6, kernel_size, activation="relu", name="conv1")
    x = pools[pooling](x, 2, name="pool1")
    x = layers.conv(x, 16, kernel_size, activation="relu", name="conv2")
    x = pools[pooling](x, 2, name="pool2")
    x = layers.flatten(x, name="flatten")
    x = layers.dense(x, 120, activation="relu", name="dense1")
    x = layers.dense(x, 84, activation="relu", name="dense2")
    return layers.outputs(x, num_classes)
