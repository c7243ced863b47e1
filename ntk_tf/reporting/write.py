"""A report: tables, figures and a page, out of run directories."""

import pathlib
import re
from collections.abc import Sequence

from ntk_tf import runs
from ntk_tf.reporting import collect, page, paper, studies
from ntk_tf.reporting.collect import Record, Study
from ntk_tf.reporting.page import Section
from ntk_tf.reporting.studies import Point
from ntk_tf.reporting.tables import Table


def write(runs_dir: pathlib.Path, output_dir: pathlib.Path) -> list[Table]:
    """Write `tables/`, `figures/` and `index.html`.

    Args:
        runs_dir: parent or grandparent of run directories, which are only read.
        output_dir: created where it does not exist.

    Returns:
        The tables: the paper's, other studies, then those of the paper that have no runs.

    Raises:
        RunDirectoryError: if there are no runs, or the folder cannot be written.
    """
    records = collect.read(runs_dir)
    found = collect.studies(records)
    try:
        for name in ("tables", "figures"):
            (output_dir / name).mkdir(parents=True, exist_ok=True)
        sections = [_study_section(study, output_dir) for study in found]
        sections += _figure1_section(found, records, output_dir)
        empty = _sections_without_runs(found, sections)
        table1 = Section("Table 1", studies.table1(found))
        filled = any(row.keys() & {"standard", "linearized"} for row in table1.table.rows)
        (sections if filled else empty).append(table1)
        sections = [*sorted(sections, key=_place), *sorted(empty, key=_place)]
        for section in sections:
            section.table.write(output_dir / "tables")
            for table in (section.all_settings, section.all_runs):
                if table:
                    table.write(output_dir / "tables")
        page.write(output_dir / "index.html", runs_dir, sections, collect.unfinished(runs_dir))
    except OSError as error:
        raise runs.RunDirectoryError(f"output_dir={output_dir}: {error}") from error
    return [section.table for section in sections]


def _place(section: Section) -> tuple[bool, str]:
    """The paper's figures and Table 1 come first, each with its variants, then other studies."""
    return not section.title.startswith(("Figure", "Table")), section.title


def _figure_of(study: Study) -> paper.Figure | None:
    """The paper's figure that a study reproduces; None if the paper has none."""
    if study.differences.get("loss"):
        return None  # all its accuracies against the width are with the L2 loss
    for figure in paper.figures():
        if (study.arch, study.dataset) == (figure.arch, figure.dataset):
            return figure
    return None


def _study_section(study: Study, output_dir: pathlib.Path) -> Section:
    """Accuracies against the width: table, figure, all settings."""
    figure = _figure_of(study)
    arch, dataset = paper.arch_name(study.arch), paper.dataset_name(study.dataset)
    title = f"{arch} on {dataset}"
    name = f"{study.arch}_{study.dataset}"
    if figure:
        title, name = f"{figure.title}: {title}", figure.key
    name += "".join(f"_{key}{value}" for key, value in study.differences.items())
    name = re.sub(r"[^\w.+-]", "-", name)[:120]
    curves = figure.curves if figure else paper.plain_curves(study.arch)
    shown = studies.points(study, curves)
    table = studies.width_table(name, title, shown)
    _draw_widths(shown, output_dir / "figures" / name)
    chosen = [point.chosen for point in shown if point.chosen]
    return Section(
        title,
        table,
        output_dir / "figures" / f"{name}.png",
        study.note,
        studies.settings_table(f"{name}_all_settings", study, chosen),
        study,
        studies.runs_table(f"{name}_all_runs", study),
    )


def _draw_widths(shown: Sequence[Point], path: pathlib.Path) -> None:
    from ntk_tf.reporting import accuracies  # matplotlib takes its time

    accuracies.draw_widths(shown, path)


def _figure1_section(
    found: Sequence[Study], records: Sequence[Record], output_dir: pathlib.Path
) -> list[Section]:
    """Figure 1, if any of its runs is there."""
    table = studies.figure1(found, records)
    if all(row.get("test") is None and not row.get("remark") for row in table.rows):
        return []
    path = output_dir / "figures" / studies.FIGURE1
    from ntk_tf.reporting import accuracies

    accuracies.draw_bars(table, path)
    return [Section(table.title, table, path.with_suffix(".png"))]


def _sections_without_runs(found: Sequence[Study], shown: Sequence[Section]) -> list[Section]:
    """The paper's figures that no run is of: its numbers beside empty cells."""
    names = [section.table.name for section in shown]
    missing = []
    if studies.FIGURE1 not in names:
        table = studies.figure1(found, [])
        missing.append(Section(f"{table.title} (no runs yet)", table))
    for figure in paper.figures():
        if not any(name.startswith(figure.key) for name in names):
            arch, dataset = paper.arch_name(figure.arch), paper.dataset_name(figure.dataset)
            title = f"{figure.title}: {arch} on {dataset}"
            table = studies.width_table(figure.key, title, studies.points(None, figure.curves))
            missing.append(Section(f"{title} (no runs yet)", table))
    return missing
