"""CNN-V and CNN-GAP of Arora et al. (2019), "On exact computation with an infinitely wide net".

What follows the 3x3 convolutions is a dense layer of all pixels (V, "vanilla"), or of their mean
(GAP, global average pooling). The kernels of these networks at infinite width are those of
github.com/ruosongwang/CNTK: in NTK parametrization the first convolution's weights are not scaled,
the others' by sqrt(2 / fan_in). The 1,024 channels of the finite networks are from
memory of the paper.
"""


def cnn_v(layers, inputs, num_classes: int, *, depth: int = 4, channels: int = 1024):
    """CNN-V's outputs; there are no biases.

    Args:
        layers: set of layers; see `models.standard`.
        inputs: pictures `[b, h, w, c]`; 32x32 in the source.
        num_classes: L.
        depth: number of layers with weights, the dense one included; at least 2. The source has 3,
            4, 6, 11 and 21.
        channels: of the convolutions, at width 1.

    Returns:
        `[b, L]`.

    Raises:
        ValueError: for a smaller depth.
    """
    x = layers.flatten(_convolutions(layers, inputs, depth, channels), name="flatten")
    return layers.outputs(x, num_classes, use_bias=False)


def cnn_gap(layers, inputs, num_classes: int, *, depth: int = 4, channels: int = 1024):
    """CNN-GAP's outputs; there are no biases.

    Args:
        layers: see `cnn_v`.
        inputs: see `cnn_v`.
        num_classes: L.
        depth: see `cnn_v`.
        channels: see `cnn_v`.

    Returns:
        `[b, L]`.

    Raises:
        ValueError: for a smaller depth.
    """
    x = layers.global_average_pool(
        _convolutions(layers, inputs, depth, channels), name="average_pool"
    )
    return layers.outputs(x, num_classes, use_bias=False)


def _convolutions(layers, x, depth: int, channels: int):
    if depth < 2:
        raise ValueError(f"depth={depth}: must be at least 2")
    for i in range(1, depth):
        x = layers.conv(
            *(x, channels, 3),
            padding=1,
            activation="relu",
            use_bias=False,
            weight_factor=1.0 if i == 1 else None,
            name=f"conv{i}",
        )
    return x
