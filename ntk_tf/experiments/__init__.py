"""What `--experiment` names; importing this imports no TensorFlow.

Another experiment is a folder here, whose `EXPERIMENT` is its card, and a line below.
"""

import importlib

NAMES = (
    "train",
    "trajectory",
    "rank",
    "converged",
    "infinite",
    "baseline",
    "pretrained",
)
EXPERIMENTS = {name: importlib.import_module(f"{__name__}.{name}").EXPERIMENT for name in NAMES}
