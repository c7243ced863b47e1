"""What a run tells the person who started it."""

from typing import Any

from rich.console import Console

from ntk_tf.config import Config, Options
from ntk_tf.experiments.estimate import estimate


def dry_run(config: Config, options: Options, place: str, console: Console) -> None:
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


def result(content: dict[str, Any], options: Options, console: Console) -> None:
    """Print a finished run's result.

    Args:
        content: of result.json.
        options: where it was carried out.
        console: where to print.
    """
    if content["status"] == "diverged":
        summary = (
            f"diverged at update {content['diverged_at_step']}"
            f" (learning rate {content['learning_rate']})"
        )
    else:
        summary = (
            f"train accuracy {content['train_accuracy']:.2%}"
            f"  test accuracy {content['test_accuracy']:.2%}"
        )
    console.print(
        f"{summary}  ({content['steps']:,} updates, {content['seconds']:.0f} s)", highlight=False
    )
    console.print(f"run directory {options.workdir}", highlight=False, soft_wrap=True)


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
