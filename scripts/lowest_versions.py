"""Print the lowest versions that pyproject.toml allows, as constraints for pip.

    python scripts/lowest_versions.py dev > lowest.txt
    python -m venv lowest && lowest/bin/pip install -c lowest.txt -e ".[dev]"
    lowest/bin/python -m pytest -n 2

tries the package with them; what `make install` brings are the newest.
"""

import pathlib
import re
import sys
import tomllib

PROJECT = pathlib.Path(__file__).resolve().parent.parent / "pyproject.toml"


def lowest(requirement: str) -> str | None:
    """`name==version` for a requirement `name>=version,...`; None for another."""
    found = re.match(r"([\w.-]+)(?:\[.*\])?>=([\w.]+)", requirement)
    return f"{found[1]}=={found[2]}" if found else None


def constraints(extras: list[str]) -> list[str]:
    """Of the dependencies and of some extras."""
    project = tomllib.loads(PROJECT.read_text())["project"]
    wanted = list(project["dependencies"])
    for extra in extras:
        wanted += project["optional-dependencies"][extra]
    return [line for line in map(lowest, wanted) if line]


if __name__ == "__main__":
    print("\n".join(constraints(sys.argv[1:])))
