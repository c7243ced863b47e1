"""How far a run is: a bar on a terminal, a line now and then elsewhere."""

import math
import time

import keras
from rich.console import Console

from ntk_tf.process import terminal
from ntk_tf.training.loop import Plan

#: Least time between two lines at ends of epochs.
LINE_SECONDS = 10.0


class ShowProgress(keras.callbacks.Callback):
    """A progress bar with the time left; a line now and then where output is no terminal.

    Use as a context manager around training, so that the bar goes however that ends. On a narrow
    terminal the less important of the numbers beside the bar are left out.

    Args:
        title: names the run.
        plan: tells how far it goes.
        console: where to write.
        within_seconds: least time before a line that is in an epoch.
    """

    def __init__(
        self,
        title: str,
        plan: Plan,
        console: Console,
        within_seconds: float = 60.0,
    ):
        super().__init__()
        self.title = title
        self.plan = plan
        self.console = console
        self.within_seconds = within_seconds

    def __enter__(self) -> "ShowProgress":
        start, total = self.plan.start_step, self.plan.total_steps
        if 0 < start < total:
            terminal.say(self.console, f"going on after update {start:,} of {total:,}")
        self.progress = terminal.progress(self.console, seconds=math.inf)  # it prints its own
        self.task = self.progress.add_task(
            self.title, total=self.plan.total_steps, completed=self.plan.start_step
        )
        self.test = ""
        self.started = self.printed = time.monotonic()
        self.progress.start()
        return self

    def __exit__(self, *_) -> None:
        self.progress.stop()

    def on_train_batch_end(self, batch, logs=None):
        """Move the bar."""
        epoch = f"epoch {-(-batch // self.plan.steps_per_epoch)}/{self.plan.epochs}"
        train = f"train {logs['accuracy']:.1%}"
        self.parts = [(3, self.title), (5, epoch), (1, f"loss {logs['loss']:.4f}"), (2, train)]
        self.step = batch
        self._show()
        self._say(self.within_seconds)

    def on_epoch_end(self, epoch, logs=None):
        """Show the test accuracy."""
        if "test_accuracy" in logs:
            self.test = f"test {logs['test_accuracy']:.1%}"
        self._show()
        self._say(LINE_SECONDS)

    def _say(self, seconds: float) -> None:
        """Print a line, if that is the way here and the last one is so long ago."""
        now = time.monotonic()
        if not self.console.is_terminal and now - self.printed >= seconds:
            rate = (self.step - self.plan.start_step) / (now - self.started)
            left = (self.plan.total_steps - self.step) / rate
            text = "  ".join(filter(None, (*(text for _, text in self.parts), self.test)))
            terminal.say(self.console, f"{text}  {terminal.duration(left)} left")
            self.printed = now

    def _show(self) -> None:
        parts = [*self.parts, (4, self.test)]
        text = terminal.fit(parts, self.console.width - terminal.BESIDE)
        self.progress.update(self.task, completed=self.step, description=text)
