"""What people type: the command's names, mistaken flags, spellings."""

import importlib
import os
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

import ntk_tf
from ntk_tf import cli
from ntk_tf.settings import SettingError

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("parse", [cli.parse, cli.parse_sweep, cli.parse_report])
def test_version(parse, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(["ntk-tf", "--version"])
    assert not stop.value.code
    assert capsys.readouterr().out == f"ntk_tf {ntk_tf.__version__}\n"


def test_package_and_command_are_the_main_program():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, name = scripts["ntk-tf"].split(":")
    assert getattr(importlib.import_module(module), name) is importlib.import_module(module).main
    assert module == "ntk_tf.main"
    command = [sys.executable, "-m", "ntk_tf", "--learning_rates=1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (2, "")
    assert "a run takes one --learning_rate" in done.stderr


@pytest.mark.parametrize(
    ("parse", "flag", "said"),
    [
        (cli.parse, "--lr=0.1", "--lr: .*--learning_rate[?]"),
        (cli.parse, "--wd=0.1", "--weight_decay[?]"),
        (cli.parse, "--learning-rate=0.1", "--learning_rate[?]"),
        (cli.parse, "--epoch=3", "--epochs[?]"),
        (cli.parse, "--seeds=0,1", "one --seed; several: python -m ntk_tf.sweep --seeds"),
        (cli.parse, "--widths=1,2", "one --width; .* python -m ntk_tf.sweep --widths=1,2"),
        (cli.parse, "--jobs=2", "read only with --experiment=infinite"),
        (cli.parse, "--nocache_decoded", "read only with --dataset=imagenet_snakes"),
        (cli.parse, "sweep", "python -m ntk_tf.sweep"),
        (cli.parse, "lenet", "flags start with --"),
        (cli.parse_sweep, "--lr=0.1", "--learning_rates=A,B"),
        (cli.parse_sweep, "--seed=3", "--seeds="),
        (cli.parse_sweep, "--linearized", "--models=standard,linearized"),
        (cli.parse_report, "--output=a", "--output_dir[?]"),
    ],
)
def test_a_mistaken_flag_is_a_line_that_says_what_was_meant(parse, flag, said):
    with pytest.raises(SettingError, match=said) as error:
        parse(["ntk-tf", flag])
    assert "\n" not in str(error.value)


def test_other_spellings_are_the_same_run():
    other = ["--arch=LeNet", "--dataset=CIFAR-10", "--loss=Cross-Entropy", "--experiment=train"]
    usual = ["--arch=lenet", "--dataset=cifar10", "--loss=cross_entropy"]
    assert cli.parse(["main", *other]).config == cli.parse(["main", *usual]).config
    runs = cli.parse_sweep(["sweep", "--dataset=MNIST", "--losses=L2", "--widths=1"]).runs
    assert {(run.config.dataset, run.config.loss) for run in runs} == {("mnist", "l2")}
    with pytest.raises(SettingError, match="Le_Net: must be one of lenet"):
        cli.parse(["main", "--arch=Le_Net"])


def test_help_has_every_flag_once_by_what_reads_it(capsys):
    with pytest.raises(SystemExit):
        cli.parse(["main", "--help"])
    text = capsys.readouterr().out
    usage, examples, *rest = text.split("\n\n")
    assert usage.startswith("usage: ")
    assert "python -m ntk_tf.main --arch" in examples
    sections = {part.partition(":\n")[0]: part for part in rest}
    assert list(sections) == [
        "this command",
        "settings of every experiment",
        *("--experiment=train", "--experiment=trajectory", "--experiment=rank"),
        *("--experiment=converged", "--experiment=infinite", "--experiment=pretrained"),
        "how and where to run",
    ]
    assert "--kernel_every" in sections["--experiment=trajectory"]
    assert "--ridge" in sections["--experiment=rank"]
    flags = re.findall(r"^  (--\S+)", "\n".join(sections.values()), re.MULTILINE)
    assert len(set(flags)) == len(flags) > 50
    assert max(map(len, text.splitlines())) <= 80


def test_help_tells_what_a_flag_means_to_each_experiment(capsys):
    def explained(parse, program):
        with pytest.raises(SystemExit):
            parse([program, "--help"])
        entries = re.split(r"^  (?=--)", capsys.readouterr().out, flags=re.MULTILINE)[1:]
        return {
            entry.split("\n")[0].partition("=")[0]: " ".join(entry.split()) for entry in entries
        }

    main, sweep = explained(cli.parse, "main"), explained(cli.parse_sweep, "sweep")
    assert "of two classes 2) [trajectory]; first so many training pictures" in main["--examples"]
    assert "[train, trajectory]; of the Gram's products" in main["--precision"]
    assert "[train, trajectory]; of the training whose end" in main["--weight_decay"]
    assert main["--strategy"].endswith("[train]")
    assert "[infinite, sweeps]" in main["--slurm_account"]
    assert sweep["--models"].startswith("--models=standard,linearized any of standard, linearized")


def test_what_a_job_asks_slurm_for():
    flags = ["--slurm_account=lab", "--slurm_qos=long", "--slurm_gpus=2", "--slurm_gpu_type=a100"]
    flags += ["--slurm_setup=module load cuda", "--dataset=digits"]
    slurm = ["sweep", "--executor=slurm"]
    asked = cli.parse_sweep([*slurm, *flags]).slurm
    assert asked["account"] == "lab"
    assert asked["qos"] == "long"
    assert asked["gres"] == "gpu:a100:2"
    assert asked["setup"] == ["module load cuda"]
    plain = cli.parse_sweep([*slurm, "--dataset=digits", "--slurm_gpus=1"]).slurm
    assert plain["gres"] == "gpu:1"
    assert plain["setup"] is plain["account"] is None
    infinite = ["main", "--dataset=digits", "--experiment=infinite"]
    for parse, args in ((cli.parse_sweep, slurm[:1]), (cli.parse, infinite)):
        with pytest.raises(SettingError, match="gpu_type=a100: read only with --slurm_gpus above"):
            parse([*args, "--dataset=digits", "--executor=slurm", "--slurm_gpu_type=a100"])
        with pytest.raises(SettingError, match="--slurm_gpus=1: read only with --executor=slurm"):
            parse([*args, "--dataset=digits", "--slurm_gpus=1"])


def test_slurm_script_splits_arrays_and_runs_every_line_once(tmp_path):
    """With fakes of `python` and `sbatch`, which runs the jobs at once; MaxArraySize is 4."""
    programs = {
        "python": '[[ "$*" == *--emit_commands* ]] && seq -f "echo run %g" 1 8 || true',
        "scontrol": 'echo "MaxArraySize = 4"',
        "sbatch": """
            echo "$*" >> asked
            last=${1#--array=1-}
            while [[ $1 == --* ]]; do shift; done
            for i in $(seq "$last"); do SLURM_ARRAY_TASK_ID=$i bash "$@"; done >> ran""",
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    setup = 'echo "loaded $unset"'
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SETUP": setup}
    script = ["bash", str(ROOT / "scripts/slurm_submit.sh"), "some.flags", "--account=lab"]
    done = subprocess.run(script, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    asked = (tmp_path / "asked").read_text().splitlines()
    assert [line.split()[0] for line in asked] == ["--array=1-3", "--array=1-3", "--array=1-2"]
    assert all("--account=lab" in line for line in asked)
    lines = (tmp_path / "ran").read_text().splitlines()
    assert lines == [line for i in range(1, 9) for line in ("loaded ", f"run {i}")]


PATHS = [
    (cli.parse, ["workdir", "runs_dir", "data_dir", "manual_dir", "dataset", "from_run"]),
    (cli.parse_sweep, ["runs_dir", "data_dir", "dataset"]),
    (cli.parse_report, ["runs_dir", "output_dir"]),
]


@pytest.mark.parametrize(("parse", "names"), PATHS)
def test_bytes_that_are_no_text_are_one_line(parse, names):
    path = os.fsdecode(b"/a\xff.npz")
    for name in names:
        with pytest.raises(SettingError, match=rf"--{name}='/a.udcff.npz': must be text in UTF-8"):
            parse(["ntk_tf", f"--{name}={path}"])


@pytest.mark.parametrize("value", ["~no.such.user", "~no.such.user/", "~no.such.user/x.npz"])
@pytest.mark.parametrize(("parse", "names"), PATHS)
def test_homes_that_do_not_exist_are_one_line(parse, names, value):
    for name in names:
        with pytest.raises(SettingError, match=f"--{name}={value}: there is no such home dir"):
            parse(["ntk_tf", f"--{name}={value}"])
