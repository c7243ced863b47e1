"""How large a run will be, from shapes alone."""

import dataclasses
import math
import re

import psutil
import tensorflow as tf
from rich.console import Console

from ntk_tf import models
from ntk_tf.choices import NATIVE_CHANNELS, NATIVE_SIZE
from ntk_tf.config import Config, Options
from ntk_tf.data import decode, pipeline

#: Training and test pictures together.
PICTURES = {"digits": 1797, "mnist": 70_000, "cifar10": 60_000, "imagenet_snakes": 13_500}
#: Mean size of the snakes' JPEG files, in bytes: that of all of ILSVRC 2012's training pictures,
#: 138 GiB for 1,281,167.
JPEG_BYTES = 115_000
#: Bytes of a float32.
_FLOAT = 4
#: What TensorFlow, its libraries and buffers take beside the model: measured, about 0.7 GiB.
_RUNTIME = 0.7 * 2**30


@dataclasses.dataclass(frozen=True)
class Estimate:
    """The size of a run.

    Attributes:
        parameters: of the network, that are trained.
        memory: bytes that training will need at its peak.
        available: bytes that the machine has left.
    """

    parameters: int
    memory: int
    available: int


def estimate(config: Config, cache_decoded: bool | None = None) -> Estimate:
    """Estimate a run's size without allocating its model.

    Args:
        config: the run's settings.
        cache_decoded: as in `Options`.

    Returns:
        The size of the run on this machine.
    """
    others = {"rank": _rank, "baseline": _baseline, "pretrained": _pretrained}
    memory = others.get(config.experiment, _training)
    parameters, needed = memory(config)
    total = needed + _pictures(config, cache_decoded) + _RUNTIME
    return Estimate(parameters, int(total), psutil.virtual_memory().available)


def _training(config: Config) -> tuple[int, float]:
    """Parameters, and bytes that they and the activations take in training.

    Parameter-sized buffers are w, velocity and gradient, for the linearization u besides, and one
    more for what matrix products and their gradients need at the largest layer; a trajectory has
    both models. Activations are kept once and their gradients once; the linearization keeps
    tangents too. Measured peaks, in GiB, beside what this gives with pictures and TensorFlow:

        LeNet x60, batch 32      2.7 (3.1)   linearized 3.9 (3.7)   trajectory 5.3 (5.6)
        AlexNet x2, batch 8      4.2 (4.2)   linearized 5.0 (5.1)   trajectory 7.4 (7.8)
        AlexNet x1, batch 128    2.5 (2.6)   linearized 3.0 (3.2)
    """
    parameters, activations = _network(config.arch, config.width, config.num_classes, config)
    buffers, copies = (5, 3) if config.linearized else (4, 2)
    if config.experiment == "trajectory":
        buffers, copies = 8, 5
    return parameters, _FLOAT * (buffers * parameters + copies * activations * config.batch_size)


def _rank(config: Config) -> tuple[int, float]:
    """Parameters, and bytes of these and of the Gram and a copy; the rest adapts to the memory."""
    parameters, _ = _network(config.arch, config.width, config.num_classes, config)
    rows = config.examples * config.num_classes
    return parameters, _FLOAT * parameters + 2 * 8 * rows**2


def _baseline(config: Config) -> tuple[int, float]:
    """Parameters of a logistic regression, and bytes of its inputs, twice while it is fitted."""
    features = math.prod(config.input_shape)
    examples = config.train_examples or PICTURES[config.dataset]
    return (features + 1) * config.num_classes, _FLOAT * 2 * features * examples


def _pretrained(config: Config) -> tuple[int, float]:
    """Parameters of torchvision's AlexNet, and bytes of them in the file's and Keras' layout."""
    parameters, activations = _network(config.arch, 1, 1000, config)
    size = pipeline.evaluation_batch_size(config.input_shape)
    return parameters, _FLOAT * (2 * parameters + activations * size)


def _network(arch: str, width: int, num_classes: int, config: Config) -> tuple[int, int]:
    """Numbers of trained parameters, and of all layers' outputs for one picture."""
    with models.shapes_only():
        model = models.build(arch, width, num_classes, config.input_shape, config.seed or 0)
        if config.train_biases is False:
            models.freeze_biases(model)
    activations = sum(math.prod(layer.output.shape[1:]) for layer in model.layers)
    return sum(math.prod(w.shape) for w in model.trainable_weights), activations


def _pictures(config: Config, cache_decoded: bool | None) -> int:
    """Bytes of the dataset in memory."""
    dataset = config.dataset
    if dataset in NATIVE_SIZE:
        pictures = PICTURES[dataset] * NATIVE_SIZE[dataset] ** 2 * NATIVE_CHANNELS[dataset]
        trains = config.experiment in ("train", "trajectory")
        examples = config.train_examples or PICTURES[dataset]
        shape, augment = config.input_shape, config.augment
        return pictures + (pipeline.kept_bytes(examples, shape, augment) if trains else 0)
    square = 3 * decode.square_side(config.image_size) ** 2
    kept = square < JPEG_BYTES if cache_decoded is None else cache_decoded
    return PICTURES[dataset] * (square if kept else JPEG_BYTES)


def describe(config: Config, options: Options, place: str, console: Console) -> None:
    """Print every resolved setting and the size of the run.

    Args:
        config: the run's settings.
        options: where it would be carried out.
        place: where the data would come from, as `data.find` says.
        console: where to print.
    """
    size = estimate(config, options.cache_decoded)
    lines = config.to_dict() | {
        "input": "x".join(map(str, config.input_shape)),
        "data": place,
        "workdir": options.workdir,
        "parameters": f"{size.parameters:,}",
        "memory": f"about {_gib(size.memory)}, {_gib(size.available)} available",
    }
    for name, value in lines.items():
        console.print(f"{name:20}{value}", highlight=False, soft_wrap=True)
    if size.memory > size.available:
        console.print(
            f"warning: this needs about {_gib(size.memory)} of memory and the machine has"
            f" {_gib(size.available)}; a smaller --batch_size or --width needs less",
            highlight=False,
            soft_wrap=True,
        )


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error, of Python, NumPy or TensorFlow, says that memory does not suffice.

    TensorFlow calls a full disk by the same name, and what CUDA's libraries meet by others.
    """
    if isinstance(error, MemoryError):
        return True
    text = str(error)
    if isinstance(error, tf.errors.ResourceExhaustedError):
        return "No space left" not in text
    names = ("OUT_OF_MEMORY", "out of memory", "CUDNN_STATUS_ALLOC_FAILED", "OOM when allocating")
    return isinstance(error, tf.errors.OpError) and any(name in text for name in names)


def out_of_memory(config: Config, options: Options, error: Exception) -> str:
    """What to say after an error that `is_out_of_memory`: what was needed, and what would help.

    Args:
        config: the run's settings.
        options: how it was carried out.
        error: the error.
    """
    size = estimate(config, options.cache_decoded)
    total = psutil.virtual_memory().total
    place = f"the machine has {_gib(total)}, {_gib(size.available)} of it free"
    gpus = tf.config.list_logical_devices("GPU")
    if gpus:
        peak = tf.config.experimental.get_memory_info(gpus[0].name)["peak"]
        place = f"{_gib(peak)} of the GPU's memory were in use; {place}"
    helps = [f"a smaller --batch_size than {config.batch_size}"] if config.batch_size else []
    if config.width:
        helps.append(f"a smaller --width than {config.width}")
    if config.experiment == "rank":
        helps += ["fewer --examples", "a smaller --memory_gib"]
    if config.precision == "float64":
        helps.append("--precision=float32")
    if config.dataset == "imagenet_snakes":
        helps.append("--nocache_decoded")
    asked = " ".join(re.sub(r"\{\{.*?\}\}", "", str(error)).split())[:100] or "MemoryError"
    return (
        f"out of memory: the run needs about {_gib(size.memory)} and {place} ({asked}); what helps:"
        f" {', '.join(helps) or 'a machine with more'}; with the same settings it goes on from its"
        " last checkpoint where there is more memory"
    )


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
