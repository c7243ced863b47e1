"""Datasets that TFDS prepares, wherever their files come from.

The order of the pictures is TFDS': fixed by its own shuffle when it prepares a dataset.
"""

import os
import pathlib

import filelock
import numpy as np

from ntk_tf.data.source import DataError, Split


def find(
    name: str, files: tuple[str, ...], host: str, data_dir: str | None, manual_dir: str | None
) -> str:
    """Say where the data would come from, without reading it.

    Args:
        name: TFDS' name of the dataset.
        files: names of the original files that `manual_dir` may hold.
        host: where TFDS downloads from.
        data_dir: where TFDS keeps prepared datasets; None for its own default.
        manual_dir: folder of the original files, or None.

    Returns:
        `prepared`, `manual_dir` or `download`.

    Raises:
        DataError: if it can come from nowhere.
    """
    if _builder(name, data_dir).is_prepared():
        return "prepared"
    if manual_dir is not None:
        missing = [file for file in files if not (pathlib.Path(manual_dir) / file).is_file()]
        if missing:
            raise DataError(
                f"--manual_dir={manual_dir}: {name} needs the original files {', '.join(files)};"
                f" missing: {', '.join(missing)}"
            )
        return "manual_dir"
    if not _reachable(host):
        raise DataError(
            f"--dataset={name}: not prepared in {_builder(name, data_dir).data_dir}, and there is"
            f" no network to download it; put {', '.join(files)} into a folder and name it with"
            " --manual_dir, or use --dataset=digits, which needs no files"
        )
    return "download"


def load(
    name: str, files: tuple[str, ...], host: str, data_dir: str | None, manual_dir: str | None
) -> tuple[Split, Split]:
    """Read the training and test pictures, preparing the dataset first where that is needed.

    Processes that share a `data_dir` prepare it once: the others wait.

    Args:
        name: TFDS' name of the dataset.
        files: names of the original files that `manual_dir` may hold.
        host: where TFDS downloads from.
        data_dir: where TFDS keeps prepared datasets; None for its own default.
        manual_dir: folder of the original files, only read; None downloads.

    Returns:
        The train and test splits.

    Raises:
        DataError: if the data cannot be found, prepared or read.
    """
    builder = _builder(name, data_dir)
    if find(name, files, host, data_dir, manual_dir) != "prepared":
        _prepare(builder, manual_dir)
    try:
        return _read(builder, "train"), _read(builder, "test")
    except Exception as error:
        raise DataError(
            f"--dataset={name}: cannot read {builder.data_dir} ({_one_line(error)}); remove that"
            " folder to prepare it anew"
        ) from error


def _builder(name: str, data_dir: str | None):
    import tensorflow_datasets as tfds

    return tfds.builder(name, data_dir=data_dir)


def _prepare(builder, manual_dir: str | None) -> None:
    import tensorflow_datasets as tfds

    place = pathlib.Path(builder.data_dir)
    config = tfds.download.DownloadConfig(manual_dir=manual_dir)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{place}.lock"):
            if not type(builder)(data_dir=builder._data_dir_root).is_prepared():
                builder.download_and_prepare(download_config=config)
    except Exception as error:
        raise DataError(
            f"--dataset={builder.name}: cannot prepare {place} from"
            f" {manual_dir or 'its download'} ({_one_line(error)})"
        ) from error


def _read(builder, split: str) -> Split:
    rows = builder.as_dataset(split=split, batch_size=-1)
    return Split(rows["image"].numpy(), rows["label"].numpy().astype(np.int64))


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
