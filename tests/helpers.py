"""What tests of several rooms share."""

from rich.console import Console

from ntk_tf.experiments import EXPERIMENTS


def carry_out(config, options, console=None):
    """Run an experiment in this process; the content of its result.json."""
    console = console or Console(quiet=True)
    return EXPERIMENTS[config.experiment].run(config, options, console)
