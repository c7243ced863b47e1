"""What the kernel of a network knows after some training, beside the network (Long 2021)."""

from collections.abc import Iterator, Sequence, Set
from typing import Any

from ntk_tf.reporting.collect import Record
from ntk_tf.reporting.grouping import Study, differences, in_words
from ntk_tf.reporting.tables import Column, Table, mean_cells

_VALUES = {
    "kernel_test": ("kernel", "test_accuracy", "kernel, test"),
    "kernel_plain_test": ("kernel", "test_accuracy_without_ridge", "without ridge"),
    "network_test": ("network", "test_accuracy", "network, test"),
    "kernel_train": ("kernel", "train_accuracy", "kernel, train"),
    "network_train": ("network", "train_accuracy", "network, train"),
}
COLUMNS = [
    Column("width", "width", "value"),
    Column("updates", "updates", "value"),
    Column("seeds", "seeds", "value"),
    *(Column(key, heading, "mean") for key, (_, _, heading) in _VALUES.items()),
    Column("settings", "other settings"),
]
#: The curves of `starts.draw`.
CURVES = (("kernel", "regression with the kernel"), ("network", "network"))
NOTE = (
    "Accuracies in percent, mean and standard deviation over seeds: of regression with the kernel"
    " alone that the network has after so many updates, with a ridge chosen by leave-one-out and"
    " without, and of the network itself. 0 updates is the initialization. After training"
    " leave-one-out is no estimate, since the kernel has learnt the labels that it leaves out."
)
#: What rows tell apart, or say by themselves.
_TOLD = {"pretrain_steps", "from_run", "kernel_regression"}


def table(name: str, heading: str, together: Sequence[Study]) -> Table:
    """A row a width and number of updates; none of spectra alone.

    Args:
        name: of the table's files.
        heading: its title.
        together: runs of `--experiment=rank` with one architecture on one dataset.
    """
    groups: dict[tuple[str, int, int], dict[str, dict[int, float]]] = {}
    records = [record for study in together for record in study.records]
    several = _of_several_origins(records)
    for record in records:
        for updates, key, accuracy in _values(record):
            settings = _settings(record, _TOLD - {"from_run"} if several else _TOLD)
            place = settings, record.config.width, updates
            by_seed = groups.setdefault(place, {}).setdefault(key, {})
            by_seed[record.config.seed] = 100 * accuracy
    rows = [_row(*place, found) for place, found in sorted(groups.items())]
    shown = [c for c in COLUMNS if c.key != "settings" or any(row["settings"] for row in rows)]
    return Table(name, heading, shown, rows, NOTE)


def _values(record: Record) -> Iterator[tuple[int, str, float]]:
    """Updates, key of the column and accuracy of all that a run says."""
    for row in record.result.get("accuracies", ()):
        for key, (of, name, _) in _VALUES.items():
            if row["of"] == of:
                yield row["updates"], key, row[name]


def _of_several_origins(records: Sequence[Record]) -> bool:
    """Whether a row would be of networks that were trained in several ways, by one seed's."""
    origins: dict[tuple[str, int, int, int], set[str | None]] = {}
    for record in records:
        for updates, _, _ in _values(record):
            place = _settings(record, _TOLD), record.config.width, updates, record.config.seed
            origins.setdefault(place, set()).add(record.config.from_run)
    return any(len(found) > 1 for found in origins.values())


def _settings(record: Record, told: Set[str]) -> str:
    own = differences(record.config)
    return in_words({name: value for name, value in own.items() if name not in told})


def _row(
    settings: str, width: int, updates: int, found: dict[str, dict[int, float]]
) -> dict[str, Any]:
    seeds = len({seed for by_seed in found.values() for seed in by_seed})
    row: dict[str, Any] = {"width": width, "updates": updates, "seeds": seeds, "settings": settings}
    for key, by_seed in found.items():
        row |= mean_cells(key, list(by_seed.values()))
    return row
