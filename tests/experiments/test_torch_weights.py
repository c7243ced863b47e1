"""PyTorch's weights, against the outputs of PyTorch itself.

`fixtures/make_torch_networks.py` tells how the frozen networks were made.
"""

import pathlib

import numpy as np
import pytest
import safetensors.numpy

from ntk_tf import models
from ntk_tf.experiments.pretrained import torch_weights as weights

FIXTURE = pathlib.Path(__file__).parent.parent / "fixtures/torch_networks.npz"
NETWORKS = {
    "alexnet": ("alexnet", 1 / 32),
    "alexnet_small": ("alexnet", 1 / 64),
    "lenet": ("lenet", 1),
}


@pytest.fixture(scope="module")
def frozen():
    """By network: its state dictionary, inputs and outputs."""
    networks = {name: {} for name in NETWORKS}
    with np.load(FIXTURE) as file:
        for key in file.files:
            name, _, tensor = key.partition("/")
            networks[name][tensor] = file[key]
    return {
        name: (tensors, tensors.pop("inputs").astype(np.float32) / 64, tensors.pop("outputs"))
        for name, tensors in networks.items()
    }


def converted(name, path, shape):
    arch, width = NETWORKS[name]
    model = models.build(arch, width, 10, shape, seed=5)
    weights.assign(model, weights.kernels_and_biases(weights.read(path), path), path)
    return model


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_outputs_are_pytorchs(name, suffix, frozen, tmp_path):
    tensors, inputs, outputs = frozen[name]
    path = tmp_path / f"weights{suffix}"
    if suffix == ".npz":
        np.savez(path, **tensors)
    else:
        safetensors.numpy.save_file(tensors, path)
    model = converted(name, path, inputs.shape[1:])
    np.testing.assert_allclose(model(inputs), outputs, atol=1e-4)
    assert np.abs(outputs[0] - outputs[1]).max() > 0.1  # or the test would see little


def test_pth_of_pytorch(frozen, tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch, the extra `torch`, is not installed")
    tensors, inputs, outputs = frozen["lenet"]
    path = tmp_path / "weights.pth"
    torch.save({f"module.{k}": torch.tensor(v) for k, v in tensors.items()}, path)
    np.testing.assert_allclose(
        converted("lenet", path, inputs.shape[1:])(inputs), outputs, atol=1e-4
    )


def test_pth_executes_nothing(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch, the extra `torch`, is not installed")
    path = tmp_path / "weights.pth"
    torch.save({"model": pathlib.PurePosixPath("x")}, path)
    with pytest.raises(weights.WeightsError, match="weights.pth: cannot be read"):
        weights.read(path)


def test_pth_without_pytorch_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    path = tmp_path / "weights.pth"
    path.touch()
    with pytest.raises(weights.WeightsError, match=r"pip install 'ntk_tf\[torch\]'"):
        weights.read(path)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_unreadable_files_are_named(suffix, tmp_path):
    path = tmp_path / f"weights{suffix}"
    with pytest.raises(weights.WeightsError, match="there is no such file"):
        weights.read(path)
    for content in (b"", b"something else"):
        path.write_bytes(content)
        with pytest.raises(weights.WeightsError, match=f"weights{suffix}: cannot be read"):
            weights.read(path)


def test_other_networks_are_refused(frozen, tmp_path):
    tensors, inputs, _ = frozen["lenet"]
    path = tmp_path / "weights.npz"
    np.savez(path, **tensors)
    alexnet = models.build("alexnet", 1 / 64, 10, (95, 95, 3))
    wide = models.build("lenet", 2, 10, inputs.shape[1:])
    layers = weights.kernels_and_biases(weights.read(path), path)
    with pytest.raises(weights.WeightsError, match="has 5 layers with weights; alexnet has 8"):
        weights.assign(alexnet, layers, path)
    with pytest.raises(weights.WeightsError, match="conv1 of lenet has kernel and bias of shapes"):
        weights.assign(wide, layers, path)
    np.savez(path, **{"layer1.0.conv1.weight": np.zeros((1, 1, 3, 3))})
    with pytest.raises(
        weights.WeightsError, match="holds layer1.0.conv1; torchvision's AlexNet has features.0.w"
    ):
        weights.kernels_and_biases(weights.read(path), path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features.0.bias": None}, "lacks features.0.bias; torchvision's AlexNet has"),
        ({"features.0.running_mean": np.zeros(6)}, "holds features.0.running_mean; torchvision's"),
        ({"weight": np.zeros((2, 2))}, "holds tensors without a layer; torchvision's"),
        ({"features.x.weight": np.zeros((2, 2))}, "holds features.x; torchvision's"),
        ({"features.0.bias": np.full(6, np.nan)}, "features.0.bias holds numbers that are not fin"),
    ],
)
def test_what_is_missing_or_too_much_is_named(change, message, frozen, tmp_path):
    path = tmp_path / "weights.npz"
    tensors = {n: t for n, t in (frozen["lenet"][0] | change).items() if t is not None}
    np.savez(path, **tensors)
    with pytest.raises(weights.WeightsError, match=message) as raised:
        weights.kernels_and_biases(weights.read(path), path)
    assert "\n" not in str(raised.value)


def test_layouts_one_entry_at_a_time(rng):
    kernel = rng.standard_normal((5, 3, 2, 4))
    result = weights.to_keras(kernel)
    for o, i, h, w in np.ndindex(kernel.shape):
        assert result[h, w, i, o] == kernel[o, i, h, w]
    dense = rng.standard_normal((5, 24))
    result = weights.to_keras(dense, (2, 3, 4))
    for o, h, w, c in np.ndindex(5, 2, 3, 4):
        assert result[(h * 3 + w) * 4 + c, o] == dense[o, (c * 2 + h) * 3 + w]
    np.testing.assert_array_equal(weights.to_keras(dense), dense.T)
