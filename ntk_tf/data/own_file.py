"""`FILE.npz`: the user's own pictures or vectors.

The file holds `x_train` and `x_test`, uint8 or float pictures `[n, h, w, c]` or `[n, h, w]` or
vectors `[n, d]`, and `y_train` and `y_test`, integer labels `[n]` or `[n, 1]` from 0. Bytes are
divided by 255; floats are taken as they are, in float32. Nothing in it is ever unpickled.
"""

import contextlib
import dataclasses
import lzma
import math
import pathlib
import zipfile
import zlib
from collections.abc import Iterator

import numpy as np

from ntk_tf.catalogue.datasets import Card
from ntk_tf.data import normalization
from ntk_tf.data.source import DataError, Origin, Source, Split
from ntk_tf.process.paths import expanded

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
PICTURES = "pictures [n, h, w, c] or [n, h, w] or vectors [n, d], uint8 or float"
LABELS = "integers [n] or [n, 1] from 0"
#: What reading a damaged file raises.
_UNREADABLE: tuple[type[Exception], ...] = (OSError, ValueError, EOFError, RuntimeError)
_UNREADABLE += (zipfile.BadZipFile, zlib.error, lzma.LZMAError)
#: Pictures that are looked through at a time.
_CHUNK = 256


@dataclasses.dataclass(frozen=True)
class _Header:
    """What an array's header in the file says, and the CRC-32 that the file keeps of the array."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    crc: int


def card(name: str, data_dir: str | None = None) -> Card:
    """What is known of a file without reading its pictures; its labels are read.

    Args:
        name: path of the file.
        data_dir: not looked at.

    Returns:
        The card; its fingerprint comes from the CRC-32s that the file keeps of the four arrays.

    Raises:
        DataError: if the file is no such file.
    """
    with _opened(name) as archive:
        headers = {array: _header(name, archive, array) for array in ARRAYS}
        shape = _check_pictures(name, headers["x_train"], headers["x_test"])
        labels = [_labels(name, archive, headers, split) for split in ("train", "test")]
    return Card(
        name,
        title=pathlib.Path(name).name,
        shape=shape,
        classes=_classes(name, *labels),
        train=len(labels[0]),
        test=len(labels[1]),
        module=__name__,
        fingerprint=_fingerprint(headers),
        pixel_bytes=1 if headers["x_train"].dtype == np.uint8 else 4,
    )


def find(origin: Origin) -> str:
    """Say where the data would come from, looking at all but the pictures.

    Args:
        origin: names the file.

    Returns:
        `file`.

    Raises:
        DataError: if the file is no such file.
    """
    card(origin.name)
    return "file"


def prepare(origin: Origin) -> None:
    """Read the file, so that what is wrong with it shows before many runs start."""
    load(origin)


def load(origin: Origin) -> Source:
    """Read the file.

    Args:
        origin: names the file.

    Returns:
        The source; mean and standard deviation are those of the training set.

    Raises:
        DataError: if the file is damaged or another one than `card` describes.
    """
    name = origin.name
    shape = card(name).shape
    with _opened(name) as archive:
        splits = [
            Split(
                _numbers(name, archive, f"x_{split}").reshape(-1, *shape),
                _array(name, archive, f"y_{split}").reshape(-1).astype(np.int64),
            )
            for split in ("train", "test")
        ]
    return normalization.standardized(*splits)


@contextlib.contextmanager
def _opened(name: str) -> Iterator[zipfile.ZipFile]:
    path = expanded(name)
    if not path.is_file():
        raise DataError(f"dataset={name}: no such file; it must hold {', '.join(ARRAYS)}")
    with _explained(name):
        archive = zipfile.ZipFile(path)
    with archive:
        yield archive


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except _UNREADABLE as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"dataset={name}: is damaged or no npz file as numpy.savez writes it ({said[:200]})"
        ) from error


def _header(name: str, archive: zipfile.ZipFile, array: str) -> _Header:
    member = f"{array}.npy"
    if member not in archive.namelist():
        found = ", ".join(file.removesuffix(".npy") for file in archive.namelist()[:8])
        raise DataError(
            f"dataset={name}: lacks {array}; it must hold {', '.join(ARRAYS)} and holds"
            f" {' '.join(found.split())[:200] or 'nothing'}"
        )
    entry = archive.getinfo(member)
    with _explained(name), archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0
        if version != (1, 0):
            read = np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        if (
            not dtype.hasobject
            and file.tell() + math.prod(shape) * dtype.itemsize != entry.file_size
        ):
            raise ValueError(f"{array} has another size than its header says")
    return _Header(array, shape, dtype, entry.CRC)


def _fingerprint(headers: dict[str, _Header]) -> str:
    """The CRC-32 of the four arrays' CRC-32s: eight digits, short enough for a folder's name."""
    crcs = np.array([headers[array].crc for array in ARRAYS], "<u4")
    return f"{zlib.crc32(crcs.tobytes()):08x}"


def _check_pictures(name: str, train: _Header, test: _Header) -> tuple[int, ...]:
    """The shape of a picture, or of a vector.

    Raises:
        DataError: if the arrays are no pictures, or not of one kind.
    """
    for header in (train, test):
        number = header.dtype == np.uint8 or header.dtype.kind == "f"
        if not number or len(header.shape) not in (2, 3, 4) or 0 in header.shape[1:]:
            _refuse(name, header, PICTURES)
        if not header.shape[0]:
            raise DataError(f"dataset={name}: {header.name} is empty; each split needs pictures")
    if train.shape[1:] != test.shape[1:] or train.dtype.kind != test.dtype.kind:
        raise DataError(
            f"dataset={name}: x_train is {train.dtype} {list(train.shape)} and x_test is"
            f" {test.dtype} {list(test.shape)}; both must be of one shape, and bytes or floats"
        )
    shape = train.shape[1:]
    return (*shape, 1) if len(shape) == 2 else shape


def _labels(
    name: str, archive: zipfile.ZipFile, headers: dict[str, _Header], split: str
) -> np.ndarray:
    """The labels of a split, as they are in the file but for their shape `[n]`.

    Raises:
        DataError: if they are no labels, or not as many as pictures.
    """
    header, count = headers[f"y_{split}"], headers[f"x_{split}"].shape[0]
    if header.dtype.kind not in "iu" or header.shape[1:] not in ((), (1,)) or not header.shape:
        _refuse(name, header, LABELS)
    if header.shape[0] != count:
        raise DataError(
            f"dataset={name}: y_{split} has {header.shape[0]} labels and x_{split} {count} pictures"
        )
    labels = _array(name, archive, f"y_{split}").reshape(-1)
    if labels.min() < 0:
        raise DataError(f"dataset={name}: y_{split} has label {labels.min()}; labels are {LABELS}")
    return labels


def _classes(name: str, train: np.ndarray, test: np.ndarray) -> int:
    """The number of classes: the largest label and 1.

    Raises:
        DataError: if training has fewer than two classes, lacks one that is tested, or has fewer
            pictures than there would be classes.
    """
    known = np.unique(train)
    foreign = np.setdiff1d(test, known)
    if len(foreign):
        raise DataError(
            f"dataset={name}: y_test has label {foreign[0]}, which y_train never has"
            f" (its {len(known)} labels go from {known[0]} to {known[-1]})"
        )
    if len(known) < 2:
        raise DataError(
            f"dataset={name}: y_train has only label {known[0]}; two or more are needed"
        )
    if known[-1] >= len(train):
        raise DataError(
            f"dataset={name}: y_train has label {known[-1]}, which makes more classes than"
            f" {len(train)} training pictures; labels are {LABELS}"
        )
    return int(known[-1]) + 1


def _refuse(name: str, header: _Header, allowed: str) -> None:
    """Say what an array must be.

    Raises:
        DataError: always.
    """
    kind = "objects, which are never unpickled," if header.dtype.hasobject else str(header.dtype)
    raise DataError(
        f"dataset={name}: {header.name} is {kind} {list(header.shape)}; must be {allowed}"
    )


def _array(name: str, archive: zipfile.ZipFile, array: str) -> np.ndarray:
    with _explained(name), archive.open(f"{array}.npy") as file:
        found = np.lib.format.read_array(file, allow_pickle=False)
        file.read()  # to the end, where the CRC-32 is compared
    return found


def _numbers(name: str, archive: zipfile.ZipFile, array: str) -> np.ndarray:
    """Pictures in uint8, or in float32 and finite.

    Raises:
        DataError: if there are NaN, infinite or too large values.
    """
    images = _array(name, archive, array)
    if images.dtype == np.uint8:
        return images
    with np.errstate(over="ignore"):
        images = images.astype(np.float32, copy=False)
    good = np.concatenate(
        [
            np.isfinite(images[i : i + _CHUNK]).all(axis=tuple(range(1, images.ndim)))
            for i in range(0, len(images), _CHUNK)
        ]
    )
    if not good.all():
        raise DataError(
            f"dataset={name}: {array} has NaN or infinite values in {np.sum(~good)} of"
            f" {len(good)} pictures, the first of which is number {np.argmin(good)} from 0"
        )
    return images
