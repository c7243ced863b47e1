"""What the code of a user's network is, so that a run does not go on with another one."""

import ast
import hashlib
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence

#: Parts of paths of installed packages, whose versions are recorded and stand for their code.
_INSTALLED = ("site-packages", "dist-packages")


def fingerprint(arch: str) -> str | None:
    """A checksum of the files that a network is made by, without importing them.

    These are the module's, its packages' and those of the modules that they import from the same
    place. Comments and blank lines do not count.

    Args:
        arch: `PACKAGE.MODULE:FUNCTION`.

    Returns:
        Eight hexadecimal digits; None for an installed module, or where there is no such file.
    """
    module = arch.partition(":")[0]
    for root in map(pathlib.Path, ("", *sys.path)):
        if _path(root, module):
            break
    else:
        return None
    if set(_INSTALLED) & set(root.absolute().parts):
        return None
    found: dict[str, str] = {}
    _collect(root, module, found)
    return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()[:8]


def _path(root: pathlib.Path, module: str) -> pathlib.Path | None:
    """The file of a module in a folder of the path, if it is there."""
    place = root.joinpath(*module.split("."))
    candidates = (place / "__init__.py", place.with_suffix(".py"))
    return next(filter(os.path.isfile, candidates), None)


def _collect(root: pathlib.Path, module: str, found: dict[str, str]) -> None:
    """Add the code of a module, its packages, and what they import from the same root."""
    parts = module.split(".")
    for name in (".".join(parts[: i + 1]) for i in range(len(parts))):
        path = _path(root, name)
        if name in found or path is None:
            continue
        text = (
            path.read_text(encoding="utf-8", errors="replace") if os.access(path, os.R_OK) else ""
        )
        lines = (line.rstrip() for line in text.splitlines())
        found[name] = "\n".join(x for x in lines if x and not x.lstrip().startswith("#"))
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        for imported in _imported(text, package.split(".") if package else []):
            _collect(root, imported, found)


def _imported(text: str, package: Sequence[str]) -> Iterator[str]:
    """The modules that some code may import; none of code that is no Python."""
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except (SyntaxError, ValueError):
        return
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = [*above, *([node.module] if node.module else [])]
            yield from (".".join([*base, alias.name]) for alias in node.names)
