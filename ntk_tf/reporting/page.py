"""One self-contained HTML page: figures, tables, and what is behind each number."""

import base64
import dataclasses
import html
import json
import os
import pathlib
import urllib.parse
from collections.abc import Sequence

from ntk_tf import runs
from ntk_tf.reporting.collect import Record, Setting, Study
from ntk_tf.reporting.studies import anchor
from ntk_tf.reporting.tables import Table

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; margin: 2rem auto; max-width: 75rem;
       padding: 0 1.5rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; }
img { max-width: min(100%, 46rem); display: block; margin: 1rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.9rem; }
th { text-align: left; border-bottom: 2px solid #444; vertical-align: bottom; }
th, td { padding: 0.2rem 0.7rem; } td { border-bottom: 1px solid #ddd; white-space: nowrap; }
td.mean, td.percent, td.difference, td.value { text-align: right; }
td.text { white-space: normal; }
td.empty { color: #aaa; text-align: right; }
td.percent { color: #666; }
tr.chosen td { font-weight: 600; } tr.diverged td { background: #fdf0e3; }
.note { color: #666; font-size: 0.85rem; max-width: 60rem; }
details { margin: 0.6rem 0; } summary { cursor: pointer; color: #0645ad; }
pre { background: #f6f6f6; padding: 0.6rem; overflow-x: auto; font-size: 0.8rem; }
li:target { background: #fff7c2; }
"""
SCRIPT = """
function show() {
  const name = decodeURIComponent(location.hash.slice(1));
  const place = name && document.getElementById(name);
  if (!place) return;
  for (let e = place; e; e = e.parentElement) if (e.tagName === 'DETAILS') e.open = true;
  place.scrollIntoView();
}
addEventListener('hashchange', show); show();
"""


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        title: its heading.
        table: what it says.
        picture: a PNG file, or None.
        note: below the heading.
        all_settings: what was run, or None.
        study: the runs behind it, or None.
        all_runs: each of them, or None.
    """

    title: str
    table: Table
    picture: pathlib.Path | None = None
    note: str = ""
    all_settings: Table | None = None
    study: Study | None = None
    all_runs: Table | None = None


def write(
    path: pathlib.Path,
    runs_dir: pathlib.Path,
    sections: Sequence[Section],
    unfinished: Sequence[pathlib.Path],
) -> None:
    """Write the page.

    Args:
        path: of the HTML file.
        runs_dir: where the runs are.
        sections: from top to bottom.
        unfinished: run directories without a result.
    """
    body = "".join(_section(section, path.parent) for section in sections)
    waiting = ""
    if unfinished:
        names = "".join(f"<li>{html.escape(place.name)}</li>" for place in unfinished)
        summary = f"<summary>{len(unfinished)} unfinished runs</summary>"
        waiting = f"<details>{summary}<ul>{names}</ul></details>"
    text = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        "<title>ntk_tf: networks and their linearizations</title>"
        f"<style>{STYLE}</style></head><body>"
        "<h1>Networks and their linearizations at initialization</h1>"
        f"<p>Runs in <code>{html.escape(str(runs_dir))}</code>, beside the numbers of Samarin, Roth"
        " and Belius (2020), <i>On the Empirical Neural Tangent Kernel of Standard Finite-Width"
        " Convolutional Neural Network Architectures</i>. A model's name leads to the runs behind"
        " its numbers, their settings and versions.</p>"
        f"{waiting}{body}<script>{SCRIPT}</script></body></html>\n"
    )
    with runs.atomic_write(path) as file:
        file.write(text)


def _section(section: Section, folder: pathlib.Path) -> str:
    parts = [f"<h2>{html.escape(section.title)}</h2>"]
    if section.note:
        parts.append(f"<p>Settings other than the paper's: {html.escape(section.note)}.</p>")
    if section.picture:
        data = base64.b64encode(section.picture.read_bytes()).decode()
        alt = html.escape(f"figure of the table below: {section.title}")
        parts.append(f'<img alt="{alt}" src="data:image/png;base64,{data}">')
    parts.append(section.table.html())
    if section.all_settings:
        parts.append(
            f"<details><summary>every setting that was run ({len(section.all_settings.rows)})"
            f"</summary>{section.all_settings.html()}</details>"
        )
    if section.all_runs:
        parts.append(
            f"<details><summary>every run ({len(section.all_runs.rows)}), and its best epoch"
            f"</summary>{section.all_runs.html()}</details>"
        )
    if section.study:
        items = "".join(_setting(setting, folder) for setting in section.study.settings)
        parts.append(
            "<details><summary>runs, their settings and versions</summary>"
            f"<ul>{items}</ul></details>"
        )
    return f"<section>{''.join(parts)}</section>"


def _setting(setting: Setting, folder: pathlib.Path) -> str:
    """A setting's runs; the settings themselves and versions are the first run's."""
    links = ", ".join(_link(record, folder) for record in setting.records)
    first = setting.records[0]
    content = {"settings": first.config.to_dict(), "versions": first.result.get("versions")}
    details = html.escape(json.dumps(content, indent=1))
    return (
        f'<li id="{html.escape(anchor(setting))}">{links}'
        f"<details><summary>settings and versions</summary><pre>{details}</pre></details></li>"
    )


def _link(record: Record, folder: pathlib.Path) -> str:
    target = urllib.parse.quote(os.path.relpath(record.path, folder) + "/")
    result = record.result
    state = "diverged" if record.diverged else f"{result['epochs']} epochs"
    took = f"{result['seconds']:,.0f} s" if result["seconds"] is not None else ""
    return f'<a href="{target}">{html.escape(record.path.name)}</a> ({state}, {took})'
