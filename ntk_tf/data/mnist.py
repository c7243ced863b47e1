"""`mnist` through TFDS: downloaded, already prepared, or from the four original files."""

from ntk_tf.data import tfds_files
from ntk_tf.data.source import Origin, Source

#: Under the names that LeCun, Cortes and Burges published the files with.
PUBLISHED = tfds_files.Published(
    "mnist",
    files=(
        "train-images-idx3-ubyte.gz",
        "train-labels-idx1-ubyte.gz",
        "t10k-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz",
    ),
)


def find(origin: Origin) -> str:
    """Say where the data would come from, without reading it; see `tfds_files.find`."""
    return tfds_files.find(PUBLISHED, origin)


def prepare(origin: Origin) -> None:
    """Prepare the dataset where that has not been done, to the files that `load` keeps."""
    tfds_files.load(PUBLISHED, origin)


def load(origin: Origin) -> Source:
    """Read MNIST, preparing it first where that has not been done; see `tfds_files.load`.

    Mean and standard deviation of the training pixels are the customary .1307 and .3081.
    """
    train, test = tfds_files.load(PUBLISHED, origin)
    return Source(train, test, mean=(0.1307,), std=(0.3081,))
