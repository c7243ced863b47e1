"""Paths as users write them."""

import os
import pathlib


def expanded(path: str | os.PathLike[str]) -> pathlib.Path:
    """A path with a home directory for its `~` or `~user`; as it is where there is no such home."""
    return pathlib.Path(os.path.expanduser(path))
