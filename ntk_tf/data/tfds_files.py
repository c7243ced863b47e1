"""Datasets that TFDS prepares, wherever their files come from.

The order of the pictures is TFDS': fixed by its own shuffle when it prepares a dataset.
"""

import contextlib
import hashlib
import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import filelock
import numpy as np

from ntk_tf.data.source import DataError, Origin, Split


def find(name: str, files: tuple[str, ...], host: str, origin: Origin) -> str:
    """Say where the data would come from, without reading it.

    Args:
        name: TFDS' name of the dataset.
        files: names of the original files that `manual_dir` may hold.
        host: where TFDS downloads from.
        origin: where its files are.

    Returns:
        `prepared`, `manual_dir` or `download`.

    Raises:
        DataError: if it can come from nowhere.
    """
    builder = _builder(name, origin)
    if builder.is_prepared():
        return "prepared"
    if origin.manual_dir is not None:
        folder = pathlib.Path(origin.manual_dir)
        missing = [file for file in files if not (folder / file).is_file()]
        if missing:
            raise DataError(
                f"--manual_dir={folder}: {name} needs the original files {', '.join(files)};"
                f" missing: {', '.join(missing)}"
            )
        return "manual_dir"
    if not _reachable(host):
        raise DataError(
            f"--dataset={name}: not prepared in {builder.data_dir}, and there is"
            f" no network to download it; put {', '.join(files)} into a folder and name it with"
            " --manual_dir, or use --dataset=digits, which needs no files"
        )
    return "download"


def load(name: str, files: tuple[str, ...], host: str, origin: Origin) -> tuple[Split, Split]:
    """Read the training and test pictures, preparing the dataset first where that is needed.

    Processes that share a `data_dir` prepare it once: the others wait.

    Args:
        name: TFDS' name of the dataset.
        files: names of the original files that `manual_dir` may hold.
        host: where TFDS downloads from.
        origin: where its files are.

    Returns:
        The train and test splits.

    Raises:
        DataError: if the data cannot be found, prepared or read.
    """
    builder = _builder(name, origin)
    if find(name, files, host, origin) == "manual_dir":
        _verify(builder, pathlib.Path(origin.manual_dir))
    prepare(builder, origin.manual_dir)
    return read(builder, "train"), read(builder, "test")


def prepare(builder, manual_dir: str | None) -> None:
    """Prepare a dataset, unless that has been done.

    TFDS writes into a folder of a temporary name and renames it at the end, so that a prepared
    dataset is complete. Processes that share a `data_dir` prepare it once: the others wait.

    Args:
        builder: a TFDS builder.
        manual_dir: folder of the original files, only read; None downloads.

    Raises:
        DataError: if it cannot be prepared.
    """
    import tensorflow_datasets as tfds

    if builder.is_prepared():
        return
    place = pathlib.Path(builder.data_dir)
    config = tfds.download.DownloadConfig(manual_dir=manual_dir)
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    new = _absent(builder)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{place}.lock"):
            if not _again(builder).is_prepared():
                builder.download_and_prepare(download_config=config)
    except DataError:
        _remove(new)
        raise
    except Exception as error:
        _remove(new)
        raise DataError(
            f"--dataset={builder.name}: cannot prepare {place} from"
            f" {manual_dir or 'its download'} ({_one_line(error)})"
        ) from error


def _absent(builder) -> list[pathlib.Path]:
    """What a preparation would create beside the data, innermost first."""
    place, root = pathlib.Path(builder.data_dir), pathlib.Path(builder._data_dir_root)
    settings, downloads = root / builder.name / ".config", root / "downloads"
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
    try:
        builder = _again(builder)  # one that has just prepared the data may know too little of it
        rows = builder.as_dataset(split=split, batch_size=-1, decoders=decoders)
        images = rows["image"].numpy() if decode else rows["image"]
        return Split(images, rows["label"].numpy().astype(np.int64))
    except Exception as error:
        raise DataError(
            f"--dataset={builder.name}: cannot read {builder.data_dir} ({_one_line(error)});"
            " remove that folder to prepare it anew"
        ) from error


def _builder(name: str, origin: Origin):
    import tensorflow_datasets as tfds

    return opened(name, origin, lambda: tfds.builder(name, data_dir=origin.data_dir))


def opened(name: str, origin: Origin, builder: Callable[[], Any]) -> Any:
    """A TFDS builder, which reads the descriptions in its folder when it is made.

    Args:
        name: TFDS' name of the dataset.
        origin: where its files are.
        builder: makes it.

    Returns:
        What `builder` returns.

    Raises:
        DataError: if the descriptions are damaged or the folder cannot be read.
    """
    try:
        return builder()
    except Exception as error:
        folder = pathlib.Path(origin.data_dir or "~/tensorflow_datasets").expanduser() / name
        raise DataError(
            f"--dataset={name}: cannot read {folder} ({_one_line(error)});"
            " remove that folder to prepare it anew"
        ) from error


def _again(builder):
    """A builder of the same dataset that looks at what is on disk now."""
    config = {} if builder.builder_config is None else {"config": builder.builder_config}
    return type(builder)(data_dir=builder._data_dir_root, **config)


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
