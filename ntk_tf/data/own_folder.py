"""`FOLDER/`: the user's own pictures, a folder for each class in one for each split.

    pictures/train/cat/1.jpg    pictures/test/cat/7.png

The test set's folder may also be called `validation` or `val`. Pictures of one size are read as
they are, those of many sizes like ImageNet's photographs (see `decode`): as squares of 8/7 of
`image_size`, which are cropped to `image_size`. They have one channel if all are grey, without
transparency or a palette, and of one size, otherwise three. The order is random but always the
same, so that the first so many pictures are a mix of the classes. All of them are kept in memory.
As in torchvision's ImageFolder, transparency and the orientation that a camera noted are not looked
at, and what is hidden is passed over.
"""

import contextlib
import dataclasses
import functools
import pathlib
import warnings
import zlib
from collections.abc import Callable, Iterator
from concurrent import futures

import numpy as np
from PIL import Image

from ntk_tf.catalogue.datasets import SIDES, Card
from ntk_tf.data import normalization
from ntk_tf.data.source import DataError, Origin, Source, Split
from ntk_tf.process import devices
from ntk_tf.process.paths import expanded

warnings.filterwarnings("ignore", module=r"PIL\..*")  # of large pictures and of odd metadata

#: Files that are no such pictures are passed over.
ENDINGS = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif"),
    *(".ppm", ".pgm", ".tif", ".tiff", ".webp"),
)
#: How folders begin that are hidden, or that a program keeps for itself.
_HIDDEN = (".", "__")
LAYOUT = "train and test (or validation, or val), each with a folder of pictures for each class"
_TEST = ("test", "validation", "val")
_GREY = ("1", "L")


@dataclasses.dataclass(frozen=True)
class _Folder:
    """The files of a folder, without their content.

    Attributes:
        name: of the dataset.
        classes: names of their folders.
        train: paths and labels, in order of names.
        test: likewise.
        fingerprint: of names and sizes of the files.
    """

    name: str
    classes: tuple[str, ...]
    train: tuple[tuple[pathlib.Path, int], ...]
    test: tuple[tuple[pathlib.Path, int], ...]
    fingerprint: str


def card(name: str, data_dir: str | None = None) -> Card:
    """What is known of a folder from its files' names and sizes and the pictures' headers.

    Headers are read until two pictures differ in size.

    Args:
        name: path of the folder, with a slash at its end.
        data_dir: not looked at.

    Returns:
        The card; its fingerprint comes from names and sizes of the files.

    Raises:
        DataError: if it is no such folder.
    """
    folder = _listed(name)
    shape = _shape(folder)
    return Card(
        name,
        title=pathlib.Path(name).name,
        shape=shape or (*SIDES, 3),
        classes=len(folder.classes),
        train=len(folder.train),
        test=len(folder.test),
        module=__name__,
        photographs=shape is None,
        fingerprint=folder.fingerprint,
    )


def find(origin: Origin) -> str:
    """Say where the data would come from.

    Args:
        origin: names the folder.

    Returns:
        `folder`.

    Raises:
        DataError: if it is no such folder.
    """
    card(origin.name)
    return "folder"


def prepare(origin: Origin) -> None:
    """Look at the header of every picture, so that a wrong one shows before many runs start."""
    folder = _listed(origin.name)
    for path, _ in folder.train + folder.test:
        with _opened(folder, path):
            pass


def load(origin: Origin) -> Source:
    """Read the pictures.

    Args:
        origin: names the folder; pictures of many sizes need an `image_size`.

    Returns:
        The source; mean and standard deviation are those of the training set.

    Raises:
        DataError: if a picture cannot be read.
    """
    folder = _listed(origin.name)
    shape = _shape(folder)
    photographs = shape is None
    if shape is None:
        side = origin.square_side
        shape = side, side, 3
    train, test = (
        _read(folder, files, shape, photographs) for files in (folder.train, folder.test)
    )
    source = normalization.standardized(train, test, crop=photographs)
    return dataclasses.replace(source, classes=folder.classes)


def _listed(name: str) -> _Folder:
    """What is in a folder.

    Raises:
        DataError: if it lacks a split or classes, or is tested on a class without training.
    """
    place = expanded(name)
    with _explained(name, place):
        if not place.is_dir():
            raise DataError(f"dataset={name}: no such folder; it must hold {LAYOUT}")
        found = sorted(path.name for path in place.iterdir() if path.is_dir())
        test = next((split for split in _TEST if split in found), None)
        if "train" not in found or test is None:
            holds = ", ".join(found[:8]) or "no folder"
            raise DataError(f"dataset={name}: must hold {LAYOUT}; it holds {holds}")
        files = {split: _pictures(name, place / split) for split in ("train", test)}
        checksum = 0
        for path in (path for paths in files.values() for path, _ in paths):
            line = f"{path.relative_to(place).as_posix()}:{path.stat().st_size}\n"
            checksum = zlib.crc32(line.encode(errors="surrogateescape"), checksum)
    classes, tested = (sorted({label for _, label in files[split]}) for split in ("train", test))
    for split, labels in (("train", classes), (test, tested)):
        if not labels:
            raise DataError(
                f"dataset={name}: {split} holds no pictures in folders of classes; files are"
                f" {', '.join(ENDINGS)}"
            )
    if foreign := sorted(set(tested) - set(classes)):
        raise DataError(f"dataset={name}: {test} has class {foreign[0]}, and train has none of it")
    if len(classes) < 2:
        raise DataError(f"dataset={name}: train has only class {classes[0]}; two are needed")
    numbers = {label: i for i, label in enumerate(classes)}
    train, tests = (tuple((p, numbers[label]) for p, label in paths) for paths in files.values())
    return _Folder(name, tuple(classes), train, tests, f"{checksum:08x}")


def _pictures(name: str, split: pathlib.Path) -> list[tuple[pathlib.Path, str]]:
    """Paths of a split's pictures, and the names of their classes.

    Raises:
        DataError: if a class has files and none that is taken for a picture.
    """
    found = []
    for folder in sorted(split.iterdir()):
        if not folder.is_dir() or folder.name.startswith(_HIDDEN):
            continue
        shown = [path for path in folder.rglob("*") if _shown(path, folder)]
        files = [path for path in shown if path.is_file()]
        if lost := [path for path in shown if path.is_symlink() and not path.exists()]:
            raise DataError(f"dataset={name}: {min(lost)} is a link to what is not there")
        pictures = [path for path in files if path.suffix.lower() in ENDINGS]
        if files and not pictures:
            raise DataError(
                f"dataset={name}: {folder} holds {min(files).name} and no picture; files are"
                f" {', '.join(ENDINGS)}"
            )
        found += [(path, folder.name) for path in pictures]
    return sorted(found, key=lambda pair: pair[0].parts)  # as on Windows paths are not compared


def _shown(path: pathlib.Path, folder: pathlib.Path) -> bool:
    """Whether a file below a folder, and all folders between, are not hidden."""
    *folders, name = path.relative_to(folder).parts
    return not name.startswith(".") and not any(f.startswith(_HIDDEN) for f in folders)


@functools.lru_cache(maxsize=8)
def _shape(folder: _Folder) -> tuple[int, int, int] | None:
    """The shape of the pictures; None if they have many.

    Raises:
        DataError: if one is no picture.
    """
    sizes, grey = set(), True
    for path, _ in folder.train + folder.test:
        with _opened(folder, path) as picture:
            sizes.add(picture.size)
            grey = grey and picture.mode in _GREY
        if len(sizes) > 1:
            return None
    width, height = sizes.pop()
    return height, width, 1 if grey else 3


def _read(
    folder: _Folder,
    files: tuple[tuple[pathlib.Path, int], ...],
    shape: tuple[int, int, int],
    photographs: bool,
) -> Split:
    """Read a split in its random order, photographs as squares of the shape's side."""
    # This generator's numbers are promised to be the same in every version of NumPy.
    order = np.random.RandomState(0).permutation(len(files))
    images = np.empty((len(files), *shape), np.uint8)
    mode = "L" if shape[-1] == 1 else "RGB"
    resized = _resizing(shape[0]) if photographs else None

    def fill(place: int) -> None:
        path = files[order[place]][0]
        with _opened(folder, path) as picture:
            pixels = np.asarray(picture.convert(mode))
            images[place] = resized(pixels) if resized else pixels.reshape(shape)

    with futures.ThreadPoolExecutor(devices.cores()) as workers:
        list(workers.map(fill, range(len(files))))
    return Split(images, np.array([files[number][1] for number in order], np.int64))


def _resizing(side: int) -> Callable[[np.ndarray], np.ndarray]:
    """What makes a square of pixels."""
    import tensorflow as tf

    from ntk_tf.data import decode

    pixels = tf.TensorSpec((None, None, 3), tf.uint8)
    return tf.function(lambda x: decode.square(x, side), input_signature=[pixels], autograph=False)


@contextlib.contextmanager
def _opened(folder: _Folder, path: pathlib.Path) -> Iterator[Image.Image]:
    """A picture, whose header has been read.

    Raises:
        DataError: if it is damaged, or none of bytes; it is named.
    """
    with _explained(folder.name, path), Image.open(path) as picture:
        if picture.mode.startswith(("I", "F")):
            said = f"its pixels are {picture.mode}; they must be bytes"
            raise DataError(f"dataset={folder.name}: cannot read {path} ({said})")
        yield picture


@contextlib.contextmanager
def _explained(name: str, path: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # Pillow's readers raise all kinds
        said = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"dataset={name}: cannot read {path} ({said[:200]})") from error
