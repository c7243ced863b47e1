"""`python -m ntk_tf.sweep`: a grid of runs, chosen by flags."""

import sys

from rich.console import Console

from ntk_tf import cli, runs
from ntk_tf.data import DataError
from ntk_tf.process import slurm, startup
from ntk_tf.settings import SettingError
from ntk_tf.sweeps import launch


def main() -> int:
    """Parse the command line and carry out what it asks for.

    Returns:
        The exit code: 0, 1 if runs failed, 2 after bad input, which one line on standard error
        explains, or after a signal that of `signals.Interrupted`.
    """
    startup.prepare_streams()
    try:
        return launch.run(cli.parse_sweep(sys.argv), Console())
    except (SettingError, DataError, runs.RunDirectoryError, slurm.SlurmError) as error:
        print(f"error: {cli.in_flags(error)}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
