"""Imports go strictly downward, and what must not import TensorFlow does not."""

import ast
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).resolve().parent.parent / "ntk_tf"
#: Imports go strictly downward from floor to floor, and on one floor only within a part.
FLOORS = {
    "catalogue": 0,
    "private": 0,
    "process": 0,
    "settings": 1,
    "runs": 1,
    "plots": 2,
    "data": 2,
    "models": 2,
    "linearization": 3,
    "training": 3,
    "ntk": 4,
    "experiments": 5,
    "reporting": 6,
    "sweeps": 6,
    "cli": 7,
    "main": 8,
    "__main__": 9,
    "report": 8,
    "sweep": 8,
}
#: Inside a part: what a module, by its first name in the part, may not import.
FORBIDDEN = {
    "experiments": {
        "experiment": {"size", "costs", "architecture", "network", "inputs", "resolving"},
        "architecture": {"costs", "inputs", "network", "size"},
        "inputs": {"network", "size"},
        "network": {"inputs", "size"},
    },
    "reporting": {
        "collect": {"grouping", "studies", "page", "write"},
        "grouping": {"studies", "page", "write"},
        "tables": {"studies", "page", "write"},
    },
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
def test_parts_keep_their_own_order(path):
    part, _, inner = module_name(path).removeprefix("ntk_tf.").partition(".")
    forbidden = FORBIDDEN.get(part, {}).get(inner.split(".")[0], set())
    for name in imported(path):
        there = name.split(".")
        if there[1:2] == [part] and len(there) > 2:
            assert there[2] not in forbidden, f"{path} imports {name}"


def from_absl(path):
    """Whether a file imports absl, which defines flags."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        if any(name.split(".")[0] == "absl" for name in names):
            return True
    return False


def test_flags_are_defined_in_one_place():
    assert [path.name for path in MODULES if from_absl(path)] == ["cli.py"]


#: A program to its end; it exits with 9 if it has imported TensorFlow.
PROGRAM = """
import importlib, sys
try:
    importlib.import_module(f"ntk_tf.{sys.argv[0]}").main()
except SystemExit:
    pass
sys.exit(9 * ("tensorflow" in sys.modules or "keras" in sys.modules))
"""


@pytest.mark.parametrize(
    "line",
    [
        "main --help",
        "main --widht=2",
        "main --width=0",
        "main --dataset=nothing",
        "main --decay_toward=zero",
        "sweep --help",
        "sweep --widths=0",
        "sweep --dataset=digits --emit_commands",
        "report --help",
        "report --runs_dir=/nowhere",
        "report --runs_dir={results}/figure3/runs",
        "report --runs_dir={results}/figure3/runs --output_dir={folder}/report",
        "main --version",
        "main --dataset=digits --dry_run",
        "main --dataset=digits --arch=resnet18 --linearized --dry_run",
        "main --dataset=digits --experiment=trajectory --dry_run",
        "main --dataset=digits --experiment=rank --dry_run",
        "main --dataset=digits --experiment=converged --dry_run",
        "main --dataset=digits --experiment=baseline --dry_run",
        "main --dataset=mnist --data_dir={folder} --manual_dir={folder}",
        "main --dataset=digits --train_examples=1438",
        "main --dataset=digits --arch_args=kernel_size=20",
        "main --dataset=digits --arch_args=kernel=3",
        "main --dataset=digits --workdir={results}",
        "sweep --dataset=digits --widths=1,2 --dry_run",
    ],
)
def test_answers_without_tensorflow(line, tmp_path):
    line = line.format(results=PACKAGE.parent / "results", folder=tmp_path)
    code = f"import sys; sys.argv = {line.split()!r}\n{PROGRAM}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout or done.stderr.startswith("error: ")


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
