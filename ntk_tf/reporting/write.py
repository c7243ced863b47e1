"""A report: tables, figures and a page, out of run directories."""

import dataclasses
import functools
import pathlib
import re
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from ntk_tf import runs
from ntk_tf.experiments import EXPERIMENTS
from ntk_tf.reporting import collect, grouping, measured, page, paper, studies, table1
from ntk_tf.reporting.collect import Found, Record
from ntk_tf.reporting.grouping import Study
from ntk_tf.reporting.page import Figure, Section
from ntk_tf.reporting.tables import Table


def write(runs_dir: pathlib.Path, output_dir: pathlib.Path) -> list[Table]:
    """Write `tables/`, `figures/` and `index.html`.

    Args:
        runs_dir: a folder of run directories at any depth, which are only read.
        output_dir: created where it does not exist.

    Returns:
        The tables that have runs: the paper's, then others.

    Raises:
        RunDirectoryError: if there are no runs, or the folder cannot be written.
    """
    found = collect.read(runs_dir)
    started = [r for r in found.of("train") if r.config.pretrain_steps]
    trained = grouping.studies(r for r in found.of("train") if not r.config.pretrain_steps)
    link = functools.partial(page.link, folder=output_dir)
    try:
        for name in ("tables", "figures"):
            (output_dir / name).mkdir(parents=True, exist_ok=True)
        sections = [_study_section(study, output_dir, link) for study in trained]
        sections += _figure1_section(trained, found, output_dir)
        sections += _start_sections(started, found, output_dir)
        for experiment in found.experiments():
            if experiment != "train":
                sections += _measured_sections(experiment, found, trained, output_dir, link)
        empty = _sections_without_runs(trained, sections)
        first = Section("Table 1", table1.table(trained))
        filled = any(row.keys() & {"standard", "linearized"} for row in first.table.rows)
        (sections if filled else empty).append(first)
        if not any(map(_is_papers, sections)):
            empty = []
        for section in [*sections, *empty]:
            for table in (section.table, *section.more):
                table.write(output_dir / "tables")
        sections.sort(key=_place)
        page.write(output_dir / "index.html", found, sections, sorted(empty, key=_place))
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}" if error.strerror else error
        raise runs.RunDirectoryError(
            f"output_dir={output_dir}: cannot be written ({reason})"
        ) from error
    return [section.table for section in sections]


def _place(section: Section) -> tuple[bool, str]:
    """The paper's figures and Table 1 come first, each with its variants, then other studies."""
    return not _is_papers(section), section.title


def _is_papers(section: Section) -> bool:
    return section.title.startswith(("Figure", "Table"))


def _figure_of(study: Study) -> paper.Figure | None:
    """The paper's figure that a study reproduces; None if the paper has none."""
    if study.differences.get("loss"):
        return None  # all its accuracies against the width are with the L2 loss
    for figure in paper.figures():
        if (study.arch, study.dataset) == (figure.arch, figure.dataset):
            return figure
    return None


def _file_name(*words: str) -> str:
    """A name for files, of words that may hold anything; where it is long, with a checksum."""
    name = re.sub(r"[^\w.+-]+", "-", "_".join(words))
    return name if len(name) <= 120 else f"{name[:111]}-{zlib.crc32(name.encode()):08x}"


def _variant(study: Study) -> str:
    """What sets a study apart, for the names of files."""
    return "".join(f"_{key}{value}" for key, value in study.differences.items())


def _study_section(
    study: Study, output_dir: pathlib.Path, link: Callable[[Record], str]
) -> Section:
    """Accuracies against the width and by epoch: tables, figures, all settings, all runs."""
    from ntk_tf.reporting import accuracies, alphas  # matplotlib takes its time

    figure = _figure_of(study)
    title = f"{figure.title}: {study.title}" if figure else study.title
    name = figure.key if figure else f"{study.arch}_{study.data_title}"
    name = _file_name(name + _variant(study))
    shown = studies.points(study, study.curves(figure.curves if figure else ()))
    chosen = [point.chosen for point in shown if point.chosen]
    place = output_dir / "figures"
    figures = []
    tables = [
        studies.settings_table(f"{name}_all_settings", study, chosen),
        studies.runs_table(f"{name}_all_runs", study, link),
    ]
    scaled = alphas.of_alpha(shown)
    if scaled:
        path = place / f"{name}_alphas"
        alphas.draw(scaled, path)
        figures.append(Figure(path, "Accuracy against alpha"))
        tables.insert(0, alphas.table(path.name, scaled))
    if not scaled or len({point.width for point in shown}) > 1:
        accuracies.draw_widths(shown, place / name)
        figures.append(Figure(place / name, "Accuracy against the width factor"))
    if accuracies.draw_epochs(study, chosen, place / f"{name}_epochs"):
        figures.append(Figure(place / f"{name}_epochs", "Accuracy after each epoch, of every run"))
    return Section(
        title,
        studies.width_table(name, title, shown),
        figures,
        study.note,
        tables,
        {"": study.common()},
    )


def _figure1_section(
    trained: Sequence[Study], found: Found, output_dir: pathlib.Path
) -> list[Section]:
    """Figure 1, if any of its runs is there."""
    table = studies.figure1(trained, found.of("pretrained"))
    if all(row.get("test") is None and not row.get("remark") for row in table.rows):
        return []
    from ntk_tf.reporting import accuracies

    path = output_dir / "figures" / studies.FIGURE1
    accuracies.draw_bars(table, path)
    return [Section(table.title, table, [Figure(path, "Accuracies: bars are ours")])]


def _start_sections(
    started: Sequence[Record], found: Found, output_dir: pathlib.Path
) -> list[Section]:
    """Linearizations of trained networks: a section for each that has several moments."""
    from ntk_tf.reporting import starts  # matplotlib takes its time

    sections = []
    study_of = {record.path: s for s in grouping.studies(started) for record in s.records}
    for number, records in enumerate(starts.with_starts(started, found.of("train")), 1):
        study = next(study_of[record.path] for record in records if record.path in study_of)
        title = f"Linearized after some training: {study.model_title} on {study.data_title}"
        name = _file_name("pretrain", study.arch, study.data_title, str(number))
        table = starts.table(name, title, records)
        path = output_dir / "figures" / name
        starts.draw(table, path)
        caption = "Test accuracy against the moment of linearization"
        sections.append(
            Section(title, table, [Figure(path, caption)], "", [], {"": study.common()})
        )
    return sections


def _end_section(
    section: Section, together: Sequence[Study], trained: Sequence[Study], output_dir: pathlib.Path
) -> Section:
    """The section of converged linearizations: beside network and SGD, every run folded away."""
    from ntk_tf.reporting import ends

    name = f"{section.table.name}_gap"
    table = ends.table(name, section.title, together, trained)
    path = output_dir / "figures" / name
    ends.draw(table, path)
    return _above(section, table, Figure(path, "Test accuracy against weight decay"))


def _kernel_sections(
    name: str, together: Sequence[Study], details: dict[str, Any], output_dir: pathlib.Path
) -> list[Section]:
    """A section of regressions with kernels, where there are any."""
    from ntk_tf.reporting import kernels, starts

    first, name = together[0], f"{name}_regression"
    title = f"Regression with the kernel: {first.model_title} on {first.data_title}"
    table = kernels.table(name, title, together)
    if not table.rows:
        return []
    figures, path = [], output_dir / "figures" / name
    if len({row["settings"] for row in table.rows}) == 1:
        starts.draw(table, path, kernels.CURVES)
        figures = [Figure(path, "Test accuracy against the network's updates")]
    return [Section(title, table, figures, "", [], details)]


def _infinite_section(
    section: Section, together: Sequence[Study], trained: Sequence[Record], output_dir: pathlib.Path
) -> Section:
    """The section of infinite width: beside finite networks, every run folded away."""
    from ntk_tf.reporting import infinite

    name = f"{section.table.name}_pictures"
    kernels = [record for study in together for record in study.records]
    table = infinite.table(name, section.title, kernels, trained)
    path = output_dir / "figures" / name
    infinite.draw(table, path)
    return _above(
        section, table, Figure(path, "Test accuracy against the number of training pictures")
    )


def _above(section: Section, table: Table, figure: Figure) -> Section:
    """A section with another table and figure, and its own table of runs folded away."""
    runs_table = dataclasses.replace(section.table, title="Every run")
    return dataclasses.replace(section, table=table, figures=[figure], more=[runs_table])


def _measured_sections(
    experiment: str,
    found: Found,
    trained: Sequence[Study],
    output_dir: pathlib.Path,
    link: Callable[[Record], str],
) -> list[Section]:
    """The runs of an experiment other than training: a section an architecture and dataset."""
    groups: dict[tuple[str, str], list[Study]] = {}
    for study in grouping.studies(found.of(experiment)):
        groups.setdefault((study.model_title, study.data_title), []).append(study)
    sections = []
    for together in groups.values():
        name = _file_name(experiment, together[0].arch, together[0].data_title)
        title = measured.title(together[0], experiment)
        figures = [
            figure
            for study in together
            for figure in _draw(study, output_dir / "figures" / _file_name(name + _variant(study)))
        ]
        details = {study.note or "the paper's settings": study.common() for study in together}
        table = measured.table(name, title, together, link)
        section = Section(title, table, figures, "", [], details)
        if experiment == "converged":
            section = _end_section(section, together, trained, output_dir)
        if experiment == "infinite":
            section = _infinite_section(section, together, found.of("train"), output_dir)
        sections.append(section)
        if experiment == "rank":
            sections += _kernel_sections(name, together, details, output_dir)
    return sections


def _draw(study: Study, folder: pathlib.Path) -> list[Figure]:
    """What an experiment draws of some runs; nothing for one that draws nothing."""
    experiment = EXPERIMENTS[study.records[0].config.experiment]
    if not experiment.figure:
        return []
    folder.mkdir(exist_ok=True)
    for path in [p for svg in folder.glob("*.svg") for p in folder.glob(f"{svg.stem}.*")]:
        path.unlink()  # an earlier report drew it, maybe of other runs
    experiment.draw([record.path for record in study.records], folder)
    about = f"; {study.distinction}" if study.distinction else ""
    return [
        Figure(path.with_suffix(""), path.stem.replace("_", " ").capitalize() + about)
        for path in sorted(folder.glob("*.svg"), reverse=True)
    ]


def _sections_without_runs(trained: Sequence[Study], shown: Sequence[Section]) -> list[Section]:
    """The paper's figures that no run is of: its numbers beside empty cells."""
    names = [section.table.name for section in shown]
    missing = []
    if studies.FIGURE1 not in names:
        table = studies.figure1(trained, [])
        missing.append(Section(table.title, table))
    for figure in paper.figures():
        if not any(name.startswith(figure.key) for name in names):
            arch, dataset = paper.arch_name(figure.arch), paper.dataset_name(figure.dataset)
            title = f"{figure.title}: {arch} on {dataset}"
            table = studies.width_table(figure.key, title, studies.points(None, figure.curves))
            missing.append(Section(title, table))
    return missing
