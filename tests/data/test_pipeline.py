"""Order and preprocessing of batches."""

import gzip

import numpy as np
import pytest
import tensorflow_datasets as tfds
from sklearn.datasets import load_digits

from ntk_tf import data
from ntk_tf.data import counts, pipeline, tfds_files
from ntk_tf.data.source import Split


def small_split(n=10):
    """Pictures whose only pixel is their index."""
    return Split(np.arange(n, dtype=np.uint8).reshape(n, 1, 1, 1), np.arange(n) % 3)


def indices(batches, count):
    found = [np.round(x.numpy().ravel() * 255).astype(int) for x, _ in batches.take(count)]
    return [list(batch) for batch in found]


IDENTITY = pipeline.Preprocessing((0.0,), (1.0,), (1, 1), 0, 1)


def training(seed=0, start=0, n=10, batch=4):
    return pipeline.training_batches(small_split(n), IDENTITY, 3, batch, seed, start)


def test_every_epoch_is_a_permutation_of_its_own():
    batches = indices(training(), 9)
    epochs = [sum(batches[i : i + 3], []) for i in (0, 3, 6)]
    assert [len(batch) for batch in batches] == [4, 4, 2] * 3
    for epoch in epochs:
        assert sorted(epoch) == list(range(10))
    assert epochs[0] != epochs[1] != epochs[2]


def test_order_is_a_pure_function_of_seed_and_epoch():
    assert indices(training(seed=5), 7) == indices(training(seed=5), 7)
    assert indices(training(seed=5), 7) != indices(training(seed=6), 7)
    order = list(pipeline.epoch_order(10, 5, 1).numpy())
    assert sum(indices(training(seed=5), 6)[3:], []) == order


@pytest.mark.parametrize("start", [1, 3, 5, 8])
def test_starts_in_the_middle(start):
    assert indices(training(start=start), 4) == indices(training(), start + 4)[start:]


def test_batches_have_a_static_size_where_it_divides():
    assert training(batch=5).element_spec[0].shape[0] == 5
    assert training(batch=4).element_spec[0].shape[0] is None


@pytest.mark.parametrize("size", [12, 8])
def test_inputs_kept_or_made_anew_are_the_same(size, monkeypatch, rng):
    split = Split(rng.integers(0, 256, (11, 8, 8, 1), dtype=np.uint8), np.arange(11) % 3)
    preprocess = pipeline.Preprocessing((0.2,), (0.4,), (size, size), 2, 3)
    kept = pipeline.training_batches(split, preprocess, 3, 4, seed=0)
    assert counts.kept_bytes(11, preprocess.shape, "none") == 4 * 11 * (size + 4) ** 2 * 3
    assert counts.kept_bytes(11, preprocess.shape, "flip_crop") == 0
    monkeypatch.setattr(counts, "KEPT_BYTES", 1000)
    assert counts.kept_bytes(11, preprocess.shape, "none") == 0
    anew = pipeline.training_batches(split, preprocess, 3, 4, seed=0)
    for (x, y), (x2, y2) in zip(kept.take(6), anew.take(6), strict=True):
        np.testing.assert_allclose(x, x2, atol=1e-6)
        np.testing.assert_array_equal(y, y2)


def test_evaluation_sees_each_picture_once_in_order():
    batches = pipeline.evaluation_batches(small_split(), IDENTITY, 3, 4)
    assert sum(indices(batches, 5), []) == list(range(10))
    labels = np.concatenate([y.numpy() for _, y in batches])
    np.testing.assert_array_equal(labels, np.eye(3)[np.arange(10) % 3])


def test_normalization_padding_and_channels(rng):
    images = rng.integers(0, 256, (3, 4, 4, 1), dtype=np.uint8)
    result = pipeline.Preprocessing((0.25,), (0.5,), (4, 4), 2, 3)(images).numpy()
    expected = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0))) / 255
    expected = np.repeat((expected - 0.25) / 0.5, 3, axis=-1)
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_channels_are_normalized_apart(rng):
    images = rng.integers(0, 256, (2, 5, 5, 3), dtype=np.uint8)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    result = pipeline.Preprocessing(mean, std, (5, 5), 0, 3)(images)
    np.testing.assert_allclose(result, (images / 255 - mean) / std, atol=1e-6)


def test_resizing_keeps_constant_pictures():
    images = np.full((1, 8, 8, 1), 51, np.uint8)
    result = pipeline.Preprocessing((0.0,), (1.0,), (28, 28), 0, 1)(images)
    assert result.shape == (1, 28, 28, 1)
    np.testing.assert_allclose(result, 0.2, rtol=1e-5)


def test_digits():
    source = data.load("digits")
    assert source.train.images.shape == (1437, 8, 8, 1)
    assert source.test.images.shape == (360, 8, 8, 1)
    assert source.train.images.max() == 255
    normalized = (source.train.images / 255 - source.mean) / source.std
    assert abs(normalized.mean()) < 1e-9
    assert normalized.std() == pytest.approx(1)
    assert set(source.test.labels) == set(range(10))
    known = load_digits()
    images = np.concatenate([source.train.images, source.test.images])
    assert np.abs(images[..., 0] / 255 - known.images / 16).max() <= 0.5 / 255
    labels = np.concatenate([source.train.labels, source.test.labels])
    np.testing.assert_array_equal(labels, known.target)


def test_first_examples_and_too_many():
    source = data.load("digits", train_examples=7, test_examples=3)
    assert (len(source.train), len(source.test)) == (7, 3)
    with pytest.raises(data.DataError, match="train_examples=1438.*1437"):
        data.load("digits", train_examples=1438)
    with pytest.raises(data.DataError, match="train_examples=True: must be a whole number"):
        data.load("digits", train_examples=True)
    with pytest.raises(data.DataError, match="subset_seed=-1: must be 0 to 4294967295"):
        data.load("digits", train_examples=5, subset_seed=-1)


def test_random_subsets_are_nested_and_keep_their_labels():
    whole = data.load("digits").train
    places = {image.tobytes(): i for i, image in enumerate(whole.images)}

    def drawn(count, seed):
        found = data.load("digits", train_examples=count, subset_seed=seed).train
        positions = [places[image.tobytes()] for image in found.images]
        np.testing.assert_array_equal(found.labels, whole.labels[positions])
        return positions

    few, many = drawn(300, 1), drawn(700, 1)
    assert many[:300] == few
    assert len(set(many)) == 700
    assert 600 < np.mean(many) < 840  # of 0 to 1436
    assert 30 < len(set(few) & set(drawn(300, 2))) < 100  # 300^2 / 1437 = 63


def test_mnist_from_its_original_files(mnist_files, mnist_data_dir):
    """Read through TFDS, picture by picture the same as the raw files hold, in another order."""
    assert data.find("mnist", data_dir=mnist_data_dir) == "prepared"
    source = data.load("mnist", data_dir=mnist_data_dir)
    for split, prefix in ((source.train, "train"), (source.test, "t10k")):
        raw = gzip.decompress((mnist_files / f"{prefix}-images-idx3-ubyte.gz").read_bytes())[16:]
        labels = gzip.decompress((mnist_files / f"{prefix}-labels-idx1-ubyte.gz").read_bytes())[8:]
        expected = sorted((raw[784 * i : 784 * (i + 1)], label) for i, label in enumerate(labels))
        found = sorted(
            (image.tobytes(), int(label))
            for image, label in zip(split.images, split.labels, strict=True)
        )
        assert found == expected
    assert source.train.images.mean() / 255 == pytest.approx(0.1307, abs=1e-4)
    assert source.train.images.std() / 255 == pytest.approx(0.3081, abs=1e-4)
    assert (source.mean, source.std) == ((0.1307,), (0.3081,))


class Squares(tfds.core.GeneratorBasedBuilder):
    """A dataset of five and three pictures."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {"image": tfds.features.Image(shape=(4, 4, 1)), "label": np.int64}
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._examples(5), "test": self._examples(3)}

    def _generate_examples(self):
        raise NotImplementedError

    def _examples(self, count):
        for i in range(count):
            yield i, {"image": np.full((4, 4, 1), 10 * i, np.uint8), "label": i}


@pytest.mark.parametrize("damage", ["bytes", "names", "folder"])
def test_decoded_pictures_are_kept_beside_the_prepared_files(damage, tmp_path, monkeypatch):
    """And made anew where they are damaged; a folder stands for what cannot be written."""
    tfds.disable_progress_bar()
    made = Squares(data_dir=tmp_path)
    made.download_and_prepare()
    published = tfds_files.Published("squares")
    monkeypatch.setattr(tfds_files, "prepare", lambda *_: made)
    origin = data.Origin(str(tmp_path))
    reads = []
    read = tfds_files.read
    monkeypatch.setattr(tfds_files, "read", lambda *args: reads.append(args[1]) or read(*args))

    def check(expected):
        reads.clear()
        for split, count in zip(tfds_files.load(published, origin), (5, 3), strict=True):
            assert split.images.dtype == np.uint8
            assert split.labels.dtype == np.int64
            assert sorted(split.labels) == list(range(count))
            np.testing.assert_array_equal(split.images[:, 3, 3, 0], 10 * split.labels)
        assert reads == expected

    check(["train", "test"])
    check([])
    (kept,) = tmp_path.rglob("ntk_tf-test.npz")
    content = bytearray(kept.read_bytes())
    if damage == "bytes":
        content[len(content) // 3] ^= 4
        kept.write_bytes(content)
    elif damage == "names":
        np.savez(kept, images=np.zeros((3, 4, 4, 1), np.uint8))
    else:
        kept.unlink()
        kept.mkdir()
    check(["train", "test"])
    check(["train", "test"] if damage == "folder" else [])
    (tmp_path / "squares/2.0.0").mkdir()
    (tmp_path / "squares/2.0.0/dataset_info.json").touch()
    check(["train", "test"] if damage == "folder" else [])  # which of two versions, TFDS says


def test_missing_mnist_is_explained(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_OFFLINE", "1")
    with pytest.raises(data.DataError, match=r"t10k-labels-idx1-ubyte\.gz.*dataset=digits"):
        data.find("mnist", data_dir=str(tmp_path))
    (tmp_path / "train-images-idx3-ubyte.gz").touch()
    with pytest.raises(data.DataError, match=r"missing: train-labels-idx1-ubyte\.gz"):
        data.find("mnist", data_dir=str(tmp_path), manual_dir=str(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["train-images-idx3-ubyte.gz"]
