"""Small stand-ins for ILSVRC 2012's files, made of generated pictures."""

import io
import pathlib
import tarfile

import numpy as np
from PIL import Image

from ntk_tf.data.imagenet_snakes import files


def jpeg(rng, width=40, height=30, mode="RGB"):
    """A JPEG file of smooth random colours."""
    channels = {"L": 1, "RGB": 3, "CMYK": 4}[mode]
    small = rng.integers(0, 256, (4, 4, channels), np.uint8)
    picture = Image.fromarray(small if channels > 1 else small[..., 0], mode)
    out = io.BytesIO()
    picture.resize((width, height), Image.Resampling.BICUBIC).save(out, "JPEG", quality=95)
    return out.getvalue()


def make(rng, synsets, train=3, validation=2):
    """Pictures by split, synset and name, with ILSVRC 2012's names."""
    labels = files.validation_labels()
    content = {"train": {}, "validation": {}}
    for synset in synsets:
        numbers = [i + 1 for i, label in enumerate(labels) if label == synset][:validation]
        names = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in numbers]
        content["train"][synset] = {f"{synset}_{i}.JPEG": jpeg(rng) for i in range(train)}
        content["validation"][synset] = {name: jpeg(rng) for name in names}
    return content


def tar(members):
    """An archive of named files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return out.getvalue()


def write_archives(folder, content):
    folder.mkdir(parents=True, exist_ok=True)
    train = {f"{synset}.tar": tar(pictures) for synset, pictures in content["train"].items()}
    validation = {k: v for pictures in content["validation"].values() for k, v in pictures.items()}
    (folder / files.ARCHIVES["train"]).write_bytes(tar(train))
    (folder / files.ARCHIVES["validation"]).write_bytes(tar(validation))
    return folder


def write_folders(folder, content):
    for split, classes in content.items():
        for synset, pictures in classes.items():
            place = folder / files.FOLDERS[split] / synset
            place.mkdir(parents=True)
            for name, data in pictures.items():
                (place / name).write_bytes(data)
    return folder


def write_sparse(folder, content, size):
    """As `write_archives`, with a foreign member of so many bytes that take no room on disk."""
    write_archives(folder, content)
    path = pathlib.Path(folder) / files.ARCHIVES["train"]
    members = path.read_bytes()
    header = tarfile.TarInfo("n02084071.tar")
    header.size = size
    with open(path, "wb") as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT))
        file.seek(size, io.SEEK_CUR)
        file.write(members)
    return folder
