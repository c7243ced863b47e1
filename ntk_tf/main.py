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
    try:
        config, options, dry_run = cli.parse(sys.argv)
        runs.check_workdir(options.workdir, config.to_dict())
    except (SettingError, runs.RunDirectoryError) as error:
        return _refuse(error)

    startup.import_tensorflow()
    from ntk_tf import data
    from ntk_tf.experiments import describe, train

    console = Console()
    try:
        place = data.find(config.dataset, options.data_dir, options.manual_dir)
        if dry_run:
            describe.dry_run(config, options, place, console)
        else:
            describe.result(train.run(config, options, console), options, console)
    except (data.DataError, runs.RunDirectoryError) as error:
        return _refuse(error)
    return 0


def _refuse(error: Exception) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
