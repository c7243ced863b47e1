"""`python -m ntk_tf.report`: what the run directories hold, as tables, figures and a page."""

import pathlib
import shlex
import shutil
import sys

from rich.console import Console

from ntk_tf import cli, runs
from ntk_tf.process import startup
from ntk_tf.process.terminal import say
from ntk_tf.reporting import collect, summary, write
from ntk_tf.settings import SettingError

#: Columns that only runs fill.
_OURS = (
    *("run", "test", "standard", "linearized"),
    *("converged_test", "linearized_test", "kernel_test"),
)


def main() -> int:
    """Print the table of all finished runs, or write the whole report.

    Returns:
        The exit code: 0, or 2 after bad input, which one line on standard error explains.
    """
    startup.prepare_streams()
    console = Console()
    try:
        runs_dir, output_dir = cli.parse_report(sys.argv)
        if output_dir:
            return _write(runs_dir, output_dir, console)
        summary.show(collect.read(runs_dir), console)
    except (SettingError, runs.RunDirectoryError) as error:
        print(f"error: {cli.in_flags(error)}", file=sys.stderr)
        return 2
    say(console, f"curves: {_tensorboard()} --logdir={shlex.quote(str(runs_dir))}")
    return 0


def _tensorboard() -> str:
    """How to call TensorBoard: by its path where the virtual environment is not activated."""
    if shutil.which("tensorboard"):
        return "tensorboard"
    path = pathlib.Path(sys.executable).with_name("tensorboard")
    here = pathlib.Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _write(runs_dir: pathlib.Path, output_dir: pathlib.Path, console: Console) -> int:
    for table in write.write(runs_dir, output_dir):
        ours = sum(any(row.get(key) is not None for key in _OURS) for row in table.rows)
        say(console, f"{table.title}: {ours} of {len(table.rows)} rows have runs of ours")
    say(console, f"report in {output_dir / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
