"""How large a run will be, from shapes alone."""

import dataclasses
import math
import re
from typing import Any

import psutil
import tensorflow as tf
from rich.console import Console

from ntk_tf.catalogue import datasets
from ntk_tf.data import decode, pipeline
from ntk_tf.experiments import EXPERIMENTS, network
from ntk_tf.models import size as sizes
from ntk_tf.process.terminal import say
from ntk_tf.settings import Config, Options

#: Mean size of the snakes' JPEG files, in bytes: that of all of ILSVRC 2012's training pictures,
#: 138 GiB for 1,281,167.
JPEG_BYTES = 115_000
#: Bytes of a float32.
FLOAT = 4
#: What TensorFlow, its libraries and buffers take beside the model: measured, about 0.7 GiB.
_RUNTIME = 0.7 * 2**30
#: Floating-point operations a second that training attains: measured with LeNet on a core of a
#: server's CPU; for a GPU a cautious guess, a tenth of a recent one's float32 peak.
SPEED = {"core": 1.5e10, "gpu": 5e12}
#: Seconds of an update that no operation accounts for, and of a process's start.
OVERHEAD = {"core": 5e-4, "gpu": 1e-3}
START = 12.0


@dataclasses.dataclass(frozen=True)
class Size:
    """The size of a run.

    Attributes:
        parameters: of the network, that are trained.
        memory: bytes that it will need at its peak.
        available: bytes that the machine has left.
    """

    parameters: int
    memory: int
    available: int


def estimate(config: Config, cache_decoded: bool | None = None) -> Size:
    """Estimate a run's size without allocating its model.

    Args:
        config: the run's settings.
        cache_decoded: as in `Options`.

    Returns:
        The size of the run on this machine.
    """
    parameters, needed = EXPERIMENTS[config.experiment].load().memory(config)
    total = needed + _pictures(config, cache_decoded) + _RUNTIME
    return Size(parameters, int(total), psutil.virtual_memory().available)


def training_memory(config: Any, buffers: int, copies: int) -> tuple[int, float]:
    """Parameters, and bytes that they and the activations take in training.

    Parameter-sized buffers are w, velocity and gradient, for the linearization u besides, and one
    more for what matrix products and their gradients need at the largest layer; a trajectory has
    both models. Activations are kept once and their gradients once; the linearization keeps
    tangents too. Measured peaks, in GiB, beside what this gives with pictures and TensorFlow:

        LeNet x60, batch 32      2.7 (3.1)   linearized 3.9 (3.7)   trajectory 5.3 (5.6)
        AlexNet x2, batch 8      4.2 (4.2)   linearized 5.0 (5.1)   trajectory 7.4 (7.8)
        AlexNet x1, batch 128    2.5 (2.6)   linearized 3.0 (3.2)

    Args:
        config: the run's settings.
        buffers: parameter-sized ones.
        copies: of the activations.
    """
    parameters, activations = of_network(config)
    number = 2 * FLOAT if config.precision == "float64" else FLOAT
    return parameters, number * (buffers * parameters + copies * activations * config.batch_size)


def of_network(config: Any) -> tuple[int, int]:
    """Numbers of trained parameters, and of all layers' outputs for one picture."""
    model = network.outline(config)
    return sizes.parameters(model), sizes.activations(model, config.input_shape)


def _pictures(config: Config, cache_decoded: bool | None) -> int:
    """Bytes of the dataset in memory."""
    card = config.card
    if card.photographs:
        square = 3 * decode.square_side(config.image_size) ** 2
        kept = square < JPEG_BYTES if cache_decoded is None else cache_decoded
        kept = kept or datasets.is_own(card.name)
        return (card.train + card.test) * (square if kept else JPEG_BYTES)
    pictures = (card.train + card.test) * math.prod(card.shape) * card.pixel_bytes
    if not EXPERIMENTS[config.experiment].keeps_inputs:
        return pictures
    examples = config.train_examples or card.train
    return pictures + pipeline.kept_bytes(examples, config.input_shape, config.augment)


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
        "classes": config.num_classes,
        "data": place,
        "workdir": options.workdir,
        "parameters": f"{size.parameters:,}",
        "memory": f"about {_gib(size.memory)}, {_gib(size.available)} available",
    }
    more = getattr(EXPERIMENTS[config.experiment].load(), "more", None)
    lines |= more(config, options) if more else {}
    for name, value in lines.items():
        say(console, f"{name:20}{value}")
    if size.memory > size.available:
        names = [f"--{name}" for name in _decisive(config)]
        say(
            console,
            f"warning: this needs about {_gib(size.memory)} of memory and the machine has"
            f" {_gib(size.available)}; a smaller {' or '.join(names) or 'network'} needs less",
        )


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
    helps = [f"a smaller --{name} than {getattr(config, name)}" for name in _decisive(config)]
    if getattr(config, "precision", None) == "float64":
        helps.append("--precision=float32")
    if config.card.photographs and not datasets.is_own(config.dataset):
        helps.append("--nocache_decoded")
    asked = " ".join(re.sub(r"\{\{.*?\}\}", "", str(error)).split())[:100] or "MemoryError"
    return (
        f"out of memory: the run needs about {_gib(size.memory)} and {place} ({asked}); what helps:"
        f" {', '.join(helps) or 'a machine with more'}; with the same settings it goes on from its"
        " last checkpoint where there is more memory"
    )


def _decisive(config: Config) -> list[str]:
    """The settings that decide how much memory a run needs."""
    names = ("batch_size", "width", "examples", "train_examples")
    return [name for name in names if hasattr(config, name)][:2]


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def run_seconds(config: Config, cores: float, gpu: bool) -> float | None:
    """Estimate the time of a training run from its number of operations.

    Args:
        config: what is estimated.
        cores: of the CPU, that it may use.
        gpu: whether it has a GPU.

    Returns:
        Seconds, or None for experiments that do not train one model for some epochs.
    """
    if not hasattr(config, "epochs"):
        return None
    per_epoch = pipeline.steps_per_epoch(
        config.train_examples or config.card.train, config.batch_size
    )
    updates = min(config.epochs * per_epoch, config.max_steps or math.inf)
    model = network.outline(config)
    flops = sizes.step_flops(model, config.linearized, config.input_shape)
    kind = "gpu" if gpu else "core"
    speed = SPEED[kind] * (1 if gpu else cores)
    return START + updates * (OVERHEAD[kind] + config.batch_size * flops / speed)
