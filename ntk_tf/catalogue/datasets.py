"""The built-in datasets: a row each. Another one is a module in `ntk_tf.data` and a row here."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Card:
    """What is known of a dataset without reading its pictures.

    Attributes:
        name: on the command line.
        title: for readers.
        shape: of a picture, (height, width, channels), or `(d,)` of a vector; photographs that
            have no size of their own have the one that LeNet sees.
        classes: number L of labels.
        train: number of training pictures; 0 where TFDS learns it by preparing the data.
        test: number of test pictures, likewise.
        module: that finds, prepares and loads one of the package's own.
        embedded: whether it needs no files.
        photographs: whether the pictures have many sizes.
        fingerprint: of files of the user's, so that a run does not go on with another one.
        pixel_bytes: that a number takes in memory.
    """

    name: str
    title: str
    shape: tuple[int, ...]
    classes: int
    train: int
    test: int
    module: str = ""
    embedded: bool = False
    photographs: bool = False
    fingerprint: str | None = None
    pixel_bytes: int = 1


#: Sides of photographs, which have no size of their own, on a card: what LeNet sees.
SIDES = (32, 32)

_ROWS = (
    Card("digits", "digits", (8, 8, 1), 10, 1437, 360, "ntk_tf.data.digits", embedded=True),
    Card("mnist", "MNIST", (28, 28, 1), 10, 60_000, 10_000, "ntk_tf.data.mnist"),
    Card("cifar10", "CIFAR-10", (32, 32, 3), 10, 50_000, 10_000, "ntk_tf.data.cifar10"),
    Card(
        *("imagenet_snakes", "ImageNet snakes", (*SIDES, 3), 10, 13_000, 500),
        module="ntk_tf.data.imagenet_snakes",
        photographs=True,
    ),
)
DATASETS = {row.name: row for row in _ROWS}

#: What a dataset may be called, for error messages.
ALLOWED = f"one of {', '.join(DATASETS)}, tfds:NAME, FILE.npz, or FOLDER/"
TFDS = "tfds:"

#: Side that pictures of a dataset are resized to by default: digits are 8x8, and LeNet takes no
#: less than 16.
USUAL_SIDE = {"digits": 28}

#: The snakes among ImageNet's 1,000 classes, in WordNet's order; they are outputs 52 to 68 of a
#: network trained on all of ILSVRC 2012.
SNAKE_SYNSETS = (
    *("n01728572", "n01728920", "n01729322", "n01729977"),  # thunder, ringneck, hognose, green
    *("n01734418", "n01735189", "n01737021", "n01739381"),  # king, garter, water, vine
    *("n01740131", "n01742172", "n01744401"),  # night snake, boa constrictor, rock python
    *("n01748264", "n01749939", "n01751748"),  # Indian cobra, green mamba, sea snake
    *("n01753488", "n01755581", "n01756291"),  # horned viper, diamondback, sidewinder
)


def is_own(name: str) -> bool:
    """Whether a name is that of a dataset of the user's: `tfds:NAME`, `FILE.npz` or `FOLDER/`."""
    return name.startswith(TFDS) and len(name) > len(TFDS) or name.endswith((".npz", "/"))
