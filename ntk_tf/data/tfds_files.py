"""Datasets that TFDS prepares, wherever their files come from.

The order of the pictures is TFDS': fixed by its own shuffle when it prepares a dataset.
"""

import contextlib
import dataclasses
import difflib
import hashlib
import os
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ntk_tf.catalogue.datasets import TFDS
from ntk_tf.data.source import DataError, Origin, Split
from ntk_tf.process import locks
from ntk_tf.process.paths import expanded
from ntk_tf.runs.files import RunDirectoryError, read_arrays, write_arrays

#: Of the names like one that does not exist, an error tells so many.
NAMED = 5
#: Files of decoded pictures, training and test, beside TFDS' own.
_KEPT = ("ntk_tf-train.npz", "ntk_tf-test.npz")


@dataclasses.dataclass(frozen=True)
class Published:
    """A dataset that TFDS knows.

    Attributes:
        dataset: what the user calls it: TFDS' name, perhaps after `tfds:`.
        files: names of the original files that `manual_dir` must hold; () where that is for TFDS
            to say.
        host: where they are downloaded from.
    """

    dataset: str
    files: tuple[str, ...] = ()
    host: str = "https://storage.googleapis.com"

    def builder(self, origin: Origin) -> Any:
        """Its TFDS builder; see `opened`."""
        import tensorflow_datasets as tfds

        name = self.dataset.removeprefix(TFDS)
        return opened(self.dataset, origin, lambda: tfds.builder(name, data_dir=origin.data_dir))


def find(published: Published, origin: Origin) -> str:
    """Say where the data would come from, without reading it.

    Args:
        published: the dataset.
        origin: where its files are.

    Returns:
        `prepared`, `manual_dir` or `download`.

    Raises:
        DataError: if it can come from nowhere.
    """
    if published.files:  # its folder tells, and TFDS need not be imported
        folder = data_dir(origin) / published.dataset
        return prepared_in(folder) or _elsewhere(published, folder, origin.manual_dir)
    return _place(published, published.builder(origin), origin.manual_dir)


def data_dir(origin: Origin) -> pathlib.Path:
    """Where TFDS keeps prepared datasets, its own default included.

    Raises:
        DataError: if that is in the user's home directory, and there is none.
    """
    default = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    found = expanded(origin.data_dir or default)
    if str(found).startswith("~"):
        raise DataError(f"data_dir={found}: there is no home directory; name a folder")
    return found


def prepared_in(folder: pathlib.Path) -> str:
    """`prepared` if a folder holds a version of a dataset, otherwise empty."""
    return "prepared" if any(folder.glob("*/dataset_info.json")) else ""


def _place(published: Published, builder, manual_dir: str | None) -> str:
    if builder.is_prepared():
        return "prepared"
    return _elsewhere(published, builder.data_dir, manual_dir)


def _elsewhere(published: Published, folder: pathlib.Path | str, manual_dir: str | None) -> str:
    """Where a dataset comes from that is not prepared in a folder.

    Raises:
        DataError: if it can come from nowhere.
    """
    if manual_dir is not None:
        _check_folder(published, pathlib.Path(manual_dir))
        return "manual_dir"
    if not _reachable(published.host):
        by_hand = f"put {', '.join(published.files)} into a folder and name it with manual_dir"
        raise DataError(
            f"dataset={published.dataset}: not prepared in {folder}, and there is"
            f" no network to download it;"
            f" {by_hand if published.files else 'prepare it where there is one'},"
            " or use dataset=digits, which needs no files"
        )
    return "download"


def _check_folder(published: Published, folder: pathlib.Path) -> None:
    """Refuse a folder without the original files.

    Raises:
        DataError: naming the files that are missing.
    """
    missing = [file for file in published.files if not (folder / file).is_file()]
    if missing:
        raise DataError(
            f"manual_dir={folder}: {published.dataset} needs the original files"
            f" {', '.join(published.files)}; missing: {', '.join(missing)}"
        )
    if not folder.is_dir():
        raise DataError(f"manual_dir={folder}: no such folder")


def load(published: Published, origin: Origin) -> tuple[Split, Split]:
    """Read the training and test pictures, preparing the dataset first where that is needed.

    They are kept, decoded, beside the prepared files where that folder can be written: TFDS takes
    seconds to be imported, and to parse and decode 70,000 records, in every run.

    Args:
        published: the dataset.
        origin: where its files are.

    Returns:
        The train and test splits.

    Raises:
        DataError: if the data cannot be found, prepared or read.
    """
    versions = list((data_dir(origin) / published.dataset).glob("*/dataset_info.json"))
    if len(versions) == 1 and (splits := _kept(versions[0].parent)):
        return splits
    builder = prepare(published, origin)
    folder = pathlib.Path(builder.data_dir)
    if splits := _kept(folder):
        return splits
    splits = read(builder, "train"), read(builder, "test")
    _keep(folder, splits)
    return splits


def _kept(folder: pathlib.Path) -> tuple[Split, Split] | None:
    """The splits that `_keep` has written; None without them, or where they are damaged."""
    try:
        train, test = (Split(**read_arrays(folder / name)) for name in _KEPT)
    except (RunDirectoryError, TypeError):  # TypeError: arrays of other names
        return None
    return train, test


def _keep(folder: pathlib.Path, splits: tuple[Split, Split]) -> None:
    """Write decoded pictures, if that can be done."""
    for name, split in zip(_KEPT, splits, strict=True):
        with contextlib.suppress(RunDirectoryError):
            content = {"images": np.asarray(split.images), "labels": split.labels}
            write_arrays(folder / name, content)


def prepare(
    published: Published, origin: Origin, check: Callable[[Any], Any] = lambda builder: None
) -> Any:
    """Prepare a dataset, unless that has been done; see `prepared`.

    Args:
        published: the dataset.
        origin: where its files are.
        check: looks at the builder before anything is downloaded or written.

    Returns:
        The TFDS builder of what is prepared.

    Raises:
        DataError: if the data cannot be found or prepared.
    """
    builder = published.builder(origin)
    check(builder)
    place = _place(published, builder, origin.manual_dir)
    if place == "manual_dir" and origin.manual_dir is not None:
        _verify(builder, pathlib.Path(origin.manual_dir))
    return prepared(builder, published.dataset, origin.manual_dir)


def prepared(builder, dataset: str, manual_dir: str | None) -> Any:
    """Prepare a dataset, unless that has been done.

    TFDS writes into a folder of a temporary name and renames it at the end, so that a prepared
    dataset is complete. Processes that share a `data_dir` prepare it once: the others wait.

    Args:
        builder: a TFDS builder.
        dataset: what the user calls it.
        manual_dir: folder of the original files, only read; None downloads.

    Returns:
        A builder of what is prepared.

    Raises:
        DataError: if it cannot be prepared.
    """
    import tensorflow_datasets as tfds

    if builder.is_prepared():
        return builder
    place = pathlib.Path(builder.data_dir)
    config = tfds.download.DownloadConfig(manual_dir=manual_dir)
    if not (sys.stderr and sys.stderr.isatty()):
        tfds.disable_progress_bar()
    new = _absent(builder)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with locks.lock(pathlib.Path(f"{place}.lock")) or contextlib.nullcontext():
            if not _again(builder).is_prepared():
                builder.download_and_prepare(download_config=config)
        return _again(builder)  # one that has just prepared the data may know too little of it
    except DataError:
        _remove(new)
        raise
    except Exception as error:
        _remove(new)
        raise DataError(
            f"dataset={dataset}: cannot prepare {place} from"
            f" {manual_dir or 'its download'} ({_one_line(error)})"
        ) from error


def root(builder) -> pathlib.Path:
    """The folder of all of TFDS' datasets that a builder keeps its own in."""
    below = builder.info.full_name.split("/")  # name, perhaps a configuration, and version
    return pathlib.Path(builder.data_dir).parents[len(below) - 1]


def _absent(builder) -> list[pathlib.Path]:
    """What a preparation would create beside the data, innermost first."""
    place, above = pathlib.Path(builder.data_dir), root(builder)
    settings, downloads = above / builder.name / ".config", above / "downloads"
    paths = [pathlib.Path(f"{place}.lock"), settings / "metadata.json", settings]
    paths += [downloads / "extracted", downloads, *place.parents]
    return [path for path in paths if not path.exists()]


def _remove(paths: list[pathlib.Path]) -> None:
    """Remove what a failed preparation has left, but no folder that holds anything else."""
    for path in paths:
        with contextlib.suppress(OSError):
            path.rmdir() if path.is_dir() else path.unlink()


def read(builder, split: str, decode: bool = True) -> Split:
    """Read a split of a prepared dataset into memory.

    Args:
        builder: a TFDS builder.
        split: name of the split.
        decode: whether to decode the pictures; otherwise they stay files.

    Returns:
        The split.

    Raises:
        DataError: if the prepared files cannot be read.
    """
    import tensorflow_datasets as tfds

    decoders = None if decode else {"image": tfds.decode.SkipDecoding()}
    with reading(builder, builder.name):
        rows = builder.as_dataset(split=split, batch_size=-1, decoders=decoders)
        images = rows["image"].numpy() if decode else rows["image"]
        return Split(images, rows["label"].numpy().astype(np.int64))


@contextlib.contextmanager
def reading(builder, dataset: str) -> Iterator[None]:
    """Explain what goes wrong in reading prepared files.

    Args:
        builder: a TFDS builder.
        dataset: what the user calls it.

    Yields:
        Nothing.

    Raises:
        DataError: if the prepared files cannot be read.
    """
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"dataset={dataset}: cannot read {builder.data_dir} ({_one_line(error)});"
            " remove that folder to prepare it anew"
        ) from error


def opened(dataset: str, origin: Origin, builder: Callable[[], Any]) -> Any:
    """A TFDS builder, which reads the descriptions in its folder when it is made.

    Args:
        dataset: what the user calls it.
        origin: where its files are.
        builder: makes it.

    Returns:
        What `builder` returns.

    Raises:
        DataError: if TFDS knows no such dataset, or the descriptions are damaged or the folder
            cannot be read.
    """
    import tensorflow_datasets as tfds

    name = dataset.removeprefix(TFDS)
    try:
        return builder()
    except tfds.core.DatasetNotFoundError as error:
        raise DataError(f"dataset={dataset}: TFDS knows no such dataset{_like(name)}") from error
    except Exception as error:
        folder = data_dir(origin) / name
        if not folder.exists():
            raise DataError(f"dataset={dataset}: {_one_line(error)}") from error
        raise DataError(
            f"dataset={dataset}: cannot read {folder} ({_one_line(error)});"
            " remove that folder to prepare it anew"
        ) from error


def _like(name: str) -> str:
    import tensorflow_datasets as tfds

    known = tfds.list_builders(with_community_datasets=False)
    near = difflib.get_close_matches(name.partition("/")[0].partition(":")[0], known, NAMED)
    return f"; the nearest names are {', '.join(near)}" * bool(near)


def _again(builder):
    """A builder of the same dataset that looks at what is on disk now."""
    config = {} if builder.builder_config is None else {"config": builder.builder_config}
    return type(builder)(data_dir=root(builder), version=str(builder.version), **config)


def _verify(builder, folder: pathlib.Path) -> None:
    """Compare the original files with what TFDS has recorded of them.

    Raises:
        DataError: naming a file that is another one, which TFDS would try to download instead.
    """
    for url, record in builder.url_infos.items():
        path = folder / record.filename
        if not path.is_file():
            continue
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != record.checksum:
            raise DataError(
                f"{path}: is damaged or another file: its SHA-256 is {found}, that of the original"
                f" {record.checksum}; download it anew from {url}"
            )


def _reachable(host: str) -> bool:
    import requests

    if os.environ.get("TFDS_OFFLINE"):
        return False
    try:
        requests.head(host, timeout=5)
    except requests.RequestException:
        return False
    return True


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
