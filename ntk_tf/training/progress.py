"""How far a run is: a bar on a terminal, a line now and then elsewhere."""

import time

import keras
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ntk_tf.training.loop import Plan


class ShowProgress(keras.callbacks.Callback):
    """A progress bar with the time left; a line now and then where output is no terminal.

    Use as a context manager around training, so that the bar goes however that ends.

    Args:
        title: names the run.
        plan: tells how far it goes.
        console: where to write.
        line_seconds: least time between two lines.
    """

    def __init__(self, title: str, plan: Plan, console: Console, line_seconds: float = 10.0):
        super().__init__()
        self.title = title
        self.plan = plan
        self.console = console
        self.line_seconds = line_seconds

    def __enter__(self) -> "ShowProgress":
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=self.console,
            disable=not self.console.is_terminal,
            transient=True,
        )
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
        epoch = -(-batch // self.plan.steps_per_epoch)
        self.text = (
            f"{self.title}  epoch {epoch}/{self.plan.epochs}"
            f"  loss {logs['loss']:.4f}  train {logs['accuracy']:.1%}"
        )
        self.progress.update(self.task, completed=batch, description=self.text + self.test)
        self.step = batch

    def on_epoch_end(self, epoch, logs=None):
        """Show the test accuracy."""
        if "test_accuracy" in logs:
            self.test = f"  test {logs['test_accuracy']:.1%}"
        self.progress.update(self.task, description=self.text + self.test)
        now = time.monotonic()
        if not self.console.is_terminal and now - self.printed >= self.line_seconds:
            rate = (self.step - self.plan.start_step) / (now - self.started)
            left = (self.plan.total_steps - self.step) / rate
            self.console.print(
                f"{self.text}{self.test}  {left:.0f} s left", highlight=False, soft_wrap=True
            )
            self.printed = now
