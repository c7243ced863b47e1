"""The paper's figures and Table 1 as tables: ours, the paper's, the difference."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ntk_tf.reporting import paper
from ntk_tf.reporting.collect import Record
from ntk_tf.reporting.grouping import Setting, Study, choose
from ntk_tf.reporting.paper import NETWORK, SPLITS, Curve
from ntk_tf.reporting.tables import Column, Table

CHOICE = (
    "Accuracies in percent: mean and standard deviation over seeds. Learning rate and weight decay"
    " of each width are those with the best mean test accuracy among the settings none of whose"
    " runs diverged, as the paper chose them; settings are compared on the seeds that all have."
)


def _compared(split: str) -> list[Column]:
    """The columns of one split: ours, the paper's, the difference."""
    return [
        Column(split, split, "mean"),
        Column(f"paper_{split}", f"paper's {split}", "percent"),
        Column(f"{split}_difference", "difference", "difference"),
    ]


_CHOSEN = [
    Column("learning_rate", "learning rate", "value"),
    Column("weight_decay", "weight decay", "value"),
    Column("seeds", "seeds", "value"),
]
COLUMNS = [
    Column("model", "model"),
    Column("width", "width", "value"),
    *_CHOSEN,
    *_compared("test"),
    *_compared("train"),
    Column("remark", "remark"),
]


@dataclasses.dataclass(frozen=True)
class Point:
    """One width of a curve.

    Attributes:
        curve: it belongs to.
        width: width factor.
        chosen: the setting that stands for it; None if there is none.
        diverged: settings with runs that diverged.
    """

    curve: Curve
    width: int
    chosen: Setting | None
    diverged: tuple[Setting, ...]

    def row(self) -> dict[str, Any]:
        """The point as a row of `COLUMNS`."""
        row = {"model": self.curve.title, "width": self.width} | chosen_cells(self.chosen)
        for split in SPLITS:
            theirs = self.curve.paper.get(split, {}).get(self.width)
            row |= compare(row, split, theirs)
        return row | {"remark": remark(self.diverged)}


def compare(row: Mapping[str, Any], split: str, theirs: float | None) -> dict[str, Any]:
    """The paper's value, and ours minus the paper's where there are both."""
    ours = row.get(split)
    difference = None if None in (ours, theirs) else ours - theirs
    return {f"paper_{split}": theirs, f"{split}_difference": difference}


def chosen_cells(setting: Setting | None) -> dict[str, Any]:
    """A setting's cells: what it is and how well it did; no cells for None."""
    if setting is None:
        return {}
    cells: dict[str, Any] = {
        "learning_rate": setting.learning_rate,
        "weight_decay": setting.weight_decay,
        "seeds": setting.seeds,
        "href": f"#{anchor(setting)}",
    }
    for split in SPLITS:
        cells |= {split: setting.mean(split), f"{split}_std": setting.std(split)}
    return cells


def anchor(setting: Setting) -> str:
    """The name of a setting's place on the page: that of its first run."""
    return setting.records[0].name


def remark(diverged: Sequence[Setting]) -> str:
    """Which settings diverged, in words; empty if none did."""
    shown = []
    for setting in diverged:
        of = len(setting.records)
        count = "" if setting.diverged == of else f" ({setting.diverged} of {of} seeds)"
        shown.append(f"{setting.learning_rate:g}{count}")
    return f"diverged at learning rate {', '.join(dict.fromkeys(shown))}" if shown else ""


def points(study: Study | None, curves: Sequence[Curve]) -> list[Point]:
    """The curves' points, at our widths and the paper's.

    Args:
        study: the runs; None if there are none.
        curves: what is to be shown.

    Returns:
        Points in the order of curves and widths.
    """
    settings = study.settings if study else ()
    widths = {setting.width for setting in settings}
    found = []
    for curve in curves:
        if not curve.paper and not any(_belongs(setting, curve) for setting in settings):
            continue  # neither we nor the paper have it
        for width in sorted(widths | curve.widths()):
            candidates = [s for s in settings if _belongs(s, curve) and s.width == width]
            if curve.model.centered and not candidates:
                continue  # a sweep over alpha is of few widths
            diverged = tuple(s for s in candidates if s.diverged)
            found.append(Point(curve, width, choose(candidates), diverged))
    return found


def _belongs(setting: Setting, curve: Curve) -> bool:
    right_rate = curve.learning_rate in (None, setting.learning_rate)
    return setting.model == curve.model and right_rate


def width_table(name: str, title: str, shown: Sequence[Point]) -> Table:
    """Accuracies against the width as a table."""
    columns = COLUMNS
    if not any(point.curve.paper for point in shown):
        columns = [c for c in COLUMNS if c.kind not in ("percent", "difference")]
    return Table(name, title, columns, [point.row() for point in shown], CHOICE)


def settings_table(name: str, study: Study, chosen: Sequence[Setting]) -> Table:
    """Every setting that was run, and whether it was chosen."""
    columns = [
        Column("model", "model"),
        Column("width", "width", "value"),
        *_CHOSEN,
        Column("test", "test", "mean"),
        Column("train", "train", "mean"),
        Column("status", "status"),
    ]
    if len({setting.precision for setting in study.settings}) > 1:
        columns.insert(2, Column("precision", "precision"))
    rows = []
    for setting in study.settings:
        status = "chosen" if setting in chosen else ""
        if setting.diverged:
            status = f"diverged ({setting.diverged} of {len(setting.records)})"
        row = {
            "model": setting.model.title(study.model_title),
            "width": setting.width,
            "precision": setting.precision,
        }
        style = "diverged" if setting.diverged else status
        rows.append(row | chosen_cells(setting) | {"status": status, "style": style})
    return Table(name, "Every setting that was run", columns, rows)


_RUN_CELLS = ("width", "learning_rate", "weight_decay", "seed")


def runs_table(name: str, study: Study, link: Callable[[Record], str]) -> Table:
    """Every run, with its last accuracies and the best ones that stopping early would have given.

    Args:
        name: of the table's files.
        study: the runs.
        link: gives the address of a run's folder.

    Raises:
        RunDirectoryError: if a metrics.csv cannot be read.
    """
    columns = [
        Column("run", "run"),
        Column("model", "model"),
        *(Column(key, key.replace("_", " "), "value") for key in _RUN_CELLS),
        *(Column(split, split, "percent") for split in SPLITS),
        Column("epochs", "epochs", "value"),
        Column("seconds", "seconds", "value"),
        Column("best_test_accuracy", "best test of any epoch", "percent"),
        Column("best_epoch", "in epoch", "value"),
        Column("status", "status"),
    ]
    rows = []
    for setting in study.settings:
        for record in setting.records:
            row = {"run": record.name, "id": record.name, "href": link(record)}
            row["model"] = setting.model.title(study.model_title)
            row |= {key: getattr(record.config, key) for key in _RUN_CELLS}
            rows.append(row | _outcome(record))
    return Table(name, "Every run", columns, rows, "Accuracies in percent.")


def _outcome(record: Record) -> dict[str, Any]:
    """How a run ended, and its best epoch."""
    row = {name: record.result[name] for name in ("status", "epochs", "seconds")}
    row["seconds"] = row["seconds"] and round(row["seconds"])
    if record.diverged:
        row["style"] = "diverged"
    for split in SPLITS:
        accuracy = record.result[f"{split}_accuracy"]
        row[split] = None if accuracy is None else 100 * accuracy
    best = record.best_epoch()
    if best:
        row |= {"best_test_accuracy": 100 * best[0], "best_epoch": best[1]}
    return row


def closest(
    studies: Sequence[Study], arch: str, dataset: str, loss: str | None = None
) -> Study | None:
    """The study closest to the paper's settings; they are ordered by that.

    Args:
        studies: as `grouping.studies` returns them.
        arch: architecture.
        dataset: its pictures.
        loss: only studies with this loss; None for the paper's default.
    """
    for study in studies:
        if (study.arch, study.dataset) == (arch, dataset):
            found = study.differences.get("loss", "l2")
            if found == (loss or "l2"):
                return study
    return None


FIGURE1 = "figure1_alexnet_losses"
_LOSSES = {"cross_entropy": "AlexNet, cross-entropy", "l2": "AlexNet, L2"}


def figure1(studies: Sequence[Study], pretrained: Sequence[Record]) -> Table:
    """Figure 1: AlexNet with either loss, and trained on all of ImageNet."""
    theirs = paper.numbers()["figure1_alexnet_snakes"]
    rows = []
    for loss, title in _LOSSES.items():
        study = closest(studies, "alexnet", "imagenet_snakes", loss)
        settings = study.settings if study else ()
        candidates = [s for s in settings if s.width == 1 and s.model == NETWORK]
        row = {"model": title} | chosen_cells(choose(candidates))
        for split in SPLITS:
            row |= compare(row, split, theirs[loss][split])
        rows.append(row | {"remark": remark([s for s in candidates if s.diverged])})
    row = {"model": "AlexNet trained on all of ImageNet"}
    accuracy = pretrained[0].result["test_accuracy"] if pretrained else None
    if accuracy is not None:
        row |= {"test": 100 * accuracy}
    for split in SPLITS:
        row |= compare(row, split, theirs["pretrained_on_full_imagenet"][split])
    rows.append(row)
    columns = [column for column in COLUMNS if column.key != "width"]
    return Table(FIGURE1, "Figure 1: AlexNet on ImageNet snakes", columns, rows, CHOICE)
