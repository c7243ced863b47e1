"""What runs of experiments other than training have measured, as tables."""

from collections.abc import Callable, Sequence
from typing import Any

from ntk_tf.reporting import paper
from ntk_tf.reporting.collect import Record
from ntk_tf.reporting.grouping import Study
from ntk_tf.reporting.tables import Column, Table

#: Names of experiments for readers; others go by their own.
_TITLES = {
    "trajectory": "Trajectories",
    "rank": "Effective rank",
    "converged": "Where training ends",
    "infinite": "Infinite width",
    "baseline": "Logistic regression",
    "pretrained": "Trained on all of ImageNet",
}
#: What result.json says besides measurements.
_BOOKKEEPING = frozenset({"status", "width", "seed", "learning_rate", "examples", "outputs"})
_LAST = ("parameters", "steps", "seconds", "peak_memory_gib")
_NAMES = {"steps": "updates", "peak_memory_gib": "peak memory, GiB"}
#: Columns of every table that has something for them.
_FIXED = {
    "run": Column("run", "run"),
    "width": Column("width", "width", "value"),
    "seed": Column("seed", "seed", "value"),
    "settings": Column("settings", "other settings"),
    "status": Column("status", "status"),
}
#: What a row tells the page besides.
_SILENT = ("id", "href", "style")
_NOTES = {
    "trajectory": "The relative distance is ||f(w) - T_f(u)|| / ||f(w) - f(w0)|| on test pictures"
    " after the last update: 0 where network and linearization agree.",
    "rank": "The effective rank is exp of the entropy of the square roots of the kernel's"
    " eigenvalues, normalized to sum 1: with all outputs the singular values of their gradients. It"
    " is at most the number of rows.",
}


def title(study: Study, experiment: str) -> str:
    """The heading of an experiment's runs with one architecture on one dataset."""
    name = _TITLES.get(experiment, experiment.replace("_", " ").capitalize())
    with_network = hasattr(study.records[0].config, "width") or experiment == "infinite"
    of = f"{study.model_title} on {study.data_title}" if with_network else study.data_title
    figure = paper.measured_figure(experiment, study.arch, study.dataset)
    if getattr(study.records[0].config, "outputs", "full") != "full":  # another kernel's rank
        figure = None
    return f"{figure}: {of}, {name.lower()}" if figure else f"{name}: {of}"


def table(
    name: str, heading: str, studies: Sequence[Study], link: Callable[[Record], str]
) -> Table:
    """Every run with what it has measured: all numbers and words in its result.json.

    Args:
        name: of the table's files.
        heading: its title.
        studies: the runs, all of one experiment.
        link: gives the address of a run's folder.
    """
    rows = [
        _row(record, study, link)
        for study in studies
        for record in sorted(study.records, key=_place)
    ]
    given = dict.fromkeys(key for row in rows for key in row if key not in (*_FIXED, *_SILENT))
    measured = [key for key in given if key not in _LAST]
    present = [column for key, column in _FIXED.items() if any(key in row for row in rows)]
    last = [key for key in _LAST if key in given]
    columns = [*present, *(Column(key, *_heading(key)) for key in measured + last)]
    note = _NOTES.get(studies[0].records[0].config.experiment, "")
    percent = "Accuracies in percent." if any(map(_is_accuracy, given)) else ""
    return Table(name, heading, columns, rows, f"{note} {percent}".strip())


def _is_accuracy(key: str) -> bool:
    """Whether a measurement is one, as `test_accuracy_among_snakes` is."""
    return "_accuracy" in key


def _place(record: Record) -> tuple[int, int]:
    return getattr(record.config, "width", 1), getattr(record.config, "seed", 0)


def _row(record: Record, study: Study, link: Callable[[Record], str]) -> dict[str, Any]:
    """A run as a row."""
    row: dict[str, Any] = {"run": record.name, "id": record.name, "href": link(record)}
    for name in ("width", "seed"):
        if hasattr(record.config, name):
            row[name] = getattr(record.config, name)
    if study.note:
        row["settings"] = study.note
    if record.diverged:
        row |= {"status": "diverged", "style": "diverged"}
    for key, value in record.result.items():
        if key not in _BOOKKEEPING and isinstance(value, int | float | str):
            row[key] = 100 * value if _is_accuracy(key) else value
    return row


def _heading(key: str) -> tuple[str, str]:
    """The heading of a measurement for readers, and its kind of column."""
    kind = "percent" if _is_accuracy(key) else "measure"
    return _NAMES.get(key, key.removesuffix("_accuracy").replace("_", " ")), kind
