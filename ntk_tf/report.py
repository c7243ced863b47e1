"""`python -m ntk_tf.report`: what the run directories hold, as tables, figures and a page."""

import pathlib
import shutil
import sys

from rich.console import Console

from ntk_tf import cli, runs
from ntk_tf.process import startup
from ntk_tf.reporting import summary, write
from ntk_tf.settings import SettingError


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
        console.print(summary.summary(summary.find_runs(runs_dir)))
    except (SettingError, runs.RunDirectoryError) as error:
        print(f"error: {cli.in_flags(error)}", file=sys.stderr)
        return 2
    console.print(f"curves: {_tensorboard()} --logdir={runs_dir}", highlight=False, soft_wrap=True)
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
        ours = sum(row.get("test", row.get("standard")) is not None for row in table.rows)
        text = f"{table.title}: {ours} of {len(table.rows)} rows have runs of ours"
        console.print(text, highlight=False, soft_wrap=True)
    console.print(f"report in {output_dir / 'index.html'}", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
