"""README says what the code does."""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "scripts"))

import readme_table  # noqa: E402

from ntk_tf import cli  # noqa: E402

README = (ROOT / "README.md").read_text()


def test_table_of_flags_is_up_to_date():
    """`make format` writes it."""
    assert readme_table.with_table(README) == README


def test_commands_of_the_readme_parse(monkeypatch, tmp_path):
    """Every `python -m ntk_tf.main` and `.sweep` whose data is at hand; a bad flag is an error."""
    monkeypatch.chdir(ROOT)
    text = README.replace("\\\n", " ")
    found = re.findall(r"^ +python -m ntk_tf\.(main|sweep) (.+?)(?: +# .*)?$", text, re.MULTILINE)
    assert len(found) > 5
    for program, line in found:
        arguments = [part for part in line.split() if part not in ("#",)]
        if any(word in line for word in (".npz", "tfds:", "weights=", "=S", "=W", "IMAGENET")):
            continue
        {"main": cli.parse, "sweep": cli.parse_sweep}[program]([program, *arguments])
