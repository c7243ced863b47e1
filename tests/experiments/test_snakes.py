"""Training on the snakes through the command line, and other archs, losses and augmentation."""

import json

import pytest
import snake_files
from helpers import carry_out, main

from ntk_tf import cli, runs
from ntk_tf.catalogue.datasets import SNAKE_SYNSETS
from ntk_tf.experiments.resolving import resolve
from ntk_tf.settings import Options, SettingError, run_name

TWO = SNAKE_SYNSETS[4:6]


@pytest.fixture
def options(tmp_path, rng):
    """Options of a run whose manual_dir has folders of two classes."""
    folder = snake_files.write_folders(tmp_path / "files", snake_files.make(rng, TWO, 5, 2))
    return Options(tmp_path / "run", str(tmp_path / "tfds"), str(folder))


def test_lenet_on_snakes(options):
    settings = resolve(
        dataset="imagenet_snakes",
        snake_synsets=",".join(TWO),
        augment="flip_crop",
        loss="cross_entropy",
        epochs=2,
        batch_size=4,
    )
    result = carry_out(settings, options)
    assert result["steps"] == 6
    written = json.loads((options.workdir / "config.json").read_text())
    assert written["classes"] == list(TWO)
    assert written["snake_synsets"] == ",".join(TWO)
    assert written["image_size"] == 32
    runs.check_workdir(options.workdir, settings.to_dict())
    # As if the data had others in their place: a run does not go on on other classes.
    written["classes"] = ["n01751748", "n01756291"]
    (options.workdir / "config.json").write_text(json.dumps(written))
    with pytest.raises(runs.RunDirectoryError, match="holds a run on other classes"):
        carry_out(settings, options)


def test_errors_are_one_line_and_leave_nothing(options, tmp_path):
    (tmp_path / "files/val" / TWO[0]).rename(tmp_path / "elsewhere")
    flags = [f"--data_dir={options.data_dir}", f"--manual_dir={options.manual_dir}"]
    flags += [f"--workdir={options.workdir}", f"--snake_synsets={','.join(TWO)}"]
    result = main("--dataset=imagenet_snakes", *flags)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert f"val: holds no {TWO[0]}" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "tfds").exists()


@pytest.mark.parametrize("linearized", [False, True])
def test_cross_entropy_falls(linearized, tmp_path):
    settings = resolve(
        dataset="digits",
        loss="cross_entropy",
        linearized=linearized,
        epochs=2,
        learning_rate=0.01,
        train_examples=320,
        test_examples=100,
    )
    result = carry_out(settings, Options(tmp_path / "run"))
    first, last = (
        float(row.split(",")[3])
        for row in (tmp_path / "run/metrics.csv").read_text().splitlines()[1:]
    )
    assert last < first
    assert result["train_loss"] < 2.302  # the logarithm of the number of classes


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dataset=mnist", "--snake_synsets=n01728572,n01728920"], "read only with --dataset=im"),
        (["--arch=alexnet", "--snake_synsets=n01728572,n02084071"], "must be at least two differe"),
        (["--arch=alexnet", "--snake_synsets=n01728572"], "must be at least two different ones"),
        (["--augment=rotate"], "--augment=rotate: must be one of none, flip_crop"),
        (["--experiment=baseline", "--epochs=3"], "--experiment=baseline does not read it"),
    ],
)
def test_bad_flags(flags, message):
    with pytest.raises(SettingError, match=message):
        cli.parse(["main", *flags])


def test_settings_name_the_classes_in_wordnets_order():
    settings = resolve(arch="alexnet", snake_synsets="n01728920,n01728572")
    assert settings.synsets == ("n01728572", "n01728920")
    assert settings.num_classes == 2
    name = run_name(settings)
    assert name.startswith("alexnet_x1_imagenet_snakes_seed0_snake_synsets2-")
    other = resolve(arch="alexnet", snake_synsets="n01728920,n01729322")
    assert run_name(other) != name
    everything = resolve(arch="alexnet", snake_synsets=",".join(SNAKE_SYNSETS))
    assert len(run_name(everything)) < 100
