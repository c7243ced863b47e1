"""One self-contained HTML page: figures, tables, and what is behind each number."""

import base64
import dataclasses
import html
import json
import os
import pathlib
import re
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

from ntk_tf import runs
from ntk_tf.reporting.collect import Found, Record
from ntk_tf.reporting.tables import Table

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; margin: 2rem auto;
       max-width: 75rem; padding: 0 1.2rem; }
h1 { font-size: 1.5rem; line-height: 1.25; }
h2 { font-size: 1.2rem; line-height: 1.3; margin-top: 2.5rem; }
a, summary { color: #0645ad; }
h2, li, code { overflow-wrap: anywhere; }
nav ul { padding-left: 1.2rem; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem 2rem; align-items: flex-end; }
figure { margin: 0.5rem 0; min-width: 0; max-width: 100%; }
figcaption, .note { color: #555; font-size: 0.85rem; max-width: 60rem; }
.scroll { overflow-x: auto; }
figure img { display: block; max-width: 100%; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.9rem; }
th { text-align: left; border-bottom: 2px solid #444; vertical-align: bottom; }
th, td { padding: 0.2rem 0.7rem; } td { border-bottom: 1px solid #ddd; white-space: nowrap; }
td.mean, td.percent, td.difference, td.value, td.measure { text-align: right; }
td.text { white-space: normal; } td.long { min-width: 12rem; }
td.empty { color: #767676; text-align: right; }
td.percent { color: #555; }
tr.chosen td { font-weight: 600; } tr.diverged td { background: #fdf0e3; }
tr:target td { background: #fff7c2; }
details { margin: 0.6rem 0; } summary { cursor: pointer; }
.settings { color: #555; font-size: 0.85rem; overflow-wrap: anywhere; }
@media screen and (max-width: 40rem) {
  body { padding: 0 0.8rem; } th, td { padding: 0.2rem 0.5rem; }
  th:first-child, td:first-child { position: sticky; left: 0; background: #fff; }
  td.text.long:first-child { min-width: 11rem; max-width: 11rem; }
}
@media print {
  @page { size: A4 landscape; margin: 12mm; }
  body { font-size: 9pt; margin: 0; max-width: none; padding: 0; }
  .scroll { overflow: visible; }
  table { font-size: 7pt; } th, td { padding: 0.1rem 0.3rem; }
  td.long { min-width: 8rem; } td.text { white-space: normal; }
  thead { display: table-header-group; } tr, figure { break-inside: avoid; }
  h2 { break-after: avoid; } nav { display: none; }
  figure img { max-height: 150mm; max-width: 100% !important; min-width: 0 !important; zoom: 0.75; }
  details::details-content { content-visibility: visible; block-size: auto; }
}
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
let closed = [];
addEventListener('beforeprint', () => {
  closed = [...document.querySelectorAll('details:not([open])')];
  for (const e of closed) e.open = true;
});
addEventListener('afterprint', () => { for (const e of closed) e.open = false; });
"""


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure of a section.

    Attributes:
        path: of its files, without ending.
        caption: what it shows.
    """

    path: pathlib.Path
    caption: str


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        title: its heading.
        table: what it says.
        figures: above the table.
        note: below the heading.
        more: tables that are folded away, each with its `title` as what opens it.
        details: settings and versions of each study in it, by what sets that apart.
    """

    title: str
    table: Table
    figures: Sequence[Figure] = ()
    note: str = ""
    more: Sequence[Table] = ()
    details: dict[str, Any] = dataclasses.field(default_factory=dict)


def write(
    path: pathlib.Path, found: Found, sections: Sequence[Section], empty: Sequence[Section]
) -> None:
    """Write the page.

    Args:
        path: of the HTML file.
        found: the runs.
        sections: from top to bottom.
        empty: those of the paper that have no runs, folded away at the end.
    """
    body = "".join(_section(section, path.parent) for section in sections)
    if empty:
        inner = "".join(_section(section, path.parent) for section in empty)
        what = f"the paper's figures and tables without runs here ({len(empty)})"
        body += _details(what, inner)
    links = "".join(
        f'<li><a href="#{_place(section)}">{html.escape(section.title)}</a></li>'
        for section in sections
    )
    text = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<title>ntk_tf: networks and their linearizations</title>"
        f"<style>{STYLE}</style></head><body>"
        "<h1>Networks and their linearizations at initialization</h1>"
        f"<p>Runs in <code>{html.escape(str(found.folder))}</code> ({found.describe()}), beside the"
        " numbers of Samarin, Roth and Belius (2020), <i>On the Empirical Neural Tangent Kernel of"
        " Standard Finite-Width Convolutional Neural Network Architectures</i>. A model's name"
        " leads to the runs behind its numbers, a run's name to its folder.</p>"
        f"<nav><ul>{links}</ul></nav>{_left_out(found)}{body}<script>{SCRIPT}</script>"
        "</body></html>\n"
    )
    with runs.atomic_write(path) as file:
        file.write(text)


def link(record: Record, folder: pathlib.Path) -> str:
    """The address of a run's folder on a page in another folder."""
    return urllib.parse.quote(os.fsencode(os.path.relpath(record.path, folder)) + b"/")


def _details(summary: str, inner: str) -> str:
    return f"<details><summary>{html.escape(summary)}</summary>{inner}</details>"


def _left_out(found: Found) -> str:
    """The run directories that no table has."""
    parts = []
    if found.damaged:
        lines = "".join(f"<li>{html.escape(line)}</li>" for line in found.damaged)
        parts.append(f"<p>Left out, as they cannot be read:</p><ul>{lines}</ul>")
    if found.unfinished:
        names = "".join(f"<li>{html.escape(name)}</li>" for name in found.unfinished)
        parts.append(_details(f"unfinished runs ({len(found.unfinished)})", f"<ul>{names}</ul>"))
    if found.repeated:
        names = "".join(
            f"<li>{html.escape(name)}: the same settings as {html.escape(record.name)}</li>"
            for name, record in found.repeated
        )
        what = f"runs left out, because another has their settings ({len(found.repeated)})"
        parts.append(_details(what, f"<ul>{names}</ul>"))
    return "".join(parts)


def _place(section: Section) -> str:
    """The name of a section's place on the page."""
    return "section-" + re.sub(r"\W+", "-", section.table.name)


def _section(section: Section, folder: pathlib.Path) -> str:
    parts = [f'<h2 id="{_place(section)}">{html.escape(section.title)}</h2>']
    if section.note:
        parts.append(f"<p>Settings other than the paper's: {html.escape(section.note)}.</p>")
    shown, folded = section.figures[:2], section.figures[2:]
    parts.append(_figures(shown, folder))
    if folded:
        parts.append(_details(f"more figures ({len(folded)})", _figures(folded, folder)))
    parts.append(section.table.html())
    parts += [
        _details(f"{table.title} ({len(table.rows)})", table.html()) for table in section.more
    ]
    if section.details:
        inner = "".join(_common(*item) for item in section.details.items())
        parts.append(_details("settings and versions", inner))
    return f"<section>{''.join(parts)}</section>"


def _common(name: str, content: Mapping[str, Any]) -> str:
    """What a study's runs share: settings, and the versions that they ran with."""
    parts = [f"<b>{html.escape(name)}</b>"] if name else []
    for key, values in content.items():
        for one in values if isinstance(values, list) else [values]:
            words = ", ".join(f"{k} {json.dumps(v)}" for k, v in one.items())
            parts.append(f"{html.escape(key)}: {html.escape(words.replace(chr(34), ''))}")
    return f'<p class="settings">{"<br>".join(parts)}</p>'


def _figures(figures: Sequence[Figure], folder: pathlib.Path) -> str:
    """Figures side by side where there is room."""
    return f'<div class="figures">{"".join(_figure(f, folder) for f in figures)}</div>'


def _figure(figure: Figure, folder: pathlib.Path) -> str:
    """A figure, drawn inside the page, and its files."""
    name = figure.path.name
    text = figure.path.with_name(f"{name}.svg").read_text(encoding="utf-8")
    width = float(re.search(r'width="([\d.]+)pt"', text)[1]) * 96 / 72
    data = base64.b64encode(text.encode()).decode()
    files = [
        path
        for ending in ("svg", "pdf", "png", "csv")
        if (path := figure.path.with_name(f"{name}.{ending}")).exists()
    ]
    data_behind = folder / "tables" / f"{name}.csv"
    files += [data_behind] if data_behind.exists() else []
    links = ", ".join(
        f'<a href="{urllib.parse.quote(path.relative_to(folder).as_posix())}">'
        f"{path.suffix[1:].upper()}</a>"
        for path in files
    )
    caption = html.escape(figure.caption)
    size = f"width: {width:.0f}px; min-width: {0.7 * width:.0f}px"
    return (
        f'<figure><div class="scroll"><img alt="{caption}" style="{size}"'
        f' src="data:image/svg+xml;base64,{data}"></div>'
        f"<figcaption>{caption} ({links})</figcaption></figure>"
    )
