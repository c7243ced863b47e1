"""How large a run will be, from shapes alone."""

import dataclasses
import math
import re
from collections.abc import Sequence

from rich.console import Console

from ntk_tf.catalogue import datasets
from ntk_tf.data import counts
from ntk_tf.experiments import EXPERIMENTS, costs, pretraining
from ntk_tf.experiments.experiment import Time
from ntk_tf.process import devices, speed, startup
from ntk_tf.process.memory import free_memory, peak_memory
from ntk_tf.process.speed import Speed
from ntk_tf.process.terminal import say
from ntk_tf.settings import Config, Options

#: Mean size of the snakes' JPEG files, in bytes: that of all of ILSVRC 2012's training pictures,
#: 138 GiB for 1,281,167.
JPEG_BYTES = 115_000
#: What TensorFlow, its libraries and buffers take beside the model: measured, about 0.7 GiB.
_RUNTIME = 0.7 * 2**30
#: Settings that decide how much memory a run needs, the first two of those that it has.
_DECISIVE = ("preconditioner_examples", "batch_size", "width", "examples", "train_examples")
#: Nothing is measured on a GPU before TensorFlow is there: a cautious guess, a tenth of a recent
#: one's float32 peak.
_GPU = Speed(products=5e12, elements=2e10, cores=1)


@dataclasses.dataclass(frozen=True)
class Size:
    """The size of a run.

    Attributes:
        parameters: of the network, that are trained.
        memory: bytes that it will need at its peak.
        available: bytes that are left; see `memory.free_memory`.
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
    parameters, needed = EXPERIMENTS[config.experiment].memory(config)
    total = needed + _pictures(config, cache_decoded) + _RUNTIME
    return Size(parameters, int(total), int(free_memory() * 2**30))


def _pictures(config: Config, cache_decoded: bool | None) -> int:
    """Bytes of the dataset in memory: of arrays, and as much of the tensors made of them."""
    card = config.card
    if card.photographs:
        square = 3 * counts.square_side(config.image_size) ** 2
        kept = square < JPEG_BYTES if cache_decoded is None else cache_decoded
        kept = kept or datasets.is_own(card.name)
        return (card.train + card.test) * (2 * square if kept else JPEG_BYTES)
    pictures = (card.train + card.test) * math.prod(card.shape) * card.pixel_bytes
    if not EXPERIMENTS[config.experiment].keeps_inputs:
        return 2 * pictures
    examples = config.train_examples or card.train
    return 2 * (pictures + counts.kept_bytes(examples, config.input_shape, config.augment))


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
    if not all(costs.examples(config)):
        lines["memory"] += ", without the pictures: how many is known when they are prepared"
    gpus = devices.gpus()
    time = run_time(config, machine(gpus))
    if time:
        lines["time"] = f"about {time}, {basis(gpus)}"
    if EXPERIMENTS[config.experiment].more:
        startup.import_tensorflow(config.small)
        lines |= EXPERIMENTS[config.experiment].load().more(config, options)
    width = max(map(len, lines)) + 1
    for name, value in lines.items():
        say(console, f"{name:{width}}{value}")
    if size.memory > size.available:
        say(
            console,
            f"warning: this needs about {_gib(size.memory)} of memory and the machine has"
            f" {_gib(size.available)}; what helps: {_helps(config)}",
        )


def out_of_memory(config: Config, options: Options, error: Exception) -> str:
    """What to say after an error that `is_out_of_memory`: what was needed, and what would help.

    Args:
        config: the run's settings.
        options: how it was carried out.
        error: the error.
    """
    size = estimate(config, options.cache_decoded)
    place = f"{_gib(size.available)} of main memory are free"
    import tensorflow as tf

    if tf.config.list_logical_devices("GPU"):
        place = f"{_gib(peak_memory())} of the GPU's memory were in use; {place}"
    asked = " ".join(re.sub(r"\{\{.*?\}\}", "", str(error)).split())[:100] or "MemoryError"
    return (
        f"out of memory: the run needs about {_gib(size.memory)} and {place} ({asked}); what helps:"
        f" {_helps(config)}; with the same settings it goes on from its"
        " last checkpoint where there is more memory"
    )


def _helps(config: Config) -> str:
    """What makes a run need less memory, in words."""
    helps = [
        f"a smaller --{name} than {getattr(config, name)}"
        for name in [n for n in _DECISIVE if getattr(config, n, None)][:2]
        if getattr(config, name) > 1
    ]
    if config.experiment == "rank":
        helps.append("a --memory_gib for the kernel")
    if getattr(config, "outputs", None) == "full":
        helps.append("--outputs=trace")
    if getattr(config, "precision", None) == "float64":
        helps.append("--precision=float32")
    if config.card.photographs and not datasets.is_own(config.dataset):
        helps.append("--nocache_decoded")
    return ", ".join(helps) or "a machine with more"


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def machine(gpus: Sequence[str], jobs: int = 1) -> Speed:
    """How fast each of so many runs at once computes; measured, unless it has a GPU."""
    return _GPU if gpus else speed.measure(1 / jobs)


def basis(gpus: Sequence[str]) -> str:
    """What an estimate of time rests on."""
    return "by a guess of the GPU's speed" if gpus else "by this machine's speed right now"


def run_time(config: Config, machine: Speed) -> Time | None:
    """Estimate how long a run takes, training before it included; None where nobody can tell.

    Args:
        config: what is estimated.
        machine: how fast it computes.
    """
    time = EXPERIMENTS[config.experiment].time
    pictures, _ = costs.examples(config)
    if time is None or not pictures:
        return None
    found = time(config, machine)
    trained = getattr(config, "pretrain_steps", 0) and not found.of
    before = run_time(pretraining.settings(config, pictures), machine) if trained else None
    return (
        found
        if before is None
        else dataclasses.replace(found, seconds=found.seconds + before.seconds)
    )
