"""`python -m ntk_tf.report`: what the run directories hold, as tables."""

import sys

from rich.console import Console

from ntk_tf import cli, runs
from ntk_tf.config import SettingError
from ntk_tf.reporting import summary


def main() -> int:
    """Print the table of all finished runs.

    Returns:
        The exit code: 0, or 2 after bad input, which one line on standard error explains.
    """
    console = Console()
    try:
        runs_dir = cli.parse_report(sys.argv)
        console.print(summary.summary(summary.find_runs(runs_dir)))
    except (SettingError, runs.RunDirectoryError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    console.print(f"curves: tensorboard --logdir={runs_dir}", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
