"""The user's own data: npz files and TFDS datasets, and how every dataset is normalized."""

import dataclasses
import io
import pathlib
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from ntk_tf import data
from ntk_tf.catalogue.datasets import DATASETS
from ntk_tf.data import augment, normalization, pipeline, tfds_files

CLASSES = 3


def arrays(rng, shape=(5, 7, 3), dtype=np.uint8, train=12, test=6):
    """Random pictures of a shape; each label occurs."""
    made = {}
    for split, count in (("train", train), ("test", test)):
        pixels = rng.integers(0, 256, (count, *shape))
        made[f"x_{split}"] = (pixels if dtype == np.uint8 else pixels / 255).astype(dtype)
        made[f"y_{split}"] = np.arange(count) % CLASSES
    return made


def saved(folder, content, save=np.savez):
    path = folder / "mine.npz"
    save(path, **content)
    return str(path)


def inputs(source, image_size=None, padding=0, channels=None, split="test"):
    preprocess = pipeline.preprocessing(
        source, image_size, padding, channels or len(source.mean), "none"
    )
    batches = pipeline.evaluation_batches(getattr(source, split), preprocess, CLASSES, 4)
    return np.concatenate([x.numpy() for x, _ in batches])


# What is known of a file without reading its pictures.


@pytest.mark.parametrize(
    ("shape", "found"), [((5, 7, 3), (5, 7, 3)), ((5, 7), (5, 7, 1)), ((9,), (9,))]
)
@pytest.mark.parametrize("dtype", [np.uint8, np.float16, ">f4", np.float64])
def test_card_of_a_file(tmp_path, rng, shape, found, dtype):
    path = saved(tmp_path, arrays(rng, shape, dtype))
    card = data.card(path)
    assert (card.name, card.title, card.shape) == (path, "mine.npz", found)
    assert (card.classes, card.train, card.test) == (CLASSES, 12, 6)
    assert data.find(path) == "file"
    source = data.load(path)
    assert source.train.images.shape == (12, *found)
    assert source.train.images.dtype == (np.uint8 if dtype == np.uint8 else np.float32)
    assert source.train.images[0].nbytes == card.pixel_bytes * np.prod(card.shape)
    assert source.train.labels.tolist() == [0, 1, 2] * 4


def test_cards_of_the_built_in_are_the_catalogue():
    assert {name: data.card(name) for name in DATASETS} == DATASETS
    for name in ("imagenet", "tfds:", "mine.npy", ""):
        with pytest.raises(data.DataError, match=r"dataset=.*must be one of digits, .*FILE\.npz"):
            data.card(name)


def test_fingerprint_tells_changed_files_apart(tmp_path, rng):
    content = arrays(rng)
    prints = {data.card(saved(tmp_path, content)).fingerprint}
    assert {data.card(saved(tmp_path, content, np.savez_compressed)).fingerprint} == prints
    for array in content:
        changed = {name: value.copy() for name, value in content.items()}
        changed[array].flat[0] = 2 if array[0] == "y" else 255 - changed[array].flat[0]
        prints.add(data.card(saved(tmp_path, changed)).fingerprint)
    assert len(prints) == 5


def test_a_card_needs_neither_tensorflow_nor_the_pictures(tmp_path, rng):
    path = saved(tmp_path, arrays(rng, (40, 40, 3)))
    content = bytearray(pathlib.Path(path).read_bytes())
    content[9000] ^= 255  # a pixel
    pathlib.Path(path).write_bytes(content)
    code = f"import sys; from ntk_tf import data; print(data.card({path!r}).shape)"
    code += "; sys.exit('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "(40, 40, 3)\n")
    with pytest.raises(data.DataError, match=r"mine\.npz: is damaged.*CRC-32.*x_train"):
        data.load(path)


# Files that are refused.


def without(name):
    return lambda content: content.pop(name)


def replaced(**new):
    return lambda content: content.update({name: make(content[name]) for name, make in new.items()})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("y_test"), "lacks y_test; it must hold x_train, y_train, x_test, y_test and"),
        (
            replaced(x_train=lambda x: x.astype(object)),
            "x_train is objects, which are never unpick",
        ),
        (replaced(y_test=lambda y: y.astype(object)), "y_test is objects, which are never unpick"),
        (replaced(x_train=lambda x: x.astype(int)), r"x_train is int64 .* must be pictures \[n, h"),
        (replaced(x_test=lambda x: x > 9), "x_test is bool .* uint8 or float"),
        (replaced(x_train=lambda x: x[:, 0, 0, 0]), r"x_train is uint8 \[12\]; must be"),
        (replaced(x_train=lambda x: x[None]), r"x_train is uint8 \[1, 12, 5, 7, 3\]; must be"),
        (replaced(x_train=lambda x: x[..., :0]), r"x_train is uint8 \[12, 5, 7, 0\]; must be"),
        (replaced(x_test=lambda x: x[:, 1:]), r"x_train is uint8 \[12, 5, 7, 3\] and x_test is"),
        (replaced(x_test=lambda x: x / 255), "x_test is float64 .*bytes or floats"),
        (replaced(y_train=lambda y: y[1:]), "y_train has 11 labels and x_train 12 pictures"),
        (
            replaced(y_train=lambda y: y[:, None] == [0, 1, 2]),
            r"y_train is bool \[12, 3\]; must be",
        ),
        (replaced(y_train=lambda y: y / 1), r"y_train is float64 \[12\]; must be integers"),
        (replaced(y_train=lambda y: y[0]), r"y_train is int64 \[\]; must be integers"),
        (replaced(y_train=lambda y: y - 1), "y_train has label -1; labels are integers"),
        (replaced(y_test=lambda y: y - 2), "y_test has label -2; labels are integers"),
        (replaced(y_test=lambda y: y + 1), r"y_test has label 3, which y_train never has \(its 3"),
        (replaced(y_train=lambda y: y * 0, y_test=lambda y: y * 0), "only label 0; two or more"),
        (
            replaced(y_train=lambda y: y * 9, y_test=lambda y: y * 9),
            "y_train has label 18, which makes more classes than 12",
        ),
        (
            replaced(x_test=lambda x: x[:0], y_test=lambda y: y[:0]),
            "x_test is empty; each split needs",
        ),
    ],
)
def test_wrong_arrays_are_named_before_pictures_are_read(tmp_path, rng, change, message):
    content = arrays(rng)
    change(content)
    path = saved(tmp_path, content)
    for read in (data.card, data.find, data.prepare, data.load):
        with pytest.raises(data.DataError, match=message) as error:
            read(path)
        assert str(error.value).startswith(f"dataset={path}: ")
        assert "\n" not in str(error.value)


def test_objects_are_never_unpickled(tmp_path, rng):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "evil"), "w"))

    path = saved(tmp_path, arrays(rng) | {"y_train": np.array([Evil()] * 12)})
    with pytest.raises(data.DataError, match="never unpickled"):
        data.load(path)
    assert not (tmp_path / "evil").exists()


def member(archive, name, content):
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(name, content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "no such file; it must hold x_train"),
        (lambda path: path.write_bytes(b"something else"), "is damaged or no npz file"),
        (lambda path: path.write_bytes(path.read_bytes()[:900]), "is damaged or no npz file"),
        (lambda path: path.write_bytes(b""), "is damaged or no npz file"),
        (lambda path: path.write_bytes(b"\x93NUMPY\x01\x00"), "is damaged or no npz file"),
        (lambda path: zipfile.ZipFile(path, "w").close(), "lacks x_train;.*holds nothing"),
    ],
)
def test_files_that_are_no_npz(tmp_path, rng, damage, message):
    path = saved(tmp_path, arrays(rng))
    damage(tmp_path / "mine.npz")
    with pytest.raises(data.DataError, match=message) as error:
        data.card(path)
    assert str(error.value).startswith(f"dataset={path}: ")


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00\x46\x00{'descr'", b"a picture"])
def test_members_that_are_no_arrays(tmp_path, rng, content):
    made = arrays(rng)
    del made["x_train"]
    path = saved(tmp_path, made)
    member(path, "x_train.npy", content)
    with pytest.raises(data.DataError, match="is damaged or no npz file"):
        data.card(path)


def test_a_header_that_promises_more_than_the_file_holds(tmp_path, rng):
    made = arrays(rng)
    out = io.BytesIO()
    np.save(out, made.pop("x_train"))
    path = saved(tmp_path, made)
    member(path, "x_train.npy", out.getvalue()[:-1])
    with pytest.raises(data.DataError, match="x_train has another size than its header says"):
        data.card(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e60])
@pytest.mark.parametrize("split", ["train", "test"])
def test_values_that_are_not_finite(tmp_path, rng, value, split):
    content = arrays(rng, dtype=np.float64, train=600)
    content[f"x_{split}"][[3, 5], 1, 2, 0] = value
    path = saved(tmp_path, content)
    assert data.card(path).train == 600
    with pytest.raises(
        data.DataError, match=rf"x_{split} has NaN or infinite values in 2 of .* number 3 from 0"
    ):
        data.load(path)


def test_labels_in_a_column_of_any_integers(tmp_path, rng):
    content = arrays(rng)
    content["y_train"] = content["y_train"].astype(np.uint8)[:, None]
    source = data.load(saved(tmp_path, content))
    assert source.train.labels.dtype == np.int64
    assert source.train.labels.tolist() == [0, 1, 2] * 4


# Normalization.


@pytest.mark.parametrize("chunk", [1, 2**22])
@pytest.mark.parametrize("shape", [(5, 7, 3), (5, 7, 1), (6,)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_mean_and_std_are_those_of_the_training_set(
    tmp_path, rng, monkeypatch, shape, dtype, chunk
):
    monkeypatch.setattr(normalization, "_CHUNK", chunk)
    content = arrays(rng, shape, dtype, train=30)
    content["x_train"][..., 0] = 0.1 if dtype == np.float32 else 77
    source = data.load(saved(tmp_path, content), train_examples=8)
    scale = 255 if dtype == np.uint8 else 1
    for channel in range(shape[-1]):
        values = [float(value) / scale for value in content["x_train"][..., channel].ravel()]
        mean = sum(values) / len(values)
        std = (sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5
        assert source.mean[channel] == pytest.approx(mean, rel=1e-12)
        assert source.std[channel] == (1 if channel == 0 else pytest.approx(std, rel=1e-12))


def test_what_float32_cannot_divide_by_counts_as_constant(tmp_path, rng):
    content = arrays(rng, (6,), np.float32, train=30)
    content["x_train"][:, 0] = np.where(rng.random(len(content["x_train"])) < 0.5, 0, 1e-42)
    assert data.load(saved(tmp_path, content)).std[0] == 1


@pytest.mark.parametrize("mean", [0, 1e3, 1e5, 1e7])
def test_numbers_far_from_zero(mean, tmp_path, rng):
    """All exact in float32; their mean over their standard deviation does not count."""
    x = (mean + np.round(rng.normal(0, 3, (200, 3)))).astype("float32")
    labels = np.arange(200) % 2
    content = {"x_train": x, "y_train": labels, "x_test": x[:50], "y_test": labels[:50]}
    source = data.load(saved(tmp_path, content))
    seen = pipeline.preprocessing(source, None, 0, 3)(tf.constant(x)).numpy()
    exact = x.astype("float64")
    np.testing.assert_allclose(seen, (exact - exact.mean(0)) / exact.std(0), atol=1e-6)


@pytest.mark.parametrize("shape", [(5, 7, 3), (6,)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
@pytest.mark.parametrize("how", normalization.NORMALIZATIONS)
def test_normalizations(tmp_path, rng, shape, dtype, how):
    content = arrays(rng, shape, dtype)
    source = data.load(saved(tmp_path, content), normalization=how)
    train, test = (content[f"x_{split}"].astype(np.float64) for split in ("train", "test"))
    if dtype == np.uint8:
        train, test = train / 255, test / 255
    axes = tuple(range(train.ndim - 1))
    expected = {
        "standard": (test - train.mean(axes)) / train.std(axes),
        "half": 2 * test - 1,
        "unit": test,
    }[how]
    np.testing.assert_allclose(inputs(source), expected, atol=2e-6)


@pytest.mark.parametrize(("how", "low", "high"), [("half", -1, 1), ("unit", 0, 1)])
def test_built_in_pictures_reach_both_ends(how, low, high):
    source = data.load("digits", normalization=how)
    x = pipeline.preprocessing(source, None, 0, 1)(source.test.images).numpy()
    assert x.shape == (360, 8, 8, 1)
    assert (x.min(), x.max()) == (low, high)


def test_standard_is_the_default_and_changes_no_number():
    source = data.load("digits")
    x = pipeline.preprocessing(source, 8, 0, 1)(source.test.images).numpy()
    std, mean = np.float32(source.std[0]), np.float32(source.mean[0])
    pixels = source.test.images.astype(np.float32)
    np.testing.assert_array_equal(x, pixels * (1 / (np.float32(255) * std)) - mean / std)


@pytest.mark.parametrize("how", ["half", "unit"])
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("value", [-0.01, 1.01])
def test_floats_beyond_the_unit_range_are_only_standardized(tmp_path, rng, how, split, value):
    content = arrays(rng, dtype=np.float32)
    content[f"x_{split}"][0, 0, 0, 0] = value
    path = saved(tmp_path, content)
    data.load(path, normalization="standard")
    with pytest.raises(data.DataError, match=f"normalization={how}: takes floats from 0 to 1"):
        data.load(path, normalization=how)


def test_another_normalization_is_refused():
    with pytest.raises(data.DataError, match="normalization=zca: must be one of standard, half, u"):
        data.load("digits", normalization="zca")


# Pictures that are not square, floats, and vectors.


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("size", [None, 4, 11])
def test_pictures_are_resized_as_by_pil(tmp_path, rng, dtype, size):
    content = arrays(rng, (5, 8, 1), dtype)
    source = data.load(saved(tmp_path, content), normalization="unit")
    found = inputs(source, size, padding=2, channels=3)
    scale = 255 if dtype == np.uint8 else 1
    for picture, x in zip(content["x_test"], found, strict=True):
        expected = Image.fromarray(picture[..., 0].astype(np.float32) / scale, "F")
        if size:
            expected = expected.resize((size, size), Image.Resampling.BILINEAR)
        expected = np.pad(np.asarray(expected), 2)[..., None].repeat(3, axis=-1)
        np.testing.assert_allclose(x, expected, atol=1e-5)


@pytest.mark.parametrize("size", [None, 6])
def test_training_batches_have_the_pictures_shape(tmp_path, rng, size):
    source = data.load(saved(tmp_path, arrays(rng)))
    preprocess = pipeline.preprocessing(source, size, 1, 3, "flip_crop")
    assert preprocess.shape == ((7, 9, 3) if size is None else (8, 8, 3))
    x, y = next(iter(pipeline.training_batches(source.train, preprocess, CLASSES, 4, 0)))
    assert x.shape == (4, *preprocess.shape)
    assert y.shape == (4, CLASSES)


def test_vectors_pass_through(tmp_path, rng):
    content = arrays(rng, (9,), np.float32)
    source = data.load(saved(tmp_path, content))
    preprocess = pipeline.preprocessing(source, None, 0, 9)
    assert preprocess.shape == (9,)
    mean, std = content["x_train"].mean(0), content["x_train"].std(0)
    expected = {tuple(row) for row in np.round((content["x_train"] - mean) / std, 3)}
    batches = pipeline.training_batches(source.train, preprocess, CLASSES, 4, 0)
    rows = np.concatenate([x for x, _ in batches.take(3)])
    assert {tuple(row) for row in np.round(rows, 3)} == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((28, 0, 9), "image_size=28: must be None for vectors"),
        ((None, 2, 9), "padding=2: must be 0 for vectors"),
        ((None, 0, 9, "flip_crop"), "augmentation=flip_crop: must be none for vectors"),
        ((None, 0, 3), "channels=3: the data has 9"),
    ],
)
def test_vectors_are_no_pictures(tmp_path, rng, arguments, message):
    source = data.load(saved(tmp_path, arrays(rng, (9,))))
    with pytest.raises(data.DataError, match=message):
        pipeline.preprocessing(source, *arguments)


def test_only_a_single_channel_is_repeated(tmp_path, rng):
    source = data.load(saved(tmp_path, arrays(rng)))
    with pytest.raises(data.DataError, match="channels=1: the data has 3"):
        pipeline.preprocessing(source, None, 0, 1)


def test_crops_of_wide_pictures_have_the_published_ratio():
    top, left, bottom, right = augment.boxes(4000, tf.constant([1, 2], tf.int64), 1.5).numpy().T
    width, height = 1.5 * np.abs(right - left), bottom - top
    whole = (np.abs(right - left) == 1) & (height == 1)  # where no candidate fits
    assert whole.mean() < 0.01
    ratio = (width / height)[~whole]
    assert (ratio.min(), ratio.max()) == pytest.approx((3 / 4, 4 / 3), rel=0.01)
    area = (width * height / 1.5)[~whole]
    assert area.min() >= 0.08 - 1e-5


def test_a_box_of_a_whole_wide_picture_is_a_resize_or_its_mirror(rng, monkeypatch):
    images = rng.integers(0, 256, (2, 12, 20, 3), np.uint8)
    whole = tf.constant([[0.0, 0, 1, 1], [0, 1, 1, 0]])
    monkeypatch.setattr(augment, "boxes", lambda count, key, aspect: whole)
    result = augment.flip_crop(tf.constant(images), (12, 20), None).numpy()
    np.testing.assert_allclose(result, [images[0], images[1, :, ::-1]], atol=1e-3)


# TFDS.


def generated(builder, count):
    """What a builder of this file holds: pictures of its shape and labels."""
    height, width, channels = builder.shape
    for i in range(count):
        size = (height or 20 + i, width or 30 - 2 * i, channels)
        yield np.random.default_rng(i).integers(0, 256, size, np.uint8), builder.first + i % CLASSES


class _Tiny(tfds.core.GeneratorBasedBuilder):
    """A dataset of a few pictures that are made on the spot."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First."}  # noqa: RUF012

    shape = (4, 6, 3)
    names = ("image", "label")
    supervised = True
    label = tfds.features.ClassLabel(num_classes=CLASSES)
    counts = {"train": 8, "test": 5}  # noqa: RUF012
    first = 0

    def _info(self):
        image, label = self.names
        features = {image: tfds.features.Image(shape=self.shape), label: self.label}
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=self.names if self.supervised else None,
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(n) for split, n in self.counts.items()}

    def _generate_examples(self, count):
        for i, row in enumerate(generated(self, count)):
            yield i, dict(zip(self.names, row, strict=True))


class TinyPictures(_Tiny):
    """Of one size."""


class TinyDigits(_Tiny):
    """With other names, a validation split and one channel."""

    shape, names = (4, 4, 1), ("digit", "number")
    counts = {"train": 8, "validation": 5}  # noqa: RUF012


class TinyPhotographs(_Tiny):
    """Of many sizes and without supervised keys."""

    shape, supervised = (None, None, 3), False


class TinyNumbers(_Tiny):
    """Of no classes."""

    label = np.float32


class TinyTrain(_Tiny):
    """Without a test split."""

    counts = {"train": 8, "more": 3}  # noqa: RUF012


class TinyUnlabelled(_Tiny):
    """With labels that are not known."""

    first = -1


@pytest.fixture(scope="module")
def tfds_dir(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("tfds"))
    tfds.disable_progress_bar()
    for builder in (TinyPictures, TinyDigits, TinyPhotographs, TinyTrain, TinyUnlabelled):
        builder(data_dir=folder).download_and_prepare()
    return folder


@pytest.mark.parametrize(("builder", "test"), [(TinyPictures, "test"), (TinyDigits, "validation")])
def test_a_tfds_dataset(tfds_dir, builder, test):
    name = f"tfds:{builder.name}"
    card = data.card(name, tfds_dir)
    assert (card.name, card.title, card.shape) == (name, builder.name, builder.shape)
    assert (card.classes, card.train, card.test) == (CLASSES, 8, 5)
    assert not card.photographs
    assert data.find(name, tfds_dir) == "prepared"
    source = data.load(name, tfds_dir)
    for split, found in (("train", source.train), (test, source.test)):
        rows = zip(found.images, found.labels, strict=True)
        expected = generated(builder, builder.counts[split])
        assert sorted((x.tobytes(), y) for x, y in rows) == sorted(
            (x.tobytes(), y) for x, y in expected
        )
    pixels = source.train.images / 255
    np.testing.assert_allclose(source.mean, pixels.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(source.std, pixels.std((0, 1, 2)), rtol=1e-12)


def test_its_code_is_not_needed_once_it_is_prepared(tfds_dir, tmp_path):
    folder = pathlib.Path(tfds_dir, "tiny_pictures")
    shutil.copytree(folder, tmp_path / "unregistered")
    description = tmp_path / "unregistered/1.0.0/dataset_info.json"
    description.write_text(description.read_text().replace("tiny_pictures", "unregistered"))
    for path in description.parent.glob("tiny_pictures-*"):
        path.rename(path.with_name(path.name.replace("tiny_pictures", "unregistered")))
    source, expected = (
        data.load("tfds:unregistered", str(tmp_path)),
        data.load("tfds:tiny_pictures", tfds_dir),
    )
    np.testing.assert_array_equal(source.train.images, expected.train.images)


def test_photographs_are_squares_of_their_centre(tfds_dir):
    name = "tfds:tiny_photographs"
    card = data.card(name, tfds_dir)
    assert (card.shape, card.photographs) == ((32, 32, 3), True)
    with pytest.raises(data.DataError, match=f"image_size=None: the pictures of {name} have many"):
        data.load(name, tfds_dir)
    source = data.load(name, tfds_dir, image_size=14)
    assert source.train.images.shape == (8, 16, 16, 3)
    squares = {}
    for picture, _ in generated(TinyPhotographs, 8):
        height, width = picture.shape[:2]
        short = min(height, width)
        top, left = (height - short) // 2, (width - short) // 2
        square = Image.fromarray(picture[top : top + short, left : left + short])
        resized = np.asarray(square.resize((16, 16), Image.Resampling.BILINEAR), int)
        squares[round(resized.mean(), 1)] = resized
    for image in source.train.images:
        nearest = min(squares.values(), key=lambda square: np.abs(square - image).mean())
        assert np.abs(nearest - image).max() <= 1
    unit = dataclasses.replace(source, mean=(0.0,) * 3, std=(1.0,) * 3)
    expected = source.test.images[:, 1:-1, 1:-1] / 255
    np.testing.assert_allclose(inputs(unit, 14), expected, atol=1e-6)
    with pytest.raises(data.DataError, match="image_size=None: photographs of many sizes"):
        pipeline.preprocessing(source, None, 0, 3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tiny_picture", "TFDS knows no such dataset; the nearest names are tiny_pictures"),
        ("mnits", "TFDS knows no such dataset; the nearest names are .*mnist"),
        ("qqqqqqqqqqqq", "TFDS knows no such dataset$"),
        ("../x", "Parsing builder name string"),
        ("cifar10_1/v9", "BuilderConfig v9 not found"),
        ("mnist:9.9.9", "cannot be loaded at version 9.9.9"),
        ("tiny_numbers", "is no image classification dataset: it needs an Image of uint8 and a Cl"),
        ("glue", "is no image classification dataset"),
        ("tiny_train", "needs splits train and test or validation; it has train, more"),
        ("tiny_unlabelled", "3 pictures have label -1, which is none of its 3 classes, 0 to 2"),
    ],
)
def test_tfds_names_that_are_refused(tfds_dir, name, message):
    with pytest.raises(data.DataError, match=message) as error:
        data.load(f"tfds:{name}", tfds_dir)
    assert str(error.value).startswith(f"dataset=tfds:{name}: ")
    assert "\n" not in str(error.value)


def test_a_tfds_dataset_that_is_not_prepared(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_OFFLINE", "1")
    name, folder = "tfds:food101", str(tmp_path)
    card = data.card(name, folder)
    assert (card.shape, card.photographs) == ((32, 32, 3), True)
    assert (card.classes, card.train, card.test) == (101, 0, 0)
    for read in (data.find, data.prepare, data.load):
        with pytest.raises(
            data.DataError, match="dataset=tfds:food101: not prepared in .* no netw"
        ):
            read(name, folder)
        with pytest.raises(data.DataError, match="manual_dir=/nowhere: no such folder"):
            read(name, folder, "/nowhere")
    assert not list(tmp_path.iterdir())


# Preparing.


def test_prepare_reads_no_pictures_and_load_prepares_nothing_again(tmp_path, monkeypatch):
    made = []
    init = TinyPictures.__init__
    monkeypatch.setattr(
        TinyPictures, "__init__", lambda self, **given: (made.append(given), init(self, **given))[0]
    )
    monkeypatch.setattr(tfds_files, "_reachable", lambda host: True)
    folder = str(tmp_path)
    assert data.find("tfds:tiny_pictures", folder) == "download"
    with monkeypatch.context() as without_pictures:
        without_pictures.setattr(TinyPictures, "as_dataset", None)
        data.prepare("tfds:tiny_pictures", folder)
    assert data.find("tfds:tiny_pictures", folder) == "prepared"
    made.clear()
    data.load("tfds:tiny_pictures", folder)
    assert len(made) == 1


def test_prepare_of_what_is_at_hand(tmp_path, rng):
    data.prepare("digits")
    path = saved(tmp_path, arrays(rng))
    data.prepare(path)
    assert [place.name for place in tmp_path.iterdir()] == ["mine.npz"]
