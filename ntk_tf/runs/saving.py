"""Saving now and then, and at once when a signal asks the process to end."""

import time
from collections.abc import Callable

from ntk_tf.process import signals
from ntk_tf.runs.files import attempt


class SaveWhenDue:
    """Saves what `write` writes; a save that fails is done again when the next one is due.

    Args:
        write: saves the state after so many steps; may raise `WriteError`.
    """

    def __init__(self, write: Callable[[int], None]):
        self.write = write
        self.saved = time.monotonic()
        self.failed = False

    def after(self, step: int, seconds: float) -> None:
        """Save if the last save is so long ago, or if a signal has come; then obey it.

        Raises:
            Interrupted: if a signal has come.
        """
        if signals.pending() or time.monotonic() - self.saved > seconds:
            self.failed = not attempt(lambda: self.write(step))
            self.saved = time.monotonic()
        signals.obey()

    def complete(self, step: int) -> None:
        """Save, if that did not work the last time.

        Raises:
            WriteError: if it does not work now either.
        """
        if self.failed:
            self.write(step)
