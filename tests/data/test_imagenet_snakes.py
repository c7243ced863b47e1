"""The snakes' builder on small archives and folders of generated pictures."""

import io
import pathlib
import tarfile
import tempfile

import numpy as np
import pytest
import snake_files
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from ntk_tf import data
from ntk_tf.catalogue.datasets import SNAKE_SYNSETS
from ntk_tf.data import imagenet_snakes
from ntk_tf.data.imagenet_snakes import builder, files

TWO = SNAKE_SYNSETS[3:5]


@pytest.fixture
def content(rng):
    return snake_files.make(rng, TWO)


def load(tmp_path, manual_dir, synsets=TWO, **choice):
    return data.load(
        "imagenet_snakes", str(tmp_path / "tfds"), str(manual_dir), synsets=synsets, **choice
    )


def truncate(content, split="train", synset=TWO[0]):
    name = next(iter(content[split][synset]))
    content[split][synset][name] = content[split][synset][name][:-200]
    return name


class TestBuilder(tfds.testing.DatasetBuilderTestCase):
    """TFDS' own tests of a builder."""

    DATASET_CLASS = builder.ImagenetSnakes
    BUILDER_CONFIG_NAMES_TO_TEST = [builder.config_for(TWO)]  # noqa: RUF012
    SPLITS = {"train": 6, "validation": 4}  # noqa: RUF012

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.EXAMPLE_DIR = cls.folder.name
        made = snake_files.make(np.random.default_rng(0), TWO)
        snake_files.write_archives(pathlib.Path(cls.EXAMPLE_DIR), made)
        super().setUpClass()

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        cls.folder.cleanup()


def test_archives_and_folders_give_the_same_original_files(content, tmp_path):
    write = {"archives": snake_files.write_archives, "folders": snake_files.write_folders}
    rows = {}
    for name, function in write.items():
        source = load(tmp_path / name, function(tmp_path / name / "files", content))
        assert source.classes == TWO
        assert (len(source.train), len(source.test)) == (6, 4)
        rows[name] = as_sets(source)
    expected = {
        split: {(synset, file) for synset in TWO for file in content[split][synset].values()}
        for split in files.SPLITS
    }
    assert rows == {"archives": expected, "folders": expected}


def as_sets(source):
    """The files of a source by split, each with its class."""
    return {
        split: {
            (source.classes[label], bytes(image))
            for image, label in zip(pictures.images.numpy(), pictures.labels, strict=True)
        }
        for split, pictures in (("train", source.train), ("validation", source.test))
    }


def litter(folder):
    """What macOS, Windows and people leave in folders of pictures."""
    fork = b"\0\5\x16\7\0\2\0\0" + b"\0" * 112
    for path in [*folder.rglob("*.JPEG"), *folder.rglob("*.tar")]:
        (path.parent / f"._{path.name}").write_bytes(fork)
    for place in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        for name in (".DS_Store", "Thumbs.db", "desktop.ini", "readme.txt"):
            (place / name).write_bytes(fork)
    (folder / "__MACOSX/train").mkdir(parents=True)
    (folder / "__MACOSX/train/._n01729977_0.JPEG").write_bytes(fork)


def littered_folders(folder, content):
    litter(snake_files.write_folders(folder, content))


def class_archives(folder, content):
    """The archives unpacked once, by name and by number."""
    (folder / "train").mkdir(parents=True)
    (folder / "val").mkdir()
    for synset, pictures in content["train"].items():
        (folder / f"train/{synset}.tar").write_bytes(snake_files.tar(pictures))
    for pictures in content["validation"].values():
        for name, file in pictures.items():
            (folder / "val" / name).write_bytes(file)


def littered_class_archives(folder, content):
    class_archives(folder, content)
    litter(folder)


def half_unpacked_archives(folder, content):
    """A class unpacked beside its archive, another folder that is still empty."""
    class_archives(folder, content)
    first, second = content["train"]
    for name, file in content["train"][first].items():
        (folder / "train" / first).mkdir(exist_ok=True)
        (folder / "train" / first / name).write_bytes(file)
    (folder / "train" / second).mkdir()


def other_endings(folder, content):
    """Upper and lower case, as other systems write names."""
    class_archives(folder, content)
    for path in (folder / "train").iterdir():
        path.rename(path.with_suffix(".TAR"))
    for path in (folder / "val").iterdir():
        path.rename(path.with_suffix(".jpeg"))


def archives_made_on_macos(folder, content):
    """Archives with resource forks among their members."""
    fork = b"\0\5\x16\7\0\2\0\0" + b"\0" * 112
    littered = {
        split: {
            synset: {f"._{name}": fork for name in pictures} | pictures
            for synset, pictures in classes.items()
        }
        for split, classes in content.items()
    }
    snake_files.write_archives(folder, littered)


@pytest.mark.parametrize(
    "write",
    [
        littered_folders,
        class_archives,
        littered_class_archives,
        half_unpacked_archives,
        other_endings,
        archives_made_on_macos,
    ],
)
def test_imagenet_as_it_is_handed_out(write, content, tmp_path):
    write(tmp_path / "files", content)
    assert data.find("imagenet_snakes", str(tmp_path), str(tmp_path / "files")) == "manual_dir"
    source = load(tmp_path, tmp_path / "files")
    assert as_sets(source) == {
        split: {(synset, file) for synset in TWO for file in content[split][synset].values()}
        for split in files.SPLITS
    }
    assert (len(source.train), len(source.test)) == (6, 4)


@pytest.mark.parametrize("write", [littered_folders, littered_class_archives])
def test_default_classes_are_not_counted_with_litter(write, rng, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PICTURES", 2)
    monkeypatch.setattr(files, "CLASSES", 2)
    write(tmp_path, snake_files.make(rng, TWO, train=2))
    assert files.default_synsets(tmp_path / "train") == TWO


def test_a_flat_folder_without_the_classes_is_explained(content, tmp_path):
    class_archives(tmp_path / "files", content)
    for path in (tmp_path / "files/val").iterdir():
        path.rename(path.with_name(f"a{path.name}"))
    with pytest.raises(data.DataError, match=r"val: holds no n01729977.*a folder n01728572/\*"):
        load(tmp_path, tmp_path / "files")


def test_tfds_loads_it_by_name(content, tmp_path):
    manual_dir = snake_files.write_archives(tmp_path / "files", content)
    split = tfds.load(
        "imagenet_snakes",
        split="train",
        data_dir=tmp_path / "tfds",
        builder_kwargs={"config": builder.config_for(TWO)},
        download_and_prepare_kwargs={
            "download_config": tfds.download.DownloadConfig(manual_dir=manual_dir)
        },
    )
    assert {tuple(row["image"].shape) for row in split} == {(30, 40, 3)}
    assert data.find("imagenet_snakes", str(tmp_path / "tfds"), synsets=TWO) == "prepared"


def test_default_classes_are_the_first_with_the_right_count(rng, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PICTURES", 2)
    monkeypatch.setattr(files, "CLASSES", 10)
    content = snake_files.make(rng, SNAKE_SYNSETS[1:], train=2, validation=1)
    for synset, more in ((SNAKE_SYNSETS[2], 1), (SNAKE_SYNSETS[5], -1)):
        names = list(content["train"][synset])
        if more > 0:
            content["train"][synset]["another.JPEG"] = content["train"][synset][names[0]]
        else:
            del content["train"][synset][names[0]]
    expected = tuple(s for i, s in enumerate(SNAKE_SYNSETS) if i not in (0, 2, 5))[:10]
    for write in (snake_files.write_archives, snake_files.write_folders):
        place = files.locate(write(tmp_path / write.__name__, content), "train")
        assert files.default_synsets(place) == expected
    source = load(tmp_path, tmp_path / "write_archives", synsets=None)
    assert source.classes == expected
    assert set(source.train.labels) == set(range(10))
    assert data.load("imagenet_snakes", str(tmp_path / "tfds")).classes == expected


def test_too_few_default_classes_are_counted(content, tmp_path):
    manual_dir = snake_files.write_archives(tmp_path / "files", content)
    with pytest.raises(data.DataError, match=r"img_train.tar: only 0 .*with synsets.*n01729977 3"):
        load(tmp_path, manual_dir, synsets=None)


def test_a_choice_is_in_the_name_of_the_configuration():
    assert builder.config_for(TWO).name == "n01729977-n01734418"
    assert builder.config_for().name == "first_10_of_1300"
    assert builder.config_for(skip_corrupt=True).name == "first_10_of_1300-skip_corrupt"


def test_cmyk_becomes_rgb(rng):
    original = snake_files.jpeg(rng, mode="CMYK")
    converted = Image.open(io.BytesIO(builder.rgb_jpeg(original)))
    assert converted.mode == "RGB"
    expected = Image.open(io.BytesIO(original)).convert("RGB")
    difference = np.asarray(converted, int) - np.asarray(expected, int)
    assert np.abs(difference).mean() < 2


def test_other_files_stay_byte_for_byte(rng):
    for mode in ("RGB", "L"):
        original = snake_files.jpeg(rng, mode=mode)
        assert builder.rgb_jpeg(original) == original


def test_no_jpeg_is_corrupt(rng):
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "PNG")
    assert builder.rgb_jpeg(out.getvalue()) is None
    assert builder.rgb_jpeg(b"") is None


def test_truncated_pictures_are_named_and_counted(content, tmp_path):
    first, second = truncate(content), truncate(content, "validation", TWO[1])
    manual_dir = snake_files.write_archives(tmp_path / "files", content)
    for _ in range(2):  # the second try must not find anything to trust
        with pytest.raises(data.DataError) as error:
            load(tmp_path, manual_dir)
        message = str(error.value)
        assert "2 pictures cannot be decoded" in message
        assert first in message
        assert second in message
        assert "with skip_corrupt_images" in message
        assert not (tmp_path / "tfds" / "imagenet_snakes").exists()
    source = load(tmp_path, manual_dir, skip_corrupt_images=True)
    assert (len(source.train), len(source.test)) == (5, 3)
    with pytest.raises(data.DataError, match="2 pictures cannot be decoded"):
        load(tmp_path, manual_dir)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda train, val: train.unlink(), "neither ILSVRC2012_img_train.tar nor a folder train"),
        (lambda train, val: val.unlink(), "neither ILSVRC2012_img_val.tar nor a folder val"),
        (lambda train, val: train.write_bytes(val.read_bytes()), "img_train.tar: is another arch"),
        (lambda train, val: val.write_bytes(train.read_bytes()), "img_val.tar: is another archive"),
        (lambda train, val: train.write_text("<html>"), "img_train.tar: is no tar archive or is c"),
        (
            lambda train, val: train.write_bytes(train.read_bytes()[:9000]),
            "img_train.tar: is no tar archive or is cut off",
        ),
        (
            lambda train, val: val.write_bytes(val.read_bytes()[:2000]),
            "img_val.tar: is no tar archive or is cut off",
        ),
    ],
)
def test_wrong_files_are_named(damage, message, content, tmp_path):
    manual_dir = snake_files.write_archives(tmp_path / "files", content)
    damage(*(manual_dir / name for name in files.ARCHIVES.values()))
    with pytest.raises(data.DataError, match=message) as error:
        load(tmp_path, manual_dir)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "tfds" / "imagenet_snakes").exists()


@pytest.mark.parametrize("write", [snake_files.write_archives, snake_files.write_folders])
@pytest.mark.parametrize("split", files.SPLITS)
def test_a_missing_class_is_named(write, split, content, tmp_path):
    del content[split][TWO[1]]
    manual_dir = write(tmp_path / "files", content)
    with pytest.raises(data.DataError, match=f"holds no .*{TWO[1]}"):
        load(tmp_path, manual_dir)


def test_foreign_members_are_not_read(content, tmp_path):
    counters = pathlib.Path("/proc/self/io")
    if not counters.exists():
        pytest.skip("this system does not count what a process reads")

    def bytes_read():
        return int(counters.read_text().split()[1])

    size = 2**30
    manual_dir = snake_files.write_sparse(tmp_path / "files", content, size)
    before = bytes_read()
    assert len(load(tmp_path, manual_dir).train) == 6
    assert bytes_read() - before < size / 100


def test_members_cannot_escape(content, tmp_path):
    """Names that lead elsewhere, and members that are links, folders or devices."""
    synset = TWO[0]
    secret = tmp_path / "secret.JPEG"
    secret.write_bytes(next(iter(content["train"][synset].values())))
    pictures = content["train"][synset]
    evil = {
        "../../evil.JPEG": pictures.popitem()[1],
        f"{tmp_path}/evil2.JPEG": pictures.popitem()[1],
    }
    manual_dir = snake_files.write_archives(tmp_path / "files", content)
    inner = io.BytesIO(snake_files.tar(pictures | evil))
    with tarfile.open(fileobj=inner, mode="a") as archive:
        for kind, target in ((tarfile.SYMTYPE, str(secret)), (tarfile.DIRTYPE, "")):
            member = tarfile.TarInfo(f"link{kind.decode()}.JPEG")
            member.type, member.linkname = kind, target
            archive.addfile(member)
    archives = {f"{name}.tar": snake_files.tar(found) for name, found in content["train"].items()}
    archives |= {f"../{synset}.tar": inner.getvalue()}
    del archives[f"{synset}.tar"]
    (manual_dir / files.ARCHIVES["train"]).write_bytes(snake_files.tar(archives))
    before = sorted(tmp_path.iterdir())
    assert len(load(tmp_path, manual_dir).train) == 6  # 1 good, 2 of evil names, 3 of the other
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "tfds"])
    assert not list(tmp_path.rglob("evil*"))


def test_normalization_is_that_of_torchvision():
    assert imagenet_snakes.MEAN == (0.485, 0.456, 0.406)
    assert imagenet_snakes.STD == (0.229, 0.224, 0.225)


def test_validation_labels_and_outputs_are_those_of_imagenet():
    labels = files.validation_labels()
    assert len(labels) == 50_000
    assert {labels.count(synset) for synset in SNAKE_SYNSETS} == {50}
    names = tfds.core.tfds_path("datasets/imagenet2012/labels.txt").read_text().split()
    assert tuple(names[52:69]) == SNAKE_SYNSETS
    assert names == sorted(names)


def test_without_files_the_error_says_what_is_needed(tmp_path):
    with pytest.raises(data.DataError, match="manual_dir a folder that holds ILSVRC2012_img_tr"):
        data.find("imagenet_snakes", str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_real_pictures(tmp_path, snake_pictures):
    for split in files.FOLDERS.values():
        for path in snake_pictures:
            place = tmp_path / "files" / split / path.name.split("_")[0]
            place.mkdir(parents=True)
            (place / path.name).write_bytes(path.read_bytes())
    source = load(tmp_path, tmp_path / "files", synsets=SNAKE_SYNSETS)
    assert sorted(source.train.labels) == list(range(17))
    shapes = {tuple(tf.io.decode_jpeg(file).shape)[2] for file in source.train.images}
    assert shapes == {3}


def test_module_registers_the_builder():
    assert "imagenet_snakes" in tfds.list_builders(with_community_datasets=False)
    assert imagenet_snakes.ImagenetSnakes.name == "imagenet_snakes"
