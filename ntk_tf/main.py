"""`python -m ntk_tf.main`: one run, chosen by flags."""

import sys

from rich.console import Console

from ntk_tf import cli, runs, signals, startup
from ntk_tf.experiments import widths
from ntk_tf.rules import SettingError


def main() -> int:
    """Parse the command line and carry out what it asks for.

    Returns:
        The exit code: 0; 2 after bad input or what else keeps a run from going on, which one line
        on standard error explains; after a signal, that of `signals.Interrupted`.
    """
    startup.prepare_streams()
    signals.listen()
    try:
        return _main()
    except (SettingError, runs.RunDirectoryError) as error:
        return _refuse(error)
    except signals.Interrupted as stop:
        print(f"{stop}; the same command goes on where this one was", file=sys.stderr)
        return stop.exit_code


def _main() -> int:
    console = Console()
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
    except data.DataError as error:
        return _refuse(error)
    except Exception as error:
        if not estimate.is_out_of_memory(error):
            raise
        return _refuse(estimate.out_of_memory(config, options, error))
    return 0


def _refuse(error: Exception | str) -> int:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
