"""How large a run will be, from shapes alone."""

import dataclasses

import numpy as np
import psutil
from rich.console import Console

from ntk_tf import models
from ntk_tf.config import NATIVE_CHANNELS, NATIVE_SIZE, Config, Options

#: Bytes of a float32.
_FLOAT = 4
#: What TensorFlow, its libraries and buffers take beside the model: measured, about 0.7 GiB.
_RUNTIME = 0.7 * 2**30


@dataclasses.dataclass(frozen=True)
class Estimate:
    """The size of a run.

    Attributes:
        parameters: of the network.
        memory: bytes that training will need at its peak.
        available: bytes that the machine has left.
    """

    parameters: int
    memory: int
    available: int


def estimate(config: Config) -> Estimate:
    """Estimate a run's size without allocating its model.

    Parameter-sized buffers are w, velocity, gradient and a temporary for the update, and for the
    linearization u besides. Activations are kept once and their gradients once; the
    linearization keeps tangents too.

    Returns:
        The size of the run on this machine.
    """
    with models.shapes_only():
        model = models.build(
            config.arch, config.width, config.num_classes, config.input_shape, config.seed
        )
    parameters = int(model.count_params())
    activations = sum(int(np.prod(layer.output.shape[1:])) for layer in model.layers)
    buffers, copies = (5, 3) if config.linearized else (4, 2)
    pictures = 70_000 * NATIVE_SIZE[config.dataset] ** 2 * NATIVE_CHANNELS[config.dataset]
    memory = (
        _FLOAT * (buffers * parameters + copies * activations * config.batch_size)
        + pictures
        + _RUNTIME
    )
    return Estimate(parameters, int(memory), psutil.virtual_memory().available)


def describe(config: Config, options: Options, place: str, console: Console) -> None:
    """Print every resolved setting and the size of the run.

    Args:
        config: the run's settings.
        options: where it would be carried out.
        place: where the data would come from, as `data.find` says.
        console: where to print.
    """
    size = estimate(config)
    lines = config.to_dict() | {
        "input": "x".join(map(str, config.input_shape)),
        "data": place,
        "workdir": options.workdir,
        "parameters": f"{size.parameters:,}",
        "memory": f"about {_gib(size.memory)}, {_gib(size.available)} available",
    }
    for name, value in lines.items():
        console.print(f"{name:16}{value}", highlight=False)
    if size.memory > size.available:
        console.print(
            f"warning: this needs about {_gib(size.memory)} of memory and the machine has"
            f" {_gib(size.available)}; a smaller --batch_size or --width needs less",
            highlight=False,
        )


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
