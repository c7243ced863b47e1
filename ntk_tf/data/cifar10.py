"""`cifar10` through TFDS: downloaded, already prepared, or from the original archive."""

from ntk_tf.data import tfds_files
from ntk_tf.data.source import Origin, Source

#: Krizhevsky's archive of the binary version; TFDS records its SHA-256.
PUBLISHED = tfds_files.Published(
    "cifar10",
    files=("cifar-10-binary.tar.gz",),
    host="https://www.cs.toronto.edu",
)

#: Of the 50,000 original training pictures / 255, per channel, over all pixels: the customary
#: constants. `tests/data/test_cifar10.py` computes them anew where the pictures are at hand.
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)


def find(origin: Origin) -> str:
    """Say where the data would come from, without reading it; see `tfds_files.find`."""
    return tfds_files.find(PUBLISHED, origin)


def prepare(origin: Origin) -> None:
    """Prepare the dataset where that has not been done, to the files that `load` keeps."""
    tfds_files.load(PUBLISHED, origin)


def load(origin: Origin) -> Source:
    """Read CIFAR-10, preparing it first where that has not been done; see `tfds_files.load`."""
    train, test = tfds_files.load(PUBLISHED, origin)
    return Source(train, test, MEAN, STD)
