"""`--dry_run` and `--emit_commands` of a sweep: what would run, and how large it is."""

import importlib
import math
import shlex
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from ntk_tf import runs
from ntk_tf.sweeps import devices
from ntk_tf.sweeps.display import duration
from ntk_tf.sweeps.grid import Run, Sweep

#: Training pictures of each dataset.
PICTURES = {"digits": 1437, "mnist": 60_000, "cifar10": 50_000, "imagenet_snakes": 13_000}
#: Floating-point operations a second that training attains: measured with LeNet on a core of a
#: server's CPU; for a GPU a cautious guess, a tenth of a recent one's float32 peak.
SPEED = {"core": 1.5e10, "gpu": 5e12}
#: Seconds of an update that no operation accounts for, and of a process's start.
OVERHEAD = {"core": 5e-4, "gpu": 1e-3}
START = 12.0


def commands(runs: Sequence[Run]) -> list[str]:
    """The runs as lines for a shell, started with the `python` on the path."""
    return [shlex.join(["python", *run.arguments]) for run in runs]


def describe(sweep: Sweep, jobs: int, gpus: Sequence[str], console: Console) -> None:
    """List every run with its parameters, memory and estimated time; imports TensorFlow.

    Args:
        sweep: the sweep.
        jobs: how many runs at once.
        gpus: what they may use.
        console: where to print.
    """
    importlib.import_module("ntk_tf.startup").import_tensorflow()
    estimate = importlib.import_module("ntk_tf.experiments.estimate").estimate
    table = Table("run", "parameters", "memory", "time", "", box=None, pad_edge=False)
    table.columns[0].overflow = "fold"
    for column in table.columns[1:4]:
        column.justify = "right"
        column.no_wrap = True
    total = memory = 0.0
    for run in sweep.runs:
        size = estimate(run.config, run.options.cache_decoded)
        finished = runs.is_finished(run.options.workdir)
        seconds = run_seconds(run, devices.cores() / jobs, bool(gpus))
        total += 0 if finished or seconds is None else seconds
        memory = max(memory, size.memory)
        table.add_row(
            run.name,
            f"{size.parameters:,}",
            f"{size.memory / 2**30:.1f} GiB",
            "?" if seconds is None else duration(seconds),
            "finished" if finished else "",
        )
    number, unit = (len(gpus), "GPU") if gpus else (devices.cores(), "core")
    place = f"{number} {unit}{'' if number == 1 else 's'}"
    console.print(table)
    console.print(
        f"{len(sweep.runs)} runs under {sweep.runs_dir}, {jobs} at once on {place}; about"
        f" {duration(total / jobs)} in all, by a rough count of operations",
        highlight=False,
        soft_wrap=True,
    )
    _warn(jobs * memory, size.available, console)


def _warn(needed: float, available: float, console: Console) -> None:
    if needed > available:
        console.print(
            f"warning: the largest runs together need about {needed / 2**30:.1f} GiB of memory and"
            f" the machine has {available / 2**30:.1f} GiB; fewer --jobs need less",
            highlight=False,
            soft_wrap=True,
        )


def run_seconds(run: Run, cores: float, gpu: bool) -> float | None:
    """Estimate the time of a training run from its number of operations.

    A forward pass takes two operations a weight and place where it is applied; a step of the
    network costs three passes, one of the linearization five.

    Args:
        run: what is estimated.
        cores: of the CPU, that it may use.
        gpu: whether it has a GPU.

    Returns:
        Seconds, or None for experiments that do not train one model.
    """
    config = run.config
    if config.experiment != "train":
        return None
    pictures = config.train_examples or PICTURES[config.dataset]
    per_epoch = -(-pictures // config.batch_size)
    updates = min(config.epochs * per_epoch, config.max_steps or math.inf)
    passes = 5 if config.linearized else 3
    operations = passes * config.batch_size * forward_operations(config)
    kind = "gpu" if gpu else "core"
    speed = SPEED[kind] * (1 if gpu else cores)
    return START + updates * (OVERHEAD[kind] + operations / speed)


def forward_operations(config) -> int:
    """Floating-point operations of the network's forward pass on one picture, from its layers."""
    models = importlib.import_module("ntk_tf.models")
    with models.shapes_only():
        model = models.build(
            config.arch, config.width, config.num_classes, config.input_shape, config.seed or 0
        )
    total = 0
    for layer in model.layers:
        kernels = [weight for weight in layer.weights if len(weight.shape) > 1]
        places = math.prod(layer.output.shape[1:-1])
        total += sum(2 * math.prod(kernel.shape) * places for kernel in kernels)
    return total
