"""Write the table in docs/flags.md from the declarations of the settings: `make format` does."""

import pathlib

from ntk_tf import cli
from ntk_tf.experiments.resolving import all_declarations
from ntk_tf.settings import Options
from ntk_tf.settings.setting import declarations

PAGE = pathlib.Path(__file__).resolve().parent.parent / "docs/flags.md"
BEGIN, END = "<!-- flags: written by scripts/flags_table.py -->\n", "<!-- end of flags -->\n"


def table() -> str:
    """Every setting and option of `ntk_tf.main`, a row each."""
    rows = ["| flag | meaning |", "| --- | --- |"]
    for name, declaration in (all_declarations() | declarations(Options)).items():
        switch = "[no]" if not declaration.rule.placeholder else ""
        text = cli.help_of(name, declaration).replace("|", r"\|")
        rows.append(f"| `--{switch}{name}` | {text} |")
    return "\n".join(rows) + "\n"


def with_table(page: str) -> str:
    """The page with the table as it should be."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
