"""Scripts are not run here, but what they take from the package is there."""

import ast
import importlib
import importlib.util
import pathlib

import pytest

SCRIPTS = sorted((pathlib.Path(__file__).parents[1] / "scripts").rglob("*.py"))


def taken(path):
    """The names that a script imports from the package, each with its module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ntk_tf"):
            yield from ((node.module, alias.name) for alias in node.names)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_imports_are_there(path):
    for module, name in taken(path):
        here = hasattr(importlib.import_module(module), name)
        assert here or importlib.util.find_spec(f"{module}.{name}"), f"{module} has no {name}"


def test_some_scripts_use_the_package():
    assert sum(bool(list(taken(path))) for path in SCRIPTS) >= 4
