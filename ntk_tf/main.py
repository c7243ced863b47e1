"""`python -m ntk_tf.main`: one run, chosen by flags."""

import sys

from rich.console import Console

from ntk_tf import cli, runs
from ntk_tf.catalogue import architectures
from ntk_tf.data import DataError
from ntk_tf.experiments import EXPERIMENTS, place, size, trained_weights
from ntk_tf.process import memory, signals, slurm, startup
from ntk_tf.process.terminal import say
from ntk_tf.settings import SettingError
from ntk_tf.sweeps import widths


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
    except (SettingError, DataError, runs.RunDirectoryError, slurm.SlurmError) as error:
        return _refuse(error)
    except signals.Interrupted as stop:
        print(f"{stop}; the same command goes on where this one was", file=sys.stderr)
        return stop.exit_code


def _main() -> int:
    console = Console()
    command = cli.parse(sys.argv)
    config, options = command.config, command.options
    if command.prepare_data:
        return _carry_out(command, console)
    if command.widths:
        return widths.run(config, options, command.widths, command.dry_run)
    runs.check_workdir(options.workdir, config.to_dict(), config.added())
    if options.resume and not command.dry_run and runs.is_finished(options.workdir):
        say(console, "finished earlier; --noresume starts anew")
        _describe(command, console)
        return 0
    return _carry_out(command, console)


def _carry_out(command: cli.Command, console: Console) -> int:
    """Run or describe, with TensorFlow after all that can be refused without it.

    Raises:
        Interrupted: if a signal asks for it and the same command can go on.
    """
    config, options = command.config, command.options
    try:
        found = place.find(config, options)
        trained_weights.check(config)
        if command.dry_run:
            size.describe(config, options, found, console)
            return 0
        if command.prepare_data or not architectures.is_own(config.arch):
            size.estimate(config)  # refuses a network that does not take the data
        startup.import_tensorflow(config.small)
        if command.prepare_data:
            place.prepare(config, options)
            say(console, f"{config.dataset} is at hand")
        else:
            EXPERIMENTS[config.experiment].run(config, options, console)
            _describe(command, console)
    except signals.Interrupted as stop:
        if options.resume:
            raise
        # Queued again it would start anew each time, and never end.
        print(f"{stop}; without --noresume the same command goes on from here", file=sys.stderr)
        return 1 if stop.exit_code == signals.REQUEUE else stop.exit_code
    except Exception as error:
        if not memory.is_out_of_memory(error):
            raise
        return _refuse(size.out_of_memory(config, options, error))
    return 0


def _describe(command: cli.Command, console: Console) -> None:
    """Show a finished run's result and where it is."""
    workdir = command.options.workdir
    say(console, EXPERIMENTS[command.config.experiment].describe(workdir))
    say(console, f"run directory {workdir}")


def _refuse(error: Exception | str) -> int:
    print(f"error: {cli.in_flags(error)}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
