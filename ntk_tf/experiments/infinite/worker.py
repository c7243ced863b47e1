"""A process that computes some of the tiles; importing this imports no TensorFlow."""

import os
from collections.abc import Sequence

from ntk_tf.experiments.infinite import Infinite
from ntk_tf.process import startup
from ntk_tf.settings import Options


def work(config: Infinite, options: Options, numbers: Sequence[int], parent: int) -> None:
    """Compute tiles; end when the process does that started this one.

    Args:
        config: the run's settings.
        options: the run directory and memory.
        numbers: of the tiles, in `Work.tiles`.
        parent: id of the process.
    """
    startup.import_tensorflow(one_thread_an_operation=True)
    from ntk_tf.experiments.infinite import tiles
    from ntk_tf.experiments.inputs import Inputs

    found = tiles.Work(config, options, Inputs(config, options))

    def after() -> None:
        if os.getppid() != parent:
            os._exit(1)

    tiles.compute(found, options, [found.tiles[i] for i in numbers], after)
