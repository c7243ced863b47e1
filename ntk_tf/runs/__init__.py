"""A run directory: its files, its owner, its result, its checkpoints. Imports no TensorFlow.

- `config.json`: every resolved setting, and the classes where the data decided on them
- `metrics.csv`: `METRICS_COLUMNS`, a row per epoch, or what an experiment says
- `result.json`: written last; its presence means that the run is finished
- `tensorboard/`: event files, the rows of metrics.csv as scalars
- `checkpoint/`: the newest complete states
- `pretraining/`: the training before the run, if there was one: a run directory of its own
- `.lock`: held by the process at work there
"""

from ntk_tf.runs.directory import (
    PRETRAINING,
    check_workdir,
    is_owned,
    open_workdir,
    own,
    relocate_data,
)
from ntk_tf.runs.files import (
    DamagedError,
    RunDirectoryError,
    WriteError,
    atomic_write,
    attempt,
    insist,
    read_arrays,
    read_json,
    read_table,
    write_arrays,
    write_json,
    write_table,
)
from ntk_tf.runs.history import History
from ntk_tf.runs.provenance import provenance
from ntk_tf.runs.result import METRICS_COLUMNS, is_finished, number, read_result, renamed

__all__ = [
    "METRICS_COLUMNS",
    "PRETRAINING",
    "DamagedError",
    "History",
    "RunDirectoryError",
    "WriteError",
    "atomic_write",
    "attempt",
    "check_workdir",
    "insist",
    "is_finished",
    "is_owned",
    "number",
    "open_workdir",
    "own",
    "relocate_data",
    "provenance",
    "read_arrays",
    "read_json",
    "read_result",
    "read_table",
    "renamed",
    "write_arrays",
    "write_json",
    "write_table",
]
