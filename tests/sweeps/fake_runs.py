"""Runs that behave as they are told, for tests of what carries them out."""

import dataclasses
import sys

from ntk_tf.sweeps.grid import Run

#: Takes the run directory, notes the attempt, then behaves as its first argument says.
FAKE = """
import json, pathlib, sys, time
from ntk_tf import runs

kind, workdir = sys.argv[1], pathlib.Path(sys.argv[2])
workdir.mkdir(parents=True, exist_ok=True)
runs.own(workdir)
attempts = len(list(workdir.glob("attempt*")))
(workdir / f"attempt{attempts}").touch()
print("hello from", kind)
if kind == "fails" or (kind == "flaky" and attempts == 0):
    print("the reason")
    sys.exit(3)
if kind == "refused":
    sys.exit(2)
if kind == "stopped" and attempts < 4:
    sys.exit(75)
if kind == "slow" or (kind == "slow at first" and attempts == 0):
    time.sleep(60)
status = "diverged" if kind == "diverges" else "completed"
result = {"status": status, "test_accuracy": 0.5, "diverged_at_step": 7}
(workdir / "result.json").write_text(json.dumps(result))
"""


@dataclasses.dataclass(frozen=True)
class FakeRun(Run):
    kind: str = "fine"

    @property
    def command(self):
        return [sys.executable, "-c", FAKE, self.kind, str(self.options.workdir)]


def attempts(entry):
    return len(list(entry.workdir.glob("attempt*")))
