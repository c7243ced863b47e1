"""`digits`: 1,797 real handwritten digits of 8x8 pixels that scikit-learn brings along.

They are the test part of the UCI "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak
1998), written by 13 people one after the other. The last 360 pictures are the test set here, so
most of its writers are new to the network.
"""

import gzip
import importlib.metadata

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
    table = _table()
    images = np.round(table[:, :-1] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    labels = table[:, -1].astype(np.int64)
    train = Split(images[:-TEST_EXAMPLES], labels[:-TEST_EXAMPLES])
    test = Split(images[-TEST_EXAMPLES:], labels[-TEST_EXAMPLES:])
    pixels = train.images / 255
    return Source(train, test, mean=(float(pixels.mean()),), std=(float(pixels.std()),))


def _table() -> np.ndarray:
    """What `sklearn.datasets.load_digits` reads, `[1797, 64 + 1]`: loading it takes longer."""
    package = importlib.metadata.distribution("scikit-learn")
    path = package.locate_file("sklearn/datasets/data/digits.csv.gz")
    with gzip.open(str(path)) as file:
        return np.loadtxt(file, delimiter=",")
