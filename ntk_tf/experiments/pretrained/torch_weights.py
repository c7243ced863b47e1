"""Weights of torchvision's AlexNet and of other PyTorch networks, in Keras' layouts.

PyTorch stores a convolution's kernel as `[out, in, height, width]` and a dense kernel as
`[out, in]`; Keras as `[height, width, in, out]` and `[in, out]`. Where pictures are flattened,
PyTorch's order is channel, row, column and Keras' row, column, channel.
"""

import pathlib

import keras
import numpy as np

from ntk_tf import runs


class WeightsError(Exception):
    """A file of weights that cannot be used; the message is one line and names the file."""


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Read named tensors, executing nothing that the file contains.

    Args:
        path: a state dictionary saved by `torch.save` (`.pth`, needs PyTorch), a `.safetensors` or
            an `.npz` file.

    Returns:
        The tensors by name.

    Raises:
        WeightsError: if the file cannot be read, holds something else or numbers that are not
            finite, or PyTorch is needed and missing.
    """
    readers = {".pth": _read_torch, ".safetensors": _read_safetensors, ".npz": _read_numpy}
    if path.suffix not in readers:
        raise WeightsError(f"weights={path}: must end in {', '.join(readers)}")
    if not path.is_file():
        raise WeightsError(f"weights={path}: there is no such file")
    tensors = readers[path.suffix](path)
    if not tensors or not all(_is_tensor(value) for value in tensors.values()):
        raise WeightsError(f"weights={path}: holds something else than named tensors of numbers")
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise WeightsError(f"weights={path}: {name} holds numbers that are not finite")
    return tensors


def _is_tensor(value: object) -> bool:
    return isinstance(value, np.ndarray) and np.issubdtype(value.dtype, np.floating)


def _read_torch(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError as error:
        raise WeightsError(
            f"weights={path}: a .pth file needs PyTorch: pip install 'ntk_tf[torch]', or convert"
            " it to .safetensors or .npz where PyTorch is installed"
        ) from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return {name: tensor.numpy() for name, tensor in state.items()}
    except Exception as error:  # torch.load documents none of the many that it raises
        raise _unreadable(path, error) from error


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    import safetensors.numpy

    try:
        return safetensors.numpy.load_file(path)
    except Exception as error:  # also KeyError, for a type that NumPy lacks
        raise _unreadable(path, error) from error


def _read_numpy(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        return runs.read_arrays(path)
    except runs.RunDirectoryError as error:
        raise WeightsError(f"weights={error}") from error


def _unreadable(path: pathlib.Path, error: Exception) -> WeightsError:
    reason = " ".join(str(error).split())[:200]
    return WeightsError(f"weights={path}: cannot be read ({type(error).__name__}: {reason})")


def kernels_and_biases(
    tensors: dict[str, np.ndarray], path: pathlib.Path
) -> list[tuple[np.ndarray, np.ndarray]]:
    """PyTorch's layers in the order of the network, as pairs of kernel and bias.

    Args:
        tensors: a state dictionary with names such as `features.0.weight`, whose numbers count
            the modules; a `module.` in front, as of parallel training, is ignored.
        path: where they come from, for the error message.

    Returns:
        The pairs, in PyTorch's layouts.

    Raises:
        WeightsError: if a weight has no bias, or the names are others.
    """
    expected = (
        "torchvision's AlexNet has features.0.weight, features.0.bias, ..., classifier.6.bias"
    )
    layers: dict[str, dict[str, np.ndarray]] = {}
    for name, value in tensors.items():
        layer, _, kind = name.removeprefix("module.").rpartition(".")
        layers.setdefault(layer, {})[kind] = value
    parts = ("features", "classifier")
    try:
        order = sorted(layers, key=lambda name: _position(name, parts))
        for name in order:
            for kind in layers[name].keys() ^ {"weight", "bias"}:
                has = "holds" if kind in layers[name] else "lacks"
                raise WeightsError(f"weights={path}: {has} {name}.{kind}; {expected}")
        pairs = [(layers[name]["weight"], layers[name]["bias"]) for name in order]
        if any(kernel.ndim not in (2, 4) or bias.ndim != 1 for kernel, bias in pairs):
            raise WeightsError(
                f"weights={path}: kernels must have 2 or 4 dimensions and biases one"
            )
        return pairs
    except ValueError as error:
        raise WeightsError(f"weights={path}: holds {error}; {expected}") from error


def _position(layer: str, parts: tuple[str, ...]) -> tuple[int, int]:
    """Part and number of a layer.

    Raises:
        ValueError: with its name, if it has another.
    """
    part, _, number = layer.partition(".")
    if part not in parts or not number.isdecimal():
        raise ValueError(layer or "tensors without a layer")
    return parts.index(part), int(number)


def assign(
    model: keras.Model, layers: list[tuple[np.ndarray, np.ndarray]], path: pathlib.Path
) -> None:
    """Give a model the weights of the same network in PyTorch.

    Args:
        model: a chain of layers, of which the convolutions and dense layers get weights.
        layers: kernel and bias of each, in the model's order and PyTorch's layouts.
        path: where they come from, for the error message.

    Raises:
        WeightsError: if number or shapes of the layers differ.
    """
    places = [layer for layer in model.layers if layer.weights]
    if len(places) != len(layers):
        raise WeightsError(
            f"weights={path}: has {len(layers)} layers with weights; {model.name} has {len(places)}"
        )
    flattened = None
    for before, layer in zip(model.layers, model.layers[1:], strict=False):
        if isinstance(before, keras.layers.Flatten):
            flattened = layer, before.input.shape[1:]
    for place, (kernel, bias) in zip(places, layers, strict=True):
        shape = flattened[1] if flattened and place is flattened[0] else None
        converted = to_keras(kernel, shape)
        expected = tuple(place.kernel.shape), tuple(place.bias.shape)
        if (converted.shape, bias.shape) != expected:
            raise WeightsError(
                f"weights={path}: {place.name} of {model.name} has kernel and bias of shapes"
                f" {expected[0]} and {expected[1]}, the file {converted.shape} and {bias.shape}"
            )
        place.set_weights([converted, bias])


def to_keras(kernel: np.ndarray, flattened: tuple[int, int, int] | None = None) -> np.ndarray:
    """Bring a kernel from PyTorch's layout to Keras'.

    Args:
        kernel: `[o, i, h, w]` of a convolution, or `[o, i]` of a dense layer.
        flattened: (h, w, c) of the pictures that a dense layer's inputs were before they were
            flattened.

    Returns:
        `[h, w, i, o]`, or `[i, o]` with the inputs in Keras' order.
    """
    if kernel.ndim == 4:
        return kernel.transpose(2, 3, 1, 0)
    if flattened and kernel.ndim == 2 and kernel.shape[1] == np.prod(flattened):
        height, width, channels = flattened
        kernel = kernel.reshape(-1, channels, height, width).transpose(0, 2, 3, 1)
        kernel = kernel.reshape(len(kernel), -1)
    return kernel.T
