"""CIFAR-10's constants and the errors of files that are not the original ones."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from ntk_tf import data
from ntk_tf.data import cifar10
from ntk_tf.experiments.resolving import resolve


def test_mean_and_std_are_those_of_the_training_pictures(cifar10_jpeg):
    pixels = []
    with tarfile.open(cifar10_jpeg) as archive:
        for i, member in enumerate(archive):
            if member.isfile() and member.name.startswith("train/") and i % 20 == 0:
                file = io.BytesIO(archive.extractfile(member).read())
                pixels.append(np.asarray(Image.open(file).convert("RGB")).reshape(-1, 3))
    pixels = np.concatenate(pixels) / 255
    np.testing.assert_allclose(pixels.mean(0), cifar10.MEAN, atol=0.005)
    np.testing.assert_allclose(pixels.std(0), cifar10.STD, atol=0.005)


def test_another_archive_is_named_before_anything_is_written(tmp_path):
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(b"something else")
    with pytest.raises(data.DataError, match="cifar-10-binary.tar.gz: is damaged .* c4a38c50"):
        data.load("cifar10", str(tmp_path / "tfds"), str(tmp_path))
    assert not (tmp_path / "tfds").exists()


def test_a_missing_archive_is_named(tmp_path):
    with pytest.raises(data.DataError, match="missing: cifar-10-binary.tar.gz"):
        data.find("cifar10", str(tmp_path / "tfds"), str(tmp_path))


def test_paper_settings():
    config = resolve(arch="lenet", dataset="cifar10")
    assert config.input_shape == (32, 32, 3)
    assert (config.learning_rate, config.weight_decay) == (0.1, 5e-5)
    rates = [config.learning_rate_in(epoch) for epoch in (0, 29, 30, 60, 99)]
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.01, 0.001, 0.0001])
    assert resolve(arch="alexnet", dataset="cifar10").input_shape == (224, 224, 3)
    assert resolve(arch="lenet", dataset="imagenet_snakes").input_shape == (32, 32, 3)
    assert resolve(arch="alexnet").dataset == "imagenet_snakes"
