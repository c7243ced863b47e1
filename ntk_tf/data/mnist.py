"""`mnist` through TFDS: downloaded, already prepared, or from the four original files."""

from ntk_tf.data import tfds_files
from ntk_tf.data.source import Source

#: The original files, under the names that LeCun, Cortes and Burges published them with.
FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
HOST = "https://storage.googleapis.com"


def find(data_dir: str | None, manual_dir: str | None) -> str:
    """Say where the data would come from, without reading it; see `tfds_files.find`."""
    return tfds_files.find("mnist", FILES, HOST, data_dir, manual_dir)


def load(data_dir: str | None, manual_dir: str | None) -> Source:
    """Read MNIST, preparing it first where that has not been done; see `tfds_files.load`.

    Mean and standard deviation of the training pixels are the customary .1307 and .3081.
    """
    train, test = tfds_files.load("mnist", FILES, HOST, data_dir, manual_dir)
    return Source(train, test, mean=(0.1307,), std=(0.3081,))
