"""What `make docs` adds to the pages: formulas as MathML, tables and figures made from `results/`.

A line `<!-- results: FOLDER/FILE.md -->` in a page becomes that file of the report on
`results/FOLDER`; figures are at `figures/FOLDER/...`. Nothing is loaded from other hosts.
"""

import html
import pathlib
import re
import shutil
import tempfile

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

from ntk_tf.reporting import collect, grouping, studies, write

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
FOLDERS = ("figure2", "figure3", "figure4", "figure5", "kernel_movement")
#: Pictures that were drawn when the runs' trajectories were still there.
PICTURES = ("figure2/trajectories.png", "kernel_movement/trajectories.png")

reports = pathlib.Path()


def on_pre_build(config):
    """Write the reports."""
    global reports
    reports = pathlib.Path(tempfile.mkdtemp(prefix="ntk_tf_docs"))
    for name in FOLDERS:
        write.write(RESULTS / name, reports / name)
    trained = [
        r for name in ("figure3", "figure4") for r in collect.read(RESULTS / name).of("train")
    ]
    (reports / "table1.md").write_text(studies.table1(grouping.studies(trained)).markdown())


def on_files(files, config):
    """Add their figures, with the data behind them."""
    found = {
        f"figures/{path.relative_to(reports).as_posix()}": path
        for path in sorted(reports.rglob("*"))
        if path.suffix in (".svg", ".csv")
    }
    found |= {f"figures/{name}": RESULTS / name for name in PICTURES}
    for name, path in found.items():
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Put the tables in."""
    return re.sub(r"^<!-- results: (\S+) -->$", _included, markdown, flags=re.MULTILINE)


def _included(found):
    path = reports / found[1]
    if not path.is_file():
        raise PluginError(f"{found[1]}: the reports on results/ have no such file")
    title, _, rest = path.read_text().partition("\n\n")
    return rest if title.startswith("**") else f"{title}\n\n{rest}"


def on_page_content(content, page, config, files):
    """Turn formulas into MathML, which browsers show without a program."""
    return re.sub(
        r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>',
        _mathml,
        content,
        flags=re.DOTALL,
    )


def _mathml(found):
    display = "inline" if found[2] == "(" else "block"
    text = convert(html.unescape(found[3]).strip(), display=display)
    return f'<{found[1]} class="arithmatex">{text}</{found[1]}>'


def on_post_build(config):
    """Remove the reports."""
    shutil.rmtree(reports)
