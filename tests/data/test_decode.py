"""Decoding, crops and augmentation, against PIL and plain NumPy."""

import io

import numpy as np
import pytest
import snake_files
import tensorflow as tf
from PIL import Image

from ntk_tf.data import augment, counts, decode, pipeline
from ntk_tf.data.source import Source, Split

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def pil_square(content, side):
    """torchvision's Resize and CenterCrop of the same side, by PIL."""
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    width, height = picture.size
    scale = side / min(width, height)
    size = max(side, int(width * scale)), max(side, int(height * scale))
    picture = picture.resize(size, Image.Resampling.BILINEAR)
    left, top = round((size[0] - side) / 2), round((size[1] - side) / 2)
    return np.asarray(picture.crop((left, top, left + side, top + side)), int)


@pytest.fixture
def source(rng):
    files = [snake_files.jpeg(rng, 60 + 5 * i, 100 - 6 * i) for i in range(9)]
    labels = np.arange(9) % 3
    split = Split(tf.constant(files), labels)
    return Source(split, split.first(4), MEAN, STD, crop=True)


def batches(source, augmentation="none", image_size=35, start=0, count=8):
    preprocess = pipeline.preprocessing(source, image_size, 0, 3, augmentation)
    stream = pipeline.training_batches(source.train, preprocess, 3, 2, 7, start)
    return [x.numpy() for x, _ in stream.take(count)]


@pytest.mark.parametrize("size", [(90, 60), (60, 90), (64, 64), (30, 24), (301, 200)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_square_is_that_of_torchvision_and_pil(rng, size, mode):
    content = snake_files.jpeg(rng, *size, mode)
    square = decode.decode(tf.constant(content), 48).numpy().astype(int)
    assert square.shape == (48, 48, 3)
    difference = np.abs(square - pil_square(content, 48))
    assert np.quantile(difference, 0.99) <= 4
    assert difference.mean() < 1.5


def test_imagenet_sizes():
    assert counts.square_side(224) == 256
    assert counts.square_side(32) == 37


def test_network_sees_the_normalized_central_crop(source):
    preprocess = pipeline.preprocessing(source, 35, 0, 3)
    x = preprocess(source.train.images).numpy()
    for file, picture in zip(source.train.images.numpy(), x, strict=True):
        square = decode.decode(tf.constant(file), 40).numpy()[2:37, 2:37]
        np.testing.assert_allclose(picture, (square / 255 - MEAN) / STD, atol=1e-5)


@pytest.mark.parametrize("augmentation", ["none", "flip_crop"])
def test_cache_changes_nothing(source, augmentation):
    kept = decode.cached(source, 35, True)
    assert kept.train.images.shape == (9, 40, 40, 3)
    assert kept.train.images.dtype == np.uint8
    for a, b in zip(batches(source, augmentation), batches(kept, augmentation), strict=True):
        np.testing.assert_array_equal(a, b)


def test_cache_is_the_default_where_it_is_smaller(source):
    assert decode.cached(source, 35, False) is source
    assert decode.cached(source, 224, None) is source
    assert not decode.cached(source, 8, None).train.encoded


@pytest.mark.parametrize("start", [1, 4, 7])
def test_augmentation_resumes_exactly(source, start):
    whole = batches(source, "flip_crop")
    rest = batches(source, "flip_crop", start=start, count=8 - start)
    for a, b in zip(whole[start:], rest, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(whole[0][:1], whole[5][:1])


def test_evaluation_is_never_augmented(source):
    for augmentation in ("none", "flip_crop"):
        preprocess = pipeline.preprocessing(source, 35, 0, 3, augmentation)
        rows = [x for x, _ in pipeline.evaluation_batches(source.test, preprocess, 3, 2)]
        expected = pipeline.preprocessing(source, 35, 0, 3)(source.test.images)
        np.testing.assert_array_equal(tf.concat(rows, 0), expected)


def test_boxes_have_the_published_distribution():
    top, left, bottom, right = augment.boxes(20_000, tf.constant([1, 2], tf.int64)).numpy().T
    flipped = left > right
    width, height = np.abs(right - left), bottom - top
    assert abs(flipped.mean() - 0.5) < 0.02
    assert min(top.min(), left.min(), right.min()) >= 0
    assert max(bottom.max(), left.max(), right.max()) <= 1 + 1e-6
    area, ratio = width * height, width / height
    assert area.min() >= 0.08 - 1e-5
    assert ratio.min() >= 3 / 4 - 1e-4
    assert ratio.max() <= 4 / 3 + 1e-4
    uniform, low, high = np.random.default_rng(0), np.log(3 / 4), np.log(4 / 3)
    expected = []
    while len(expected) < 20_000:  # rejection, one candidate after the other
        a, r = uniform.uniform(0.08, 1), np.exp(uniform.uniform(low, high))
        if a * r <= 1 and a / r <= 1:
            expected.append(a)
    np.testing.assert_allclose(
        np.quantile(area, [0.1, 0.5, 0.9]), np.quantile(expected, [0.1, 0.5, 0.9]), atol=0.02
    )


def test_places_and_mirrors_are_drawn_apart():
    """Across and along, and whether a picture is flipped, do not depend on each other."""
    count, key = 4_000, tf.constant([1, 2], tf.int64)
    top, left, bottom, right = augment.boxes(count, key).numpy().T
    flipped, first = left > right, np.minimum(left, right)
    room = np.maximum(1e-6, [1 - (bottom - top), 1 - np.abs(right - left)])
    inside = (room > 0.02).all(axis=0)
    of_boxes = np.stack([top / room[0], first / room[1], flipped])[:, inside]
    # Pictures whose pixels say where they are; a shift leaves the border's zeros at an edge.
    rows, columns = np.meshgrid(*2 * [np.arange(12) + 1.0], indexing="ij")
    pictures = np.broadcast_to(np.stack([rows, columns], -1), (count, 12, 12, 2)).astype("float32")
    middle = augment.padded_crop(tf.constant(pictures), key).numpy()[:, 5:7, 5:7]
    mirrored = middle[:, 0, 0, 1] > middle[:, 0, 1, 1]
    of_crops = np.stack([middle[:, 0, 0, 0], middle[:, 0].mean(1)[:, 1], mirrored])
    for draws in (of_boxes, of_crops):
        assert np.abs(np.corrcoef(draws) - np.eye(3)).max() < 0.06


def test_a_box_of_the_whole_picture_is_a_resize_or_its_mirror(rng, monkeypatch):
    images = rng.integers(0, 256, (2, 16, 16, 3), np.uint8)
    whole = tf.constant([[0.0, 0, 1, 1], [0, 1, 1, 0]])
    monkeypatch.setattr(augment, "boxes", lambda count, key, aspect: whole)
    for side in (16, 24):
        result = augment.flip_crop(tf.constant(images), (side, side), None).numpy()
        expected = tf.image.resize(images, (side, side)).numpy()
        np.testing.assert_allclose(result[0], expected[0], atol=1e-3)
        np.testing.assert_allclose(result[1], expected[1, :, ::-1], atol=1e-3)


def test_arrays_are_augmented_too(rng):
    images = rng.integers(0, 256, (6, 8, 8, 1), np.uint8)
    split = Split(images, np.zeros(6, int))
    source = Source(split, split, (0.5,), (1.0,))
    batches = []
    for augmentation in ("flip_crop", "none"):
        preprocess = pipeline.preprocessing(source, 12, 2, 3, augmentation)
        x, _ = next(iter(pipeline.training_batches(source.train, preprocess, 2, 6, 0)))
        assert x.shape == (6, 16, 16, 3)
        np.testing.assert_allclose(x[:, 0], -0.5)
        batches.append(x[:, 2:-2, 2:-2])
    for changed, plain in zip(*batches, strict=True):
        assert np.abs(changed - plain).max() > 0.01


def test_evaluation_batches_stay_small():
    assert counts.evaluation_batch_size((28, 28, 1)) == 256
    assert 32 <= counts.evaluation_batch_size((224, 224, 3)) <= 64
