"""The command line of a sweep: which runs it stands for, and what is refused."""

import dataclasses
import io
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest
from rich.console import Console

from ntk_tf import cli
from ntk_tf.experiments import size
from ntk_tf.process import devices
from ntk_tf.reporting import paper
from ntk_tf.settings import SettingError
from ntk_tf.sweeps import environments, listing

FLAGS = sorted((pathlib.Path(__file__).resolve().parents[2] / "flags").glob("*.flags"))
FIGURES = {
    "figure1_alexnet_losses",
    "figure2_trajectories",
    "figure3_lenet_mnist",
    "figure4_lenet_cifar10",
    "figure5_effective_rank_lenet",
    "figure5_effective_rank_alexnet",
    "figure6_alexnet_snakes",
    "smoke",
}


def sweep(*args):
    return cli.parse_sweep(["sweep", *args])


def test_every_figure_has_a_flagfile():
    assert {path.stem for path in FLAGS} >= FIGURES


@pytest.mark.parametrize("path", FLAGS, ids=lambda path: path.stem)
def test_flagfile_is_read_by_the_program_that_it_names(path):
    """An option that nothing reads is refused, so parsing is the whole test."""
    text = path.read_text()
    assert text.startswith("# ")
    program = re.search(rf"python -m ntk_tf\.(\w+) --flagfile=flags/{path.stem}\.flags", text)[1]
    parse = {"main": cli.parse, "sweep": cli.parse_sweep}[program]
    parse([program, f"--flagfile={path}"])


@pytest.mark.parametrize("path", FLAGS, ids=lambda path: path.stem)
def test_flagfile_says_what_to_expect(path):
    comments = "\n".join(line for line in path.read_text().splitlines() if line[:1] == "#")
    expected = comments.partition("Expected time")[2]
    assert re.search("(second|minute|hour)s?[ ,;.]", expected)
    assert "paper" in comments


@pytest.mark.parametrize("entry", paper.numbers()["table1_test_accuracy"][4:8])
def test_flagfile_opens_with_the_sources_number(entry):
    texts = [p.read_text() for p in FLAGS if f"table1_{entry['arch']}" in p.stem]
    assert texts
    for text in texts:
        assert all(str(entry[side]) in text for side in ("standard", "linearized")) or (
            "those of its Figure 3(b)" in text.replace("\n# ", " ")
        )


@pytest.mark.parametrize("path", FLAGS, ids=lambda path: path.stem)
def test_flagfile_passes_a_dry_run(path):
    """Of its largest run, whose network is built without weights."""
    if f"ntk_tf.main --flagfile=flags/{path.stem}" in path.read_text():
        assert size.estimate(cli.parse(["main", f"--flagfile={path}"]).config).parameters > 0
        return
    found = sweep(f"--flagfile={path}")
    screen = io.StringIO()
    largest = dataclasses.replace(found, runs=found.runs[-1:])
    listing.describe(largest, 1, ["0"], Console(file=screen, width=300))
    assert found.runs[-1].name in screen.getvalue()
    assert "1 run under" in screen.getvalue()


def test_paper_sweeps_have_the_papers_size():
    by_name = {
        path.stem: sweep(f"--flagfile={path}") for path in FLAGS if "sweep" in path.read_text()
    }
    sizes = {name: len(found.runs) for name, found in by_name.items()}
    assert sizes["figure3_lenet_mnist"] == sizes["figure4_lenet_cifar10"] == 6 * 2 * 3
    assert sizes["figure6_alexnet_snakes"] == 4 * 2 * 4
    assert sizes["figure1_alexnet_losses"] == 2 * 3
    assert sizes["smoke"] == 16
    drops = {run.config.lr_drop_every for run in by_name["figure4_lenet_cifar10"].runs}
    assert drops == {30}


def test_both_models_by_default():
    found = sweep("--dataset=digits", "--widths=1,3", "--seeds=4")
    points = [(run.config.width, run.config.linearized) for run in found.runs]
    assert points == [(1, False), (1, True), (3, False), (3, True)]
    assert {run.config.seed for run in found.runs} == {4}
    assert len({run.options.workdir for run in found.runs}) == 4


def test_an_axis_is_of_the_runs_that_read_it():
    """A linearization has no alpha, and is one run beside those of all alphas."""
    found = sweep("--dataset=digits", "--centered", "--alphas=.1,1e7", "--seeds=0,1").runs
    of = [(r.config.linearized, r.config.alpha, r.config.precision) for r in found]
    assert of == [
        *[(False, 0.1, "float32")] * 2,
        *[(False, 1e7, "float64")] * 2,
        *[(True, 1.0, "float32")] * 2,
    ]
    assert [run.config.seed for run in found] == [0, 1] * 3
    found = sweep("--dataset=digits", "--pretrain_steps=0,5").runs
    assert [(r.config.linearized, r.config.pretrain_steps) for r in found] == [
        *[(False, 0), (True, 0), (True, 5)]
    ]
    for unread in (["--alphas=.1,10"], ["--centered", "--models=linearized", "--alphas=.1,10"]):
        with pytest.raises(SettingError, match="--alpha=0.1: read only with --centered and"):
            sweep("--dataset=digits", *unread)


def test_single_values_reach_every_run():
    found = sweep("--models=linearized", "--widths=1,2", "--decay_toward=zero", "--notrain_biases")
    assert {run.config.decay_toward for run in found.runs} == {"zero"}
    assert {run.config.train_biases for run in found.runs} == {False}
    for run in found.runs:
        assert {"--decay_toward=zero", "--notrain_biases"} <= set(run.arguments)
    with pytest.raises(SettingError, match="--models=linearized"):
        sweep("--decay_toward=zero")


def test_commands_resolve_to_the_runs(tmp_path):
    """What is printed for a shell is what would run."""
    found = sweep("--widths=1,2", "--losses=cross_entropy", f"--runs_dir={tmp_path / 'a b'}")
    for line, run in zip(listing.commands(found.runs), found.runs, strict=True):
        words = shlex.split(line)
        assert words[:3] == ["python", "-m", "ntk_tf.main"]
        command = cli.parse(words[2:])
        assert (command.config, command.options) == (run.config, run.options)


@pytest.mark.parametrize(
    "args",
    [
        ["--widths=0"],
        ["--widths=1,1"],
        ["--widths=1,two"],
        ["--widths="],
        ["--models=standard,linear"],
        ["--learning_rates=0.1,nan"],
        ["--learning_rates=-1"],
        ["--seeds=0.5"],
        ["--losses=hinge"],
        ["--jobs=0"],
        ["--jobs=two"],
        ["--executor=cloud"],
        ["--slurm_minutes=0"],
        ["--learning_rate=0.1"],
        ["--workdir=x"],
        ["--epochs=0"],
        ["--weights=x.npz"],
    ],
)
def test_refusals_name_flag_and_value(args):
    with pytest.raises(SettingError) as error:
        sweep("--dataset=digits", *args)
    assert "\n" not in str(error.value)
    assert args[0].split("=")[0].removeprefix("--") in str(error.value)


def test_bad_sweep_writes_nothing(tmp_path):
    command = [sys.executable, "-m", "ntk_tf.sweep", f"--runs_dir={tmp_path}/r", "--widths=0"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "--widths=0" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_jobs_share_the_cores():
    two = environments.of_jobs(2, [], {"A": "b", "OMP_NUM_THREADS": "7"})
    threads = str(max(1, devices.cores() // 2))
    assert two[0] == two[1]
    assert two[0]["TF_NUM_INTRAOP_THREADS"] == two[0]["TF_NUM_INTEROP_THREADS"] == threads
    assert two[0]["OMP_NUM_THREADS"] == "7"
    assert environments.of_jobs(1, [], {"A": "b"}) == [{"A": "b"}]


def test_jobs_take_turns_with_the_gpus():
    names = [env["CUDA_VISIBLE_DEVICES"] for env in environments.of_jobs(3, ["4", "6"], {})]
    assert names == ["4", "6", "4"]
    assert devices.gpus({"CUDA_VISIBLE_DEVICES": "2, 5"}) == ("2", "5")
    assert devices.gpus({"CUDA_VISIBLE_DEVICES": "-1"}) == ()


def test_dry_run_lists_every_run_and_writes_nothing(tmp_path):
    command = [sys.executable, "-m", "ntk_tf.sweep", f"--runs_dir={tmp_path}/r", "--dry_run"]
    done = subprocess.run([*command, "--widths=1,60"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("lenet_x1_", "linlenet_x1_", "lenet_x60_", "linlenet_x60_", "155,592,970"):
        assert name in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flag", "told"),
    [
        ("--experiment=infinite", "1 run .* how long they take is not known before"),
        ("--experiment=converged", "1 run .* how long they take is not known before"),
        ("--experiment=rank", "1 run .* about .* in all, by this machine's speed right now"),
    ],
)
def test_dry_run_says_what_time_it_does_not_know(program, flag, told):
    code, printed, _ = program("sweep", flag, "--dataset=digits", "--dry_run")
    assert code == 0
    assert re.fullmatch(told, next(line for line in printed if " run under " in line))


def test_all_runs_take_as_long_as_the_longest():
    assert listing._in_all([60.0, 120.0], 8, []).startswith("about 2 min in all")
    assert listing._in_all([120.0, 120.0, None], 1, []).startswith("about 4 min in all besides 1 ")
    assert listing._in_all([], 2, []).startswith("about 0 s in all")  # all are finished


def test_missing_data_is_one_line_before_anything_starts(tmp_path):
    args = [f"--data_dir={tmp_path}/tfds", f"--runs_dir={tmp_path}/runs"]
    done = subprocess.run(
        [sys.executable, "-m", "ntk_tf.sweep", *args, f"--manual_dir={tmp_path}"],
        capture_output=True,
        text=True,
        env=os.environ | {"TFDS_OFFLINE": "1"},
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "train-images-idx3-ubyte.gz" in done.stderr
    assert list(tmp_path.iterdir()) == []
