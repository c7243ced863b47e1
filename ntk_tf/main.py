"""`python -m ntk_tf.main`: one run, chosen by flags."""

import sys

from rich.console import Console

from ntk_tf import cli, runs, startup
from ntk_tf.experiments import widths
from ntk_tf.rules import SettingError


def main() -> int:
    """Parse the command line and carry out what it asks for.

    Returns:
        The exit code: 0, or 2 after bad input, which one line on standard error explains.
    """
    console = Console()
    try:
        command = cli.parse(sys.argv)
        if command.prepare_data:
            return _carry_out(command, console)
        if command.widths:
            return widths.run(command.config, command.options, command.widths, command.dry_run)
        runs.check_workdir(command.options.workdir, command.config.to_dict())
        keep = command.options.resume and not command.dry_run
        if keep and runs.is_finished(command.options.workdir):
            runs.describe(command.options.workdir, console.print)
            return 0
    except (SettingError, runs.RunDirectoryError) as error:
        return _refuse(error)
    return _carry_out(command, console)


def _carry_out(command: cli.Command, console: Console) -> int:
    """Run, now with TensorFlow."""
    startup.import_tensorflow(command.config.small)
    from ntk_tf import data, experiments
    from ntk_tf.experiments import estimate

    config, options = command.config, command.options
    try:
        place = data.find_for(config, options)
        if command.prepare_data:
            data.prepare_for(config, options)
            console.print(f"{config.dataset} is at hand", highlight=False)
        elif command.dry_run:
            estimate.describe(config, options, place, console)
        else:
            experiments.run(config, options, console)
            runs.describe(options.workdir, console.print)
    except (SettingError, data.DataError, runs.RunDirectoryError) as error:
        return _refuse(error)
    return 0


def _refuse(error: Exception) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
