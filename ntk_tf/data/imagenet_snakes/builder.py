"""The TFDS builder of `imagenet_snakes`."""

import dataclasses
import io
import pathlib
import struct
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds
from PIL import Image

from ntk_tf.data.imagenet_snakes import files
from ntk_tf.data.source import DataError

_DESCRIPTION = """
The snakes among the classes of ILSVRC 2012 (ImageNet): by default the first ten of the 17 snake
synsets that have exactly 1,300 training pictures, 13,000 in all, with 50 validation pictures each,
as in Samarin, Roth and Belius (2020). The pictures are the original JPEG files, but for CMYK files,
which are converted to RGB.
"""

_CITATION = """
@article{ILSVRC15,
  author = {Olga Russakovsky and Jia Deng and Hao Su and Jonathan Krause and Sanjeev Satheesh and
            Sean Ma and Zhiheng Huang and Andrej Karpathy and Aditya Khosla and Michael Bernstein
            and Alexander C. Berg and Li Fei-Fei},
  title = {{ImageNet Large Scale Visual Recognition Challenge}},
  journal = {International Journal of Computer Vision (IJCV)},
  year = {2015},
  doi = {10.1007/s11263-015-0816-y},
  volume = {115},
  number = {3},
  pages = {211-252}
}
"""

_INSTRUCTIONS = f"""
The folder must hold {files.LAYOUT}. Access to the archives is granted on https://image-net.org.
"""

#: Of the files that cannot be decoded, an error names so many.
NAMED = 5


@dataclasses.dataclass
class SnakesConfig(tfds.core.BuilderConfig):
    """Which classes and pictures the dataset has.

    Attributes:
        synsets: the classes; None for the first ten with exactly 1,300 training pictures.
        skip_corrupt: leave out pictures that cannot be decoded, in place of failing.
    """

    synsets: tuple[str, ...] | None = None
    skip_corrupt: bool = False


def config_for(synsets: tuple[str, ...] | None = None, skip_corrupt: bool = False) -> SnakesConfig:
    """The builder's configuration for a choice of classes, which its name tells.

    Args:
        synsets: the classes; None for the first ten with exactly 1,300 training pictures.
        skip_corrupt: leave out pictures that cannot be decoded, in place of failing.

    Returns:
        A configuration to be passed as `tfds.load("imagenet_snakes", builder_kwargs={"config":
        config})`.
    """
    name = files.choice_name(synsets)
    return SnakesConfig(
        name=files.choice_name(synsets, skip_corrupt),
        description=f"classes: {name.replace('-', ', ')}",
        synsets=synsets,
        skip_corrupt=skip_corrupt,
    )


class ImagenetSnakes(tfds.core.GeneratorBasedBuilder):
    """The snakes among the classes of ILSVRC 2012."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = _INSTRUCTIONS
    BUILDER_CONFIGS = [config_for(), config_for(skip_corrupt=True)]

    def _info(self) -> tfds.core.DatasetInfo:
        label = tfds.features.ClassLabel(
            names=self.builder_config.synsets,
            num_classes=None if self.builder_config.synsets else files.CLASSES,
        )
        return tfds.core.DatasetInfo(
            builder=self,
            description=_DESCRIPTION,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
                    "label": label,
                    "file_name": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://image-net.org/",
            citation=_CITATION,
        )

    def _split_generators(self, dl_manager):
        """Choose the classes; the pictures are read later."""
        manual_dir = pathlib.Path(dl_manager.manual_dir)
        places = {split: files.locate(manual_dir, split) for split in files.SPLITS}
        synsets = self.builder_config.synsets
        if synsets is None:
            synsets = files.default_synsets(places["train"])
            self.info.features["label"].names = synsets
        self._corrupt = []
        return {
            split: self._generate_examples(place, split, synsets) for split, place in places.items()
        }

    def _generate_examples(
        self, place: pathlib.Path, split: str, synsets: tuple[str, ...]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        good = 0
        for picture in files.pictures(place, split, synsets):
            content = rgb_jpeg(picture.read())
            if content is None:
                self._corrupt.append(f"{picture.name} in {place}")
                continue
            good += 1
            yield (
                f"{picture.synset}/{picture.name}",
                {
                    "image": io.BytesIO(content),
                    "label": picture.synset,
                    "file_name": picture.name,
                },
            )
        if not good:
            raise self._corrupt_error()

    def _download_and_prepare(self, *args, **kwargs):
        """Fail after all splits, so that the error counts every file that cannot be decoded."""
        super()._download_and_prepare(*args, **kwargs)
        if self._corrupt and not self.builder_config.skip_corrupt:
            raise self._corrupt_error()

    def _corrupt_error(self) -> DataError:
        count = len(self._corrupt)
        named = ", ".join(self._corrupt[:NAMED]) + ", ..." * (count > NAMED)
        return DataError(
            f"dataset=imagenet_snakes: {count} picture{'s' * (count != 1)} cannot be decoded:"
            f" {named}; get the files anew, or leave such pictures out with skip_corrupt_images"
        )


def rgb_jpeg(content: bytes) -> bytes | None:
    """A JPEG file as it is or, if it is CMYK, converted to RGB.

    Args:
        content: of the file.

    Returns:
        A JPEG file that TensorFlow decodes to three channels; None if it cannot be decoded.
    """
    import tensorflow as tf

    try:
        with Image.open(io.BytesIO(content)) as picture:
            if picture.format != "JPEG":
                return None
            mode = picture.mode
        pixels = tf.io.decode_jpeg(content, channels=3)
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError):
        return None  # all that Pillow raises at damaged files
    except tf.errors.InvalidArgumentError:
        return None
    if mode != "CMYK":
        return content
    return tf.io.encode_jpeg(pixels, format="rgb", quality=100).numpy()
