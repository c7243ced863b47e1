"""Imports go strictly downward, and what must not import TensorFlow does not."""

import ast
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).resolve().parent.parent / "ntk_tf"
FLOORS = {
    "__init__": 0,
    "choices": 0,
    "rules": 1,
    "config": 2,
    "runs": 2,
    "private": 0,
    "signals": 0,
    "startup": 0,
    "data": 3,
    "models": 3,
    "reporting": 3,
    "linearization": 4,
    "ntk": 4,
    "training": 4,
    "experiments": 5,
    "sweeps": 6,
    "cli": 7,
    "main": 8,
    "report": 8,
    "sweep": 8,
}
MODULES = sorted(PACKAGE.rglob("*.py"))


def part_of(name):
    """The part of the package that a module name such as ntk_tf.data.mnist belongs to."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def module_name(path):
    relative = path.relative_to(PACKAGE.parent).with_suffix("")
    return ".".join(relative.parts).removesuffix(".__init__")


def imported(path):
    """Names of the package's modules that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("ntk_tf"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ntk_tf"):
            for alias in node.names:
                inner = PACKAGE.parent / node.module.replace(".", "/") / alias.name
                is_module = inner.with_suffix(".py").exists() or inner.is_dir()
                yield f"{node.module}.{alias.name}" if is_module else node.module


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_go_down(path):
    here = part_of(module_name(path))
    for name in imported(path):
        there = part_of(name)
        # Any module may read the package's version; a part may import within itself.
        if there not in (here, "__init__"):
            assert FLOORS[there] < FLOORS[here], f"{path} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_flags_are_defined_in_one_place(path):
    if path.name != "cli.py":
        assert "absl" not in path.read_text().replace("absl::", "").replace('"absl"', "")


@pytest.mark.parametrize(
    "module", ["ntk_tf", "ntk_tf.cli", "ntk_tf.report", "ntk_tf.main", "ntk_tf.sweep"]
)
def test_starts_without_tensorflow(module):
    code = f"import sys, {module}; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_no_cycles():
    graph = {module_name(path): set(imported(path)) for path in MODULES}
    done, path = set(), []

    def visit(name):
        assert name not in path, f"cycle: {' -> '.join([*path, name])}"
        if name in done or name not in graph:
            return
        path.append(name)
        for other in graph[name]:
            # A package's __init__ imports its own modules; they import siblings, not the package.
            visit(other)
        path.pop()
        done.add(name)

    for name in graph:
        visit(name)
