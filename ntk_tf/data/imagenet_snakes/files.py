"""ILSVRC 2012's files: which pictures are in them, and reading the chosen ones.

Archives are walked from header to header; what lies between them is sought over, not read. So of
the training archive's 138 GiB only the chosen classes are read.
"""

import contextlib
import dataclasses
import functools
import os
import pathlib
import re
import tarfile
from collections.abc import Callable, Iterator

from ntk_tf.catalogue.datasets import SNAKE_SYNSETS
from ntk_tf.data.source import DataError

SPLITS = ("train", "validation")
ARCHIVES = {"train": "ILSVRC2012_img_train.tar", "validation": "ILSVRC2012_img_val.tar"}
FOLDERS = {"train": "train", "validation": "val"}
LAYOUT = (
    f"{ARCHIVES['train']} and {ARCHIVES['validation']} from image-net.org, or folders train and val"
    " with a folder n01728572/*.JPEG a class, or as the archives unpack: train/n01728572.tar and"
    " val/ILSVRC2012_val_*.JPEG"
)

#: The default classes: the first so many that have exactly so many training pictures.
CLASSES, PICTURES = 10, 1300

#: Name of that choice.
DEFAULT = f"first_{CLASSES}_of_{PICTURES}"

_SYNSET_ARCHIVE = re.compile(r"(?:.*/)?(n\d{8})\.tar", re.IGNORECASE)
_VALIDATION_PICTURE = re.compile(r"(?:.*/)?ILSVRC2012_val_(\d{8})\.JPEG", re.IGNORECASE)
_SYNSET = re.compile(r"n\d{8}(\.tar)?", re.IGNORECASE)
_JPEG = (".jpeg", ".jpg")


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture's name, class and, on demand, file content.

    Attributes:
        name: of the file, without folders.
        synset: of its class.
        read: returns the file's bytes; only as long as the iterator that yielded it stands there.
    """

    name: str
    synset: str
    read: Callable[[], bytes]


def choice_name(synsets: tuple[str, ...] | None = None, skip_corrupt: bool = False) -> str:
    """Name of a choice of classes, and of the folder that TFDS prepares it in.

    Args:
        synsets: the classes; None for the default ones.
        skip_corrupt: whether pictures that cannot be decoded are left out.
    """
    return ("-".join(synsets) if synsets else DEFAULT) + "-skip_corrupt" * skip_corrupt


def locate(manual_dir: pathlib.Path, split: str) -> pathlib.Path:
    """The archive of a split, or else its folder.

    Args:
        manual_dir: folder of the original files.
        split: one of `SPLITS`.

    Returns:
        A path to an archive or a folder.

    Raises:
        DataError: if there is neither.
    """
    archive, folder = manual_dir / ARCHIVES[split], manual_dir / FOLDERS[split]
    if archive.is_file():
        return archive
    if folder.is_dir():
        return folder
    raise DataError(
        f"manual_dir={manual_dir}: holds neither {archive.name} nor a folder {folder.name};"
        f" imagenet_snakes needs {LAYOUT}"
    )


def default_synsets(place: pathlib.Path) -> tuple[str, ...]:
    """The first ten snakes that have exactly 1,300 training pictures, counted.

    Args:
        place: training archive or folder.

    Returns:
        Their synsets, in WordNet's order.

    Raises:
        DataError: if there are fewer than ten.
    """
    counts = {}
    chosen = []
    with _training_members(place) as members:
        for synset in SNAKE_SYNSETS:
            counts[synset] = sum(1 for _ in members(synset)) if members.holds(synset) else 0
            if counts[synset] == PICTURES:
                chosen.append(synset)
            if len(chosen) == CLASSES:
                return tuple(chosen)
    found = ", ".join(f"{synset} {count}" for synset, count in counts.items())
    raise DataError(
        f"{place}: only {len(chosen)} of the 17 snakes have exactly {PICTURES:,} training pictures"
        f" and {CLASSES} are needed; name the classes with synsets (pictures: {found})"
    )


def pictures(place: pathlib.Path, split: str, synsets: tuple[str, ...]) -> Iterator[Picture]:
    """The pictures of some classes.

    Args:
        place: archive or folder of the split, as `locate` returns it.
        split: one of `SPLITS`.
        synsets: the classes.

    Yields:
        The pictures; one must be read before the next is asked for.

    Raises:
        DataError: if the archive is another one, or a class has no pictures.
    """
    if split == "validation" and _is_flat(place):
        yield from _numbered(place, synsets)
        return
    with _training_members(place) as members:
        missing = [synset for synset in synsets if not members.holds(synset)]
        if missing:
            raise DataError(f"{place}: holds no {', '.join(missing)}; {_remedy(split)}")
        for synset in synsets:
            empty = True
            for picture in members(synset):
                empty = False
                yield picture
            if empty:
                raise DataError(f"{place}: holds no pictures of {synset}; {_remedy(split)}")


def _remedy(split: str) -> str:
    return (
        f"get {ARCHIVES[split]} anew, or choose other classes with synsets; manual_dir must hold"
        f" {LAYOUT}"
    )


def _is_picture(name: str) -> bool:
    """Whether a file's name is that of a picture, and not of what macOS keeps beside it."""
    path = pathlib.PurePosixPath(name)
    return path.suffix.lower() in _JPEG and not path.name.startswith(".")


class _Folders:
    """Folders of pictures, or archives of them, that are named by synset."""

    def __init__(self, place: pathlib.Path):
        self.place = place
        self.archives = {
            found[1].lower(): path
            for path in sorted(place.iterdir())
            if (found := _SYNSET_ARCHIVE.fullmatch(path.name)) and path.is_file()
        }

    def holds(self, synset: str) -> bool:
        return (self.place / synset).is_dir() or synset in self.archives

    def __call__(self, synset: str) -> Iterator[Picture]:
        folder = self.place / synset
        paths = sorted(folder.iterdir()) if folder.is_dir() else []
        paths = [path for path in paths if _is_picture(path.name) and path.is_file()]
        if not paths and synset in self.archives:
            yield from self._unpacked(synset)
        for path in paths:
            yield Picture(path.name, synset, path.read_bytes)

    def _unpacked(self, synset: str) -> Iterator[Picture]:
        with _opened(self.archives[synset]) as archive:
            yield from _members(archive, synset, self.archives[synset])


class _TrainingArchive:
    """An archive of archives, one a class, that are named by synset."""

    def __init__(self, archive: tarfile.TarFile, place: pathlib.Path):
        self.archive, self.place = archive, place
        names = []
        self.members = {}
        for member in archive:
            names.append(member.name)
            if member.isfile() and (found := _SYNSET_ARCHIVE.fullmatch(member.name)):
                self.members[found[1].lower()] = member
        if not self.members:
            _refuse(place, "archives such as n01728572.tar", names)

    def holds(self, synset: str) -> bool:
        return synset in self.members

    def __call__(self, synset: str) -> Iterator[Picture]:
        content = self.archive.extractfile(self.members[synset])
        with tarfile.open(fileobj=content, mode="r:") as inner:
            yield from _members(inner, synset, self.place)


def _members(archive: tarfile.TarFile, synset: str, place: pathlib.Path) -> Iterator[Picture]:
    """The pictures in the archive of a class."""
    for member in archive:
        if member.isfile() and _is_picture(member.name):
            name = pathlib.PurePosixPath(member.name).name
            yield Picture(name, synset, functools.partial(_read, archive, member, place))


@contextlib.contextmanager
def _training_members(place: pathlib.Path) -> Iterator[_Folders | _TrainingArchive]:
    if place.is_dir():
        yield _Folders(place)
        return
    with _opened(place) as archive:
        yield _TrainingArchive(archive, place)


def _is_flat(place: pathlib.Path) -> bool:
    """Whether the validation pictures are numbered and without folders of their classes."""
    if place.is_file():
        return True
    names = [path.name for path in place.iterdir()]
    return any(map(_VALIDATION_PICTURE.fullmatch, names)) and not any(map(_SYNSET.fullmatch, names))


def _numbered(place: pathlib.Path, synsets: tuple[str, ...]) -> Iterator[Picture]:
    """Pictures whose file names are numbers; TFDS knows their classes.

    Raises:
        DataError: if a class has no pictures.
    """
    labels = validation_labels()
    names, seen = [], set()
    known = False
    for member, read in _archived(place) if place.is_file() else _loose(place):
        names.append(member)
        found = _VALIDATION_PICTURE.fullmatch(member)
        if not found or not 1 <= int(found[1]) <= len(labels):
            continue
        known = True
        synset = labels[int(found[1]) - 1]
        if synset in synsets:
            seen.add(synset)
            yield Picture(pathlib.PurePosixPath(member).name, synset, read)
    if not known:
        _refuse(place, "pictures such as ILSVRC2012_val_00000001.JPEG", names)
    missing = [synset for synset in synsets if synset not in seen]
    if missing:
        raise DataError(
            f"{place}: holds no pictures of {', '.join(missing)}; {_remedy('validation')}"
        )


def _archived(place: pathlib.Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Names of an archive's files, and what reads them."""
    with _opened(place) as archive:
        for member in archive:
            if member.isfile():
                yield member.name, functools.partial(_read, archive, member, place)


def _loose(place: pathlib.Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Names of a folder's files, and what reads them."""
    for path in sorted(place.iterdir()):
        if path.is_file():
            yield path.name, path.read_bytes


def validation_labels() -> list[str]:
    """Synsets of ILSVRC 2012's 50,000 validation pictures by their number, which starts at 1.

    The list is part of TFDS, for its own `imagenet2012`.
    """
    import tensorflow_datasets as tfds

    path = tfds.core.tfds_path("datasets/imagenet2012/validation_labels.txt")
    return path.read_text().split()


@contextlib.contextmanager
def _opened(place: pathlib.Path) -> Iterator[tarfile.TarFile]:
    """Open an archive for reading header by header.

    Yields:
        The archive.
    """
    # A larger buffer would read kilobytes beyond each header.
    with (
        _explained(place),
        open(place, "rb", buffering=tarfile.BLOCKSIZE) as file,
        tarfile.open(fileobj=file, mode="r:") as archive,
    ):
        yield archive


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo, place: pathlib.Path) -> bytes:
    """A member's content, which is written nowhere, whatever its name."""
    with _explained(place):
        return archive.extractfile(member).read()  # type: ignore[union-attr]  # None for folders


@contextlib.contextmanager
def _explained(place: pathlib.Path) -> Iterator[None]:
    """Name the archive where reading it fails.

    Yields:
        Nothing.

    Raises:
        DataError: if it is no tar archive, or is damaged.
    """
    try:
        yield
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise DataError(
            f"{place}: is no tar archive or is cut off ({error}); its size is"
            f" {os.path.getsize(place):,} bytes; compare that with image-net.org and get it anew"
        ) from error
    except OSError as error:
        raise DataError(f"{place}: cannot be read ({error.strerror or error})") from error


def _refuse(place: pathlib.Path, expected: str, names: list[str]) -> None:
    """Say that an archive is another one than was expected.

    Raises:
        DataError: always.
    """
    found = f"its first member is {names[0]}" if names else "it holds no files"
    raise DataError(
        f"{place}: is another archive: {expected} are expected in it and there are none ({found});"
        " get it from image-net.org"
    )
