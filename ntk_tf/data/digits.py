"""`digits`: 1,797 real handwritten digits of 8x8 pixels that scikit-learn brings along.

They are the test part of the UCI "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak
1998), written by 13 people one after the other. The last 360 pictures are the test set here, so
most of its writers are new to the network.
"""

import numpy as np

from ntk_tf.data.source import Origin, Source, Split

TEST_EXAMPLES = 360


def find(origin: Origin) -> str:
    """Say where the data would come from: it is embedded, whatever the origin."""
    return "embedded"


def prepare(origin: Origin) -> None:
    """There is nothing to prepare."""


def load(origin: Origin) -> Source:
    """Read the digits; the 16 grey levels are brought to 0..255."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = bunch.target.astype(np.int64)
    train = Split(images[:-TEST_EXAMPLES], labels[:-TEST_EXAMPLES])
    test = Split(images[-TEST_EXAMPLES:], labels[-TEST_EXAMPLES:])
    pixels = train.images / 255
    return Source(train, test, mean=(float(pixels.mean()),), std=(float(pixels.std()),))
