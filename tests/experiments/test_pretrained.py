"""A network trained on all of ImageNet, stood in for by a narrow random one."""

import json

import numpy as np
import pytest
import snake_files
from helpers import carry_out

from ntk_tf import cli
from ntk_tf.catalogue.datasets import SNAKE_SYNSETS
from ntk_tf.data import DataError, counts
from ntk_tf.experiments.pretrained import run as pretrained
from ntk_tf.experiments.resolving import resolve
from ntk_tf.settings import Options, SettingError

TWO = SNAKE_SYNSETS[1:3]


def state(rng, outputs=1000, width=1 / 32):
    """torchvision's names and PyTorch's layouts."""
    c = [int(n * width) for n in (64, 192, 384, 256, 256, 4096, 4096)]
    shapes = {
        "features.0": (c[0], 3, 11, 11),
        "features.3": (c[1], c[0], 5, 5),
        "features.6": (c[2], c[1], 3, 3),
        "features.8": (c[3], c[2], 3, 3),
        "features.10": (c[4], c[3], 3, 3),
        "classifier.1": (c[5], 36 * c[4]),
        "classifier.4": (c[6], c[5]),
        "classifier.6": (outputs, c[6]),
    }
    tensors = {}
    for name, shape in shapes.items():
        scale = (2 / np.prod(shape[1:])) ** 0.5
        tensors[f"{name}.weight"] = (scale * rng.standard_normal(shape)).astype(np.float32)
        tensors[f"{name}.bias"] = np.zeros(shape[0], np.float32)
    return tensors


@pytest.fixture
def run_on(tmp_path, rng):
    """Evaluate a file of weights on pictures of two classes."""
    folder = snake_files.write_folders(tmp_path / "files", snake_files.make(rng, TWO, 1, 3))

    def run(path):
        settings = resolve(
            experiment="pretrained", weights=str(path), snake_synsets=",".join(TWO), image_size=95
        )
        options = Options(tmp_path / "run", str(tmp_path / "tfds"), str(folder))
        return carry_out(settings, options)

    return run


def test_end_to_end(run_on, tmp_path, rng):
    path = tmp_path / "random.npz"
    tensors = state(rng)
    # Of all the outputs, that of the second class is the largest, whatever the picture.
    tensors["classifier.6.bias"][52 + SNAKE_SYNSETS.index(TWO[1])] = 1e4
    np.savez(path, **tensors)
    result = run_on(path)
    assert (result["test_accuracy"], result["test_accuracy_among_snakes"]) == (0.5, 0.5)
    assert result["test_examples"] == 6
    assert result["parameters"] == sum(value.size for value in tensors.values())
    assert json.loads((tmp_path / "run/result.json").read_text()) == result
    written = json.loads((tmp_path / "run/config.json").read_text())
    assert written["classes"] == list(TWO)
    assert written["snake_synsets"] == ",".join(TWO)


def test_outputs_beyond_all_numbers_are_refused(run_on, tmp_path, rng):
    path = tmp_path / "large.npz"
    np.savez(path, **{name: 1e30 * tensor for name, tensor in state(rng).items()})
    with pytest.raises(DataError, match="large.npz: the network's outputs are not all finite"):
        run_on(path)
    assert not (tmp_path / "run/result.json").exists()


def test_accuracies(rng):
    outputs = rng.standard_normal((4, 1000))
    synsets = SNAKE_SYNSETS[2], SNAKE_SYNSETS[16]
    labels = np.array([0, 0, 1, 1])
    outputs[0, 54] = 9  # right
    outputs[1, 54], outputs[1, 7] = 8, 9  # right among the snakes only
    outputs[2, 68], outputs[2, 53] = 8, 9  # likewise: the snake above it is not chosen
    outputs[3, 54] = 9  # wrong
    assert pretrained.accuracies(outputs, labels, synsets) == (0.25, 0.75)


def test_another_number_of_outputs_is_refused(run_on, tmp_path, rng):
    path = tmp_path / "ten.npz"
    np.savez(path, **state(rng, outputs=10))
    with pytest.raises(DataError, match="ten.npz: the network has 10 outputs; .* has 1,000"):
        run_on(path)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--experiment=pretrained: needs --weights=a file that ends in .pth"),
        (["--weights=a.h5"], "--weights=a.h5: must be a file that ends in .pth, .safetensors"),
        (["--weights=a.pth", "--dataset=mnist"], "--dataset=mnist: must be one of imagenet_snakes"),
        (["--weights=a.pth", "--arch=lenet"], "--arch=lenet: must be one of alexnet"),
    ],
)
def test_bad_flags(flags, message):
    with pytest.raises(SettingError) as error:
        cli.parse(["main", "--experiment=pretrained", *flags])
    assert str(error.value).startswith(message)


def test_input_is_torchvisions():
    settings = resolve(experiment="pretrained", weights="a.pth")
    assert settings.input_shape == (224, 224, 3)
    assert counts.square_side(settings.image_size) == 256
