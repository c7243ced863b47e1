"""What `make dist` builds: installed from the wheel in an empty folder, the programs run."""

import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile

import pytest
import setuptools

import ntk_tf

ROOT = pathlib.Path(__file__).resolve().parent.parent
#: Folders of the checkout that are not its own.
OUTPUTS = {"build", "dist", "report", "results", "runs", "site"}
#: The main job, a sweep from a packaged flagfile, a report; one process, for one TensorFlow.
PROGRAM = """
import pathlib, sys
import ntk_tf, ntk_tf.main, ntk_tf.sweep, ntk_tf.report
assert pathlib.Path(ntk_tf.__file__).is_relative_to(sys.path[1]), ntk_tf.__file__
for program, *flags in (
    ("main", "--dataset=digits", "--max_steps=5", "--linearized"),
    ("sweep", "--flagfile=flags/smoke.flags", "--seeds=0", "--dry_run"),
    ("report", "--output_dir=report"),
):
    sys.argv = [program, *flags]
    code = getattr(ntk_tf, program).main()
    assert code == 0, (program, code)
"""


def build(target, kind):
    """The wheel or the source distribution of a copy of the checkout."""
    source = target / "source"
    if not source.exists():
        source.mkdir()
        for path in ROOT.iterdir():
            if path.name not in OUTPUTS and not path.name.startswith("."):
                copy = shutil.copytree if path.is_dir() else shutil.copy
                copy(path, source / path.name)
    backend = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["build-backend"]
    code = f"import sys, {backend} as b; b.build_{kind}(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, target], cwd=source, check=True, stdout=-3)
    return next(target.glob(f"ntk_tf-{ntk_tf.__version__}*{'.whl' if kind == 'wheel' else '.gz'}"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    if int(setuptools.__version__.split(".")[0]) < 77:
        pytest.skip(f"setuptools {setuptools.__version__} is too old to build with; 77 is needed")
    return build(tmp_path_factory.mktemp("dist"), "wheel")


def test_programs_of_the_wheel_run_in_an_empty_folder(wheel, tmp_path):
    installed, empty = tmp_path / "installed", tmp_path / "empty"
    empty.mkdir()
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", installed, wheel], check=True)
    assert (installed / "bin/ntk-tf").exists()
    environment = os.environ | {"PYTHONPATH": str(installed)}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 runs under runs/smoke" in done.stdout
    assert (empty / "report/index.html").exists()
    assert not (empty / "runs/smoke").exists()


def test_archives_hold_what_they_should(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    flagfiles = {path.name for path in (ROOT / "flags").glob("*.flags")}
    assert {pathlib.PurePath(n).name for n in names if n.startswith("ntk_tf/flags/")} == flagfiles
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "ntk_tf").rglob("*.py")}
    assert sources <= names
    assert {pathlib.PurePath(name).parts[0] for name in names} == {
        "ntk_tf",
        f"ntk_tf-{ntk_tf.__version__}.dist-info",
    }
    with tarfile.open(build(wheel.parent, "sdist")) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    needed = {"Makefile", "SECURITY.md", "docs/extending.md", "tests/helpers.py", "setup.py"}
    assert needed | sources | {f"flags/{name}" for name in flagfiles} <= inside


def test_versions_agree():
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {ntk_tf.__version__}\n" in citation
    assert f"\n## [{ntk_tf.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
