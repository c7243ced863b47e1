"""Your own network on your own data: a function and a file are all that it takes.

    cd examples
    python own_network.py
    python -m ntk_tf.main --arch=own_network:build --dataset=pictures.npz --epochs=10
    python -m ntk_tf.main --arch=own_network:build --dataset=pictures.npz --epochs=10 --linearized
    python -m ntk_tf.report

The program itself makes up pictures of 20x20x3 in 7 classes and writes them to pictures.npz.
"""

import keras
import numpy as np
from keras import layers


def build(input_shape, num_classes, width, seed, kernel_size=3):
    """A residual network with batch normalization, as wide as `--width` says.

    What it draws follows from the seed; `--arch_args=kernel_size=5` sets the last argument.
    """
    inputs = keras.Input(input_shape)
    x = layers.Conv2D(8 * width, kernel_size, padding="same", activation="relu")(inputs)
    y = layers.Conv2D(8 * width, kernel_size, padding="same")(x)
    x = layers.ReLU()(layers.add([x, layers.BatchNormalization()(y)]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(num_classes)(x))


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(500) % 7)
    colours = rng.integers(0, 256, (7, 1, 1, 3))
    x = ((colours[y] + rng.integers(0, 256, (500, 20, 20, 3))) // 2).astype(np.uint8)
    np.savez("pictures.npz", x_train=x[:400], y_train=y[:400], x_test=x[400:], y_test=y[400:])
