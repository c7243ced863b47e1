"""A table as CSV, Markdown, LaTeX and HTML, all from the same rows."""

import csv
import dataclasses
import html
import io
import pathlib
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from ntk_tf import runs

#: What stands where a value is missing.
EMPTY = "—"
#: Characters of a cell from which on it may break into lines of some length.
LONG = 18


@dataclasses.dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        key: of the rows' values, and its heading in CSV.
        title: its heading for readers.
        kind: `text`; `value` as it is; `measure`, to four digits; `mean` (percent, beside
            `<key>_std`, which readers see in the same cell); `percent`; or `difference` (points,
            with sign).
    """

    key: str
    title: str
    kind: str = "text"


def mean_cells(key: str, values: Sequence[float]) -> dict[str, float | None]:
    """The cells of a column of kind `mean`: mean and standard deviation (n - 1) of some values."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {key: statistics.fmean(values), f"{key}_std": deviation}


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of values and how to show them.

    Attributes:
        name: of its files.
        title: above it.
        columns: from left to right.
        rows: values by column key; absent or None: empty.
        note: below it.
    """

    name: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Any]]
    note: str = ""

    def cell(self, row: Mapping[str, Any], column: Column) -> str:
        """What readers see: one decimal, a sign for differences, `EMPTY` for nothing."""
        value = row.get(column.key)
        if value is None or value == "":
            return EMPTY
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, str):
            return value
        if column.kind == "difference":
            shown = f"{round(value, 1) + 0.0:+.1f}"
            return shown.replace("-", "−") if value and shown[1:] != "0.0" else "0.0"
        if column.kind in ("mean", "percent"):
            std = row.get(f"{column.key}_std")
            return f"{value:.1f}" if std is None else f"{value:.1f} ± {std:.1f}"
        if column.kind == "measure":
            return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
        return f"{value:g}" if isinstance(value, float) else str(value)

    def csv(self) -> str:
        """Comma-separated values; numbers with four decimals at most, nothing rounded for looks."""
        keys = []
        for column in self.columns:
            keys.append(column.key)
            if column.kind == "mean":
                keys.append(f"{column.key}_std")
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, keys, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        accuracies = {c.key for c in self.columns if c.kind in ("mean", "percent", "difference")}
        accuracies |= {f"{key}_std" for key in accuracies}
        for row in self.rows:
            rounded = {
                key: round(value, 4) + 0.0 if key in accuracies and value is not None else value
                for key, value in row.items()
            }
            writer.writerow(rounded)
        return text.getvalue()

    def markdown(self) -> str:
        """A table with its title and note."""
        right = [column.kind != "text" for column in self.columns]
        lines = [
            "| " + " | ".join(column.title for column in self.columns) + " |",
            "| " + " | ".join("---:" if r else "---" for r in right) + " |",
        ]
        for row in self.rows:
            cells = [self.cell(row, column).replace("|", r"\|") for column in self.columns]
            lines.append("| " + " | ".join(cells) + " |")
        note = f"\n{self.note}\n" if self.note else ""
        return f"**{self.title}**\n\n" + "\n".join(lines) + f"\n{note}"

    def latex(self) -> str:
        """A `tabular` with the rules of the package booktabs, in a `table`."""
        align = "".join("l" if column.kind == "text" else "r" for column in self.columns)
        lines = [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_tex(self.title)}}}",
            rf"\begin{{tabular}}{{{align}}}",
            r"\toprule",
            " & ".join(_tex(column.title) for column in self.columns) + r" \\",
            r"\midrule",
            *(
                " & ".join(_tex(self.cell(row, column)) for column in self.columns) + r" \\"
                for row in self.rows
            ),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
        return "% needs \\usepackage{booktabs}\n" + "\n".join(lines) + "\n"

    def html(self) -> str:
        """A `table` element; a row's `href` makes a link of its first cell, `id` names it."""
        head = "".join(f"<th>{html.escape(column.title)}</th>" for column in self.columns)
        body = "".join(self._html_row(row) for row in self.rows)
        return (
            f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody>'
            f"</table></div>" + (f"<p class=note>{html.escape(self.note)}</p>" if self.note else "")
        )

    def _html_row(self, row: Mapping[str, Any]) -> str:
        cells = []
        for i, column in enumerate(self.columns):
            shown = self.cell(row, column)
            kind = "empty" if shown == EMPTY else column.kind
            kind += " long" * (len(shown) > LONG)
            shown = re.sub(r"([_/])", r"\1<wbr>", html.escape(shown))
            if i == 0 and row.get("href"):
                shown = f'<a href="{html.escape(row["href"])}">{shown}</a>'
            cells.append(f'<td class="{kind}">{shown}</td>')
        style = f' class="{row["style"]}"' if row.get("style") else ""
        style += f' id="{html.escape(row["id"])}"' if row.get("id") else ""
        return f"<tr{style}>{''.join(cells)}</tr>"

    def write(self, folder: pathlib.Path) -> None:
        """Write `<name>.csv`, `.md` and `.tex`."""
        texts = {"csv": self.csv(), "md": self.markdown(), "tex": self.latex()}
        for ending, text in texts.items():
            with runs.atomic_write(folder / f"{self.name}.{ending}") as file:
                file.write(text)


#: Characters that mean something to LaTeX, or that its fonts lack.
_TEX = {
    "\\": r"\textbackslash{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": "$-$",
    EMPTY: "--",
}


def _tex(text: str) -> str:
    return "".join(_TEX.get(character, character) for character in text)
