"""Multilayer perceptrons, as of Jacot, Gabriel and Hongler (2018) and of Lee et al. (2019)."""


def mlp(
    layers, inputs, num_classes: int, *, depth: int = 4, units: int = 100, activation: str = "relu"
):
    """The outputs of a multilayer perceptron.

    With the defaults it is the network of Jacot et al., section 6: at widths 1, 10 and 100 it has
    their 100, 1,000 and 10,000 units. Lee et al. have 5 hidden ReLU layers of 2,048 units, and in
    their example on MNIST one of 512 with the error function.

    Args:
        layers: set of layers; see `models.standard`.
        inputs: vectors `[b, d]`, or pictures, which are flattened.
        num_classes: L.
        depth: number of dense layers, the last one included; at least 1.
        units: of each but the last, at width 1.
        activation: behind each but the last; see `models.standard.Standard.conv`.

    Returns:
        `[b, L]`.

    """
    x = layers.flatten(inputs, name="flatten")
    for i in range(1, depth):
        x = layers.dense(x, units, activation=activation, name=f"dense{i}")
    return layers.outputs(x, num_classes)
