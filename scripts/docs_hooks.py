"""What `make docs` adds to the pages: formulas as MathML, tables and figures made from `results/`.

A line `<!-- results: FOLDER/FILE.md -->` in a page becomes that file of the report on
`results/FOLDER`, or on all of it for `report`; figures are at `figures/FOLDER/...`, and the whole
report's page at `report/`, beside the runs that it leads to. Nothing is loaded from other hosts.
"""

import collections
import contextlib
import html
import itertools
import json
import pathlib
import re
import shutil
import statistics
import tempfile
from unittest import mock

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

from ntk_tf import plots
from ntk_tf.reporting import collect, grouping, table1, tables, write

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
FOLDERS = (
    *("figure2", "figure3", "figure4", "figure5", "kernel_movement"),
    *("moment_of_linearization", "after_kernel", "infinite", "alphas"),
)
#: Those with runs of Table 1.
TRAINED = ("figure3", "figure4", "alphas", "table1")
#: Pictures that were drawn when what they show was still in the runs' folders.
PICTURES = (
    *("figure2/trajectories.png", "kernel_movement/trajectories.png"),
    *("infinite/cosine_mnist/widths.png", "infinite/cosine_cifar10/widths.png"),
)

reports = pathlib.Path()


def on_pre_build(config):
    """Write the reports."""
    global reports
    reports = pathlib.Path(tempfile.mkdtemp(prefix="ntk_tf_docs"))
    with mock.patch.object(plots, "FORMATS", ("svg",)):  # all that pages show of these
        for name in FOLDERS:
            write.write(RESULTS / name, reports / name)
    shutil.copytree(RESULTS, reports / "results")
    with contextlib.chdir(reports):  # no path of this machine is published
        write.write(pathlib.Path("results"), pathlib.Path("report"))
    trained = [r for name in TRAINED for r in collect.read(RESULTS / name).of("train")]
    (reports / "figure2" / "distances.md").write_text(_distances(RESULTS / "figure2"))
    (reports / "table1.md").write_text(table1.table(grouping.studies(trained)).markdown())


def on_files(files, config):
    """Add their figures, with the data behind them."""
    found = {
        f"figures/{path.relative_to(reports).as_posix()}": path
        for name in FOLDERS
        for path in sorted((reports / name).rglob("*"))
        if path.suffix in (".svg", ".csv")
    }
    found |= {f"figures/{name}": RESULTS / name for name in PICTURES}
    found["report/index.html"] = reports / "report" / "index.html"
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
    return _without_empty_columns(rest if title.startswith("**") else f"{title}\n\n{rest}")


def _without_empty_columns(markdown):
    """A table without the columns that have nothing in any row; what follows it stays."""
    lines = markdown.splitlines()
    table = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines if line.startswith("|")]
    columns = zip(*table, strict=True)
    kept = [any(cell.strip() != tables.EMPTY for cell in cells[2:]) for cells in columns]
    rows = ["|".join(["", *itertools.compress(row, kept), ""]) for row in table]
    return "\n".join([*rows, *lines[len(rows) :]])


def _distances(folder):
    """Mean relative distances of runs over seeds, a row a learning rate and update."""
    found = collections.defaultdict(list)
    for record in collect.read(folder).of("trajectory"):
        content = json.loads((record.path / "trajectory.json").read_text())
        for row in content["distances"]:
            key = record.config.learning_rate, row["step"], record.config.width
            found[key].append(row["relative_distance"])
    rates, steps, widths = (sorted(set(part)) for part in zip(*found, strict=True))
    rates.reverse()
    lines = [" | ".join(["| updates", *(f"width {width}" for width in widths), ""]).strip()]
    lines.append("| --- " + "| ---: " * len(widths) + "|")
    for rate in rates:
        for step in steps:
            cells = [found.get((rate, step, width)) for width in widths]
            if all(cells):
                name = str(step) if rate == rates[0] else f"{step}, at learning rate {rate:g}"
                means = [f"{statistics.fmean(cell):#.2g}" for cell in cells]
                lines.append("| " + " | ".join([name, *means]) + " |")
    return "\n".join(lines) + "\n"


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
    """Add what the report's page links to, and remove the reports."""
    for name in ("report", "results"):
        shutil.copytree(reports / name, f"{config.site_dir}/{name}", dirs_exist_ok=True)
    shutil.rmtree(reports)
