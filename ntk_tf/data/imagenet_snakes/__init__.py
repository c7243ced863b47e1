"""`imagenet_snakes`: the snakes of ILSVRC 2012, through a TFDS builder of this package.

Importing this module also makes `tfds.load("imagenet_snakes")` work.
"""

import pathlib

from ntk_tf.data import tfds_files
from ntk_tf.data.imagenet_snakes import files
from ntk_tf.data.imagenet_snakes.builder import ImagenetSnakes, config_for
from ntk_tf.data.source import DataError, Origin, Source

__all__ = ["ImagenetSnakes", "find", "load", "prepare"]

#: Of the training pictures of all of ILSVRC 2012, per channel: the customary constants, which
#: torchvision's networks were trained with.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def find(origin: Origin) -> str:
    """Say where the data would come from, without reading pictures.

    Args:
        origin: where the files are, and which classes are wanted.

    Returns:
        `prepared` or `manual_dir`.

    Raises:
        DataError: if it can come from nowhere.
    """
    name = files.choice_name(origin.synsets, origin.skip_corrupt_images)
    folder = tfds_files.data_dir(origin) / "imagenet_snakes" / name
    return tfds_files.prepared_in(folder) or _elsewhere(folder, origin)


def _elsewhere(folder: pathlib.Path | str, origin: Origin) -> str:
    """Where the data comes from that is not prepared in a folder.

    Raises:
        DataError: if it can come from nowhere.
    """
    if origin.manual_dir is None:
        raise DataError(
            f"dataset=imagenet_snakes: not prepared in {folder}, and it cannot be"
            f" downloaded; name with manual_dir a folder that holds {files.LAYOUT}"
        )
    for split in files.SPLITS:
        files.locate(pathlib.Path(origin.manual_dir), split)
    return "manual_dir"


def prepare(origin: Origin) -> ImagenetSnakes:
    """Prepare the snakes' JPEG files, unless that has been done.

    Args:
        origin: where the files are, and which classes are wanted.

    Returns:
        The builder of what is prepared.

    Raises:
        DataError: if the data cannot be found or prepared.
    """
    builder = _builder(origin)
    if not builder.is_prepared():
        _elsewhere(builder.data_dir, origin)
    return tfds_files.prepared(builder, "imagenet_snakes", origin.manual_dir)


def load(origin: Origin) -> Source:
    """Read the snakes' JPEG files, preparing them first where that has not been done.

    Args:
        origin: where the files are, and which classes are wanted.

    Returns:
        The source; its test pictures are ILSVRC 2012's validation pictures.

    Raises:
        DataError: if the data cannot be found, prepared or read.
    """
    builder = prepare(origin)
    train, test = (tfds_files.read(builder, split, decode=False) for split in files.SPLITS)
    classes = tuple(builder.info.features["label"].names)
    return Source(train, test, MEAN, STD, crop=True, classes=classes)


def _builder(origin: Origin) -> ImagenetSnakes:
    config = config_for(origin.synsets, origin.skip_corrupt_images)
    known = ImagenetSnakes.builder_configs.get(config.name, config)  # TFDS wants that very object

    def build() -> ImagenetSnakes:
        return ImagenetSnakes(data_dir=origin.data_dir, config=known)

    return tfds_files.opened("imagenet_snakes", origin, build)
