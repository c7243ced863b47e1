"""What a run has recorded so far, and the clock of all its processes."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping
from typing import Any


@dataclasses.dataclass
class History:
    """What a run has recorded so far.

    Attributes:
        tables: rows by the name of the table that they belong to.
        seconds: spent by earlier processes.
        parts: seconds of all processes by the part of the work; the rest is saving and recording.
        started: when this process began with the run, by `time.monotonic`.
    """

    tables: dict[str, list[dict[str, Any]]] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    parts: dict[str, float] = dataclasses.field(default_factory=dict)
    started: float = dataclasses.field(default_factory=time.monotonic)

    def table(self, name: str) -> list[dict[str, Any]]:
        """The rows of a table, to read and to add to."""
        return self.tables.setdefault(name, [])

    def elapsed(self) -> float:
        """Seconds spent on the run by all its processes."""
        return self.seconds + time.monotonic() - self.started

    def add(self, part: str, seconds: float) -> None:
        """Count seconds to a part of the work."""
        self.parts[part] = self.parts.get(part, 0.0) + seconds

    @contextlib.contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Count what happens inside to a part of the work.

        Yields:
            Nothing.
        """
        began = time.monotonic()
        yield
        self.add(part, time.monotonic() - began)

    def saved(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        return {"tables": self.tables, "seconds": self.elapsed(), "seconds_in": self.parts}

    @classmethod
    def restored(cls, meta: Mapping[str, Any]) -> "History":
        """Of what `saved` returned; before version 0.2 there were no parts."""
        return cls(meta["tables"], meta["seconds"], meta.get("seconds_in", {}))

    def times(self) -> dict[str, Any]:
        """What result.json says of the time: all of it, and its parts."""
        parts = {name: round(seconds, 3) for name, seconds in self.parts.items()}
        return {"seconds": round(self.elapsed(), 3), "seconds_in": parts}
