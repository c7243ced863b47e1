"""What a run has recorded so far, and the clock of all its processes."""

import dataclasses
import time
from typing import Any


@dataclasses.dataclass
class History:
    """What a run has recorded so far.

    Attributes:
        tables: rows by the name of the table that they belong to.
        seconds: spent by earlier processes.
    """

    tables: dict[str, list[dict[str, Any]]] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    _started: float = dataclasses.field(default_factory=time.monotonic)

    def table(self, name: str) -> list[dict[str, Any]]:
        """The rows of a table, to read and to add to."""
        return self.tables.setdefault(name, [])

    def elapsed(self) -> float:
        """Seconds spent on the run by all its processes."""
        return self.seconds + time.monotonic() - self._started
