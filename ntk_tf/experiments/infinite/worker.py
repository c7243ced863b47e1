"""A process that computes some of the tiles; importing this imports no TensorFlow."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

from ntk_tf.experiments.infinite import Infinite
from ntk_tf.process import signals, startup
from ntk_tf.settings import Options


def work(
    config: Infinite, options: Options, numbers: Sequence[int], after: Callable[[], None]
) -> None:
    """Compute those of some tiles that are missing.

    Args:
        config: the run's settings.
        options: the run directory and memory.
        numbers: of the tiles, in `Work.tiles`.
        after: called every now and then.
    """
    startup.import_tensorflow(one_thread_an_operation=True)
    from ntk_tf.experiments.infinite import tiles
    from ntk_tf.experiments.inputs import Inputs

    found = tiles.Work(config, options, Inputs(config, options))
    missing = set(found.missing())
    tiles.compute(found, options, [i for i in numbers if i in missing], after)


def child(config: Infinite, options: Options, numbers: Sequence[int], parent: int) -> None:
    """Compute tiles; end when the process does that started this one, whose id is given.

    Signals to the whole process group are that process's business, which ends this one by SIGTERM.
    """
    signals.leave_to_parent()

    def after() -> None:
        if os.getppid() != parent:
            os._exit(1)

    work(config, options, numbers, after)


@dataclasses.dataclass(frozen=True)
class Job:
    """What a SLURM job does: some tiles. Pickled by submitit."""

    config: Infinite
    options: Options
    numbers: tuple[int, ...]

    def __call__(self) -> None:
        """Compute those that are missing."""
        work(self.config, self.options, self.numbers, lambda: None)

    def checkpoint(self) -> Any:
        """Called by submitit when the job is pre-empted or out of time: once more."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)
