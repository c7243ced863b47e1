"""`mnist` through TFDS: downloaded, already prepared, or from the four original files."""

from ntk_tf.data import tfds_files
from ntk_tf.data.source import Origin, Source

#: The original files, under the names that LeCun, Cortes and Burges published them with.
FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
HOST = "https://storage.googleapis.com"


def find(origin: Origin) -> str:
    """Say where the data would come from, without reading it; see `tfds_files.find`."""
    return tfds_files.find("mnist", FILES, HOST, origin)


def load(origin: Origin) -> Source:
    """Read MNIST, preparing it first where that has not been done; see `tfds_files.load`.

    Mean and standard deviation of the training pixels are the customary .1307 and .3081.
    """
    train, test = tfds_files.load("mnist", FILES, HOST, origin)
    return Source(train, test, mean=(0.1307,), std=(0.3081,))
