"""Two logical CPUs against one device: the same losses and weights, in a process of their own."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
from helpers import main

from ntk_tf import cli
from ntk_tf.runs import checkpoint
from ntk_tf.settings import SettingError
from ntk_tf.training import distribution

#: 93 pictures make a last batch of 29, in parts of 15 and 14; 41 test pictures are odd too.
QUICK = ["--dataset=digits", "--train_examples=93", "--test_examples=41", "--epochs=3"]
SMALL = ["--arch=mlp", "--arch_args=depth=2", "--image_size=8"]
#: The program with the CPU split in two, and callbacks after every update, once for each line.
TWO_CPUS = """
import sys
from ntk_tf import main
from ntk_tf.process import startup
startup.import_tensorflow()
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, 2 * [tf.config.LogicalDeviceConfiguration()])
from ntk_tf.training import loop
loop.CALLBACK_SECONDS = 0
for line in sys.argv[1:]:
    sys.argv = ["main", *line.split("\\n")]
    if main.main():
        sys.exit(1)
"""


def run(*argument_lists):
    """One run after the other in one process."""
    lines = ["\n".join([*QUICK, *arguments]) for arguments in argument_lists]
    done = subprocess.run([sys.executable, "-c", TWO_CPUS, *lines], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def read(workdir):
    with open(workdir / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    arrays = checkpoint.restore(workdir / "checkpoint").arrays
    return json.loads((workdir / "result.json").read_text()), rows, arrays


@pytest.mark.parametrize(
    "model",
    [
        ["--nolinearized"],
        ["--linearized", *SMALL, "--decay_toward=zero", "--weight_decay=0.01"],
    ],
)
def test_mirrored_equals_one_device(model, tmp_path):
    flags = {
        name: [f"--workdir={tmp_path / name}", *model, f"--strategy={name}"]
        + ["--checkpoint_minutes=0.00001"]
        for name in ("one_device", "mirrored")
    }
    run(*flags.values())
    (one, rows1, arrays1), (two, rows2, arrays2) = (read(tmp_path / name) for name in flags)
    for key in ("train_loss", "test_loss", "train_accuracy", "test_accuracy"):
        assert two[key] == pytest.approx(one[key], rel=1e-5)
    assert [r["test_accuracy"] for r in rows1] == [r["test_accuracy"] for r in rows2]
    for row1, row2 in zip(rows1, rows2, strict=True):
        # The running mean weighs the parts of an odd batch by their sizes twice.
        assert float(row2["running_train_loss"]) == pytest.approx(
            float(row1["running_train_loss"]), rel=2e-3
        )
    for position in range(8):  # of the trainable weights
        key = next(k for k in arrays1 if k.startswith(f"{position:04d}/"))
        np.testing.assert_allclose(arrays2[key], arrays1[key], atol=1e-6)
    if "--linearized" in model:
        check_that_it_resumes(tmp_path / "mirrored", flags["mirrored"])


def check_that_it_resumes(workdir, flags):
    """Go on from a checkpoint in the middle of an epoch, metrics and all."""
    whole = read(workdir)
    (workdir / "result.json").unlink()
    *_, older, newest = sorted((workdir / "checkpoint").glob("step-*.npz"))
    assert older.name == "step-000000008.npz"  # an epoch has three updates
    newest.unlink()
    run(flags)
    again = read(workdir)
    for result in (whole[0], again[0]):
        del result["seconds"], result["seconds_in"], result["performance"], result["provenance"]
    assert again[0] == whole[0]
    for name, value in whole[2].items():
        np.testing.assert_allclose(again[2][name], value, rtol=1e-6, err_msg=name)


def test_one_device_cannot_be_mirrored(tmp_path):
    done = main(*QUICK, "--strategy=mirrored", f"--workdir={tmp_path / 'run'}")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "--strategy=mirrored: there is one device" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["--strategy=multi_worker_mirrored"], "several machines"),
        (["--strategy=mirrored", "--experiment=trajectory"], "read only with --experiment=train"),
    ],
)
def test_what_does_not_work_is_refused_with_a_reason(args, reason):
    with pytest.raises(SettingError, match=reason):
        cli.parse(["main", *args])


def test_no_replica_goes_without_pictures():
    assert distribution.even_size(41, 20, 2) == 19
    assert distribution.even_size(40, 20, 2) == 20
    distribution.check_batches(93, 32, 2)
    with pytest.raises(ValueError, match="batch of 1 pictures for 2 devices"):
        distribution.check_batches(97, 32, 2)
