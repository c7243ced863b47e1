"""`python -m ntk_tf.main`: one run, chosen by flags."""

import sys

from rich.console import Console

from ntk_tf import cli, runs, startup
from ntk_tf.config import SettingError


def main() -> int:
    """Parse the command line and carry out what it asks for.

    Returns:
        The exit code: 0, or 2 after bad input, which one line on standard error explains.
    """
    console = Console()
    try:
        config, options, dry_run = cli.parse(sys.argv)
        runs.check_workdir(options.workdir, config.to_dict())
        if options.resume and not dry_run and runs.is_finished(options.workdir):
            runs.describe(options.workdir, console.print)
            return 0
    except (SettingError, runs.RunDirectoryError) as error:
        return _refuse(error)

    startup.import_tensorflow()
    from ntk_tf import data, experiments
    from ntk_tf.experiments import estimate

    try:
        place = data.find_for(config, options)
        if dry_run:
            estimate.describe(config, options, place, console)
        else:
            experiments.run(config, options, console)
            runs.describe(options.workdir, console.print)
    except (data.DataError, runs.RunDirectoryError) as error:
        return _refuse(error)
    return 0


def _refuse(error: Exception) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
