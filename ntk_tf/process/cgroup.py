"""Limits of the control group that this process is in: of a container, or of a SLURM job.

The system's own numbers of memory and cores are those of the whole machine there. Version 2 of
control groups has a file for each limit and number in one tree, version 1 a tree for each resource;
a group is bound by the limits of all above it.
"""

import pathlib
from collections.abc import Iterator

_ROOT = pathlib.Path("/sys/fs/cgroup")
_GROUPS = pathlib.Path("/proc/self/cgroup")
#: Version 1 writes its largest number where there is no limit.
_NONE = 2**60


def free_memory() -> int | None:
    """Bytes that may still be taken; None without a limit. Cached files count as free."""
    found = []
    for folder in _folders(""):
        limit, used = _number(folder / "memory.max"), _number(folder / "memory.current")
        found.append((folder, limit, used, "inactive_file"))
    for folder in _folders("memory"):
        limit = _number(folder / "memory.limit_in_bytes")
        used = _number(folder / "memory.usage_in_bytes")
        found.append((folder, limit, used, "total_inactive_file"))
    free = [
        max(0, limit - used + (_in_table(folder / "memory.stat", cached) or 0))
        for folder, limit, used, cached in found
        if limit is not None and used is not None and limit < _NONE
    ]
    return min(free, default=None)


def cores() -> float | None:
    """How many cores' time may be used; None without a limit."""
    found: list[tuple[str, str]] = []
    for folder in _folders(""):
        quota, _, period = _text(folder / "cpu.max").partition(" ")
        found.append((quota, period))
    for folder in _folders("cpu"):
        found.append((_text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")))
    shares = [
        int(quota) / int(period)
        for quota, period in found
        if quota.isdigit() and period.isdigit() and int(period)
    ]
    return min(shares, default=None)


def _folders(resource: str) -> Iterator[pathlib.Path]:
    """The folders of the group and of all above it; in a container perhaps of the root alone.

    Args:
        resource: empty for version 2.
    """
    for line in _text(_GROUPS).splitlines():
        _, resources, name = line.split(":", 2)
        if resource in resources.split(","):
            top = _ROOT / resources if resource else _ROOT
            top = top if top.is_dir() else _ROOT / resource
            group = pathlib.PurePosixPath(name.lstrip("/"))
            yield from dict.fromkeys(top / part for part in (group, *group.parents))


def _number(path: pathlib.Path) -> int | None:
    text = _text(path)
    return int(text) if text.isdigit() else None


def _in_table(path: pathlib.Path, name: str) -> int | None:
    rows = dict(line.split(" ", 1) for line in _text(path).splitlines() if " " in line)
    return int(rows[name]) if rows.get(name, "").isdigit() else None


def _text(path: pathlib.Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
