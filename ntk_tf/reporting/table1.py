"""The paper's Table 1: test accuracies of networks and linearizations, ours beside the quoted."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ntk_tf.experiments import costs
from ntk_tf.reporting import paper
from ntk_tf.reporting.grouping import Study, choose, in_words
from ntk_tf.reporting.paper import LIMIT, LINEARIZATION, NETWORK, Model
from ntk_tf.reporting.studies import CHOICE, closest, compare
from ntk_tf.reporting.tables import Column, Table

_SIDES = {"standard": "network", "linearized": "linearized"}
#: What stands for the linearization of a system that the paper quotes, the first that was run, and
#: its name in the remark; Chizat et al. (2019) train lazily by a scaling factor of 1e7.
_LINEAR = {
    Model(centered=True, alpha=1e7): "lazy: alpha 1e7",
    LIMIT: "linearized: centered",
    LINEARIZATION: "linearized: not centered",
}
NOTE = CHOICE.replace("Accuracies", "Test accuracies") + (
    " Of VGG-11 and ResNet-18 the paper quotes Chizat et al. (2019), of CNN-V and CNN-GAP Arora et"
    " al. (2019); their widths are those of the sources. Below each are our runs of it at other"
    " widths and depths; remarks name the settings that are not the source's."
)


def table(studies: Sequence[Study]) -> Table:
    """Table 1 with our runs.

    Args:
        studies: as `grouping.studies` returns them.
    """
    columns = [
        Column("arch", "architecture"),
        Column("width", "width", "value"),
        Column("dataset", "dataset"),
    ]
    for side, title in _SIDES.items():
        columns += [
            Column(side, title, "mean"),
            Column(f"paper_{side}", f"paper's {title}", "percent"),
            Column(f"{side}_difference", "difference", "difference"),
        ]
    columns.append(Column("remark", "remark"))
    entries = paper.numbers()["table1_test_accuracy"]
    rows = [row for entry in entries for row in _rows(entry, studies)]
    return Table("table1_test_accuracy", "Table 1", columns, rows, NOTE)


def _rows(entry: Mapping[str, Any], studies: Sequence[Study]) -> Iterator[dict[str, Any]]:
    """An entry's row; of a system that the paper quotes, a row for each other size of ours too."""
    if "settings" not in entry:
        study = closest(studies, entry["arch"], entry["dataset"])
        yield _compared(entry, study, [study.note] if study else [], {LINEARIZATION: ""})
        return
    ours = _by_size(entry, studies)
    own = ours.pop((entry["settings"].get("arch_args"), entry["width"]), None)
    yield _compared(entry, own, [entry["note"], *_deviations(own, entry)], _LINEAR)
    for (_, width), study in ours.items():
        row = _row(entry, study, width, _deviations(study, entry), _LINEAR)
        yield row | {"arch": study.model_title}


def _by_size(
    entry: Mapping[str, Any], studies: Sequence[Study]
) -> dict[tuple[str | None, int], Study]:
    """The study closest to the source's settings, by arguments and width; of equals the largest."""
    found: dict[tuple[str | None, int], Study] = {}
    of_system = [s for s in studies if (s.arch, s.dataset) == (entry["arch"], entry["dataset"])]
    for study in sorted(of_system, key=lambda s: (len(_deviations(s, entry)), -_pictures(s))):
        for width in {setting.width for setting in study.settings}:
            found.setdefault((study.differences.get("arch_args"), width), study)
    return dict(sorted(found.items(), key=lambda item: (item[0][1], item[0][0] or "")))


def _pictures(study: Study) -> int:
    return costs.examples(study.records[0].config)[0]


def _deviations(study: Study | None, entry: Mapping[str, Any]) -> list[str]:
    """The settings that are not the source's, in words; none for no study."""
    if study is None:
        return []
    config, wanted = study.records[0].config, entry["settings"]
    found = {name: getattr(config, name) for name in wanted} | study.differences
    return [in_words({name: v}) for name, v in found.items() if v != wanted.get(name)]


def _compared(
    entry: Mapping[str, Any],
    study: Study | None,
    remarks: Sequence[str],
    linear: Mapping[Model, str],
) -> dict[str, Any]:
    """An entry's row, with its numbers beside ours."""
    row = _row(entry, study, entry["width"], remarks, linear)
    row["arch"] = entry.get("title", row["arch"])
    for side in _SIDES:
        row |= compare(row, side, entry[side])
    return row


def _row(
    entry: Mapping[str, Any],
    study: Study | None,
    width: int,
    remarks: Sequence[str],
    linear: Mapping[Model, str],
) -> dict[str, Any]:
    """What a study gives at a width."""
    row: dict[str, Any] = {
        "arch": paper.arch_name(entry["arch"]),
        "width": width,
        "dataset": paper.dataset_name(entry["dataset"]),
    }
    settings = study.settings if study else ()
    at_width = [setting for setting in settings if setting.width == width]
    network = choose([setting for setting in at_width if setting.model == NETWORK])
    lazy = [choose([s for s in at_width if s.model == model]) for model in linear]
    for side, chosen in zip(_SIDES, (network, next(filter(None, lazy), None)), strict=True):
        if chosen:
            row |= {side: chosen.mean("test"), f"{side}_std": chosen.std("test")}
            remarks = [*remarks, linear.get(chosen.model, "")]
    return row | {"remark": "; ".join(filter(None, remarks))}
