"""The converged linearization as an experiment: its files, and going on after any pass."""

import dataclasses
import json
import re

import numpy as np
import pytest
from helpers import Interrupted, carry_out, final_arrays, metrics

from ntk_tf import data
from ntk_tf.data import DataError
from ntk_tf.experiments import EXPERIMENTS
from ntk_tf.experiments.converged import figure
from ntk_tf.experiments.converged.record import Record
from ntk_tf.experiments.resolving import resolve
from ntk_tf.reporting import write
from ntk_tf.settings import Options, SettingError

SETTINGS = {
    "experiment": "converged",
    "arch": "mlp",
    "arch_args": "depth=2",
    "dataset": "digits",
    "image_size": 8,
    "train_examples": 40,
    "test_examples": 20,
    "preconditioner_examples": 4,
    "weight_decay": 1e-2,
    "max_passes": 12,
}


def run(workdir):
    return carry_out(resolve(**SETTINGS), Options(workdir, checkpoint_minutes=1e-9))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The directory of an undisturbed run, and its result."""
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, run(workdir)


def test_interrupted_anywhere_ends_the_same(whole, tmp_path, monkeypatch):
    undisturbed, result = whole
    add = Record.add

    def crash(self, row):
        add(self, row)
        if row["pass"] in crashes:
            crashes.remove(row["pass"])
            raise Interrupted

    crashes = [1, 2, 5]
    monkeypatch.setattr(Record, "add", crash)
    while crashes:
        with pytest.raises(Interrupted):
            run(tmp_path / "cut")
    monkeypatch.undo()
    run(tmp_path / "cut")
    assert metrics(tmp_path / "cut") == metrics(undisturbed)
    expected, cut = final_arrays(undisturbed), final_arrays(tmp_path / "cut")
    assert expected.keys() == cut.keys() >= {"u", "r", "p"}
    for name, array in expected.items():
        np.testing.assert_array_equal(cut[name], array)
    written = json.loads((undisturbed / "result.json").read_text())
    assert written == result
    row = metrics(undisturbed)[-1]
    assert written["passes"] == int(row["pass"])
    assert written["test_accuracy"] == float(row["test_accuracy"])
    assert not (undisturbed / "checkpoint/cholesky.npz").exists()
    assert written["seconds_in"].keys() == {"start", "preconditioner", "passes"}
    assert 0 < sum(written["seconds_in"].values()) <= written["seconds"] + 0.01


@pytest.mark.parametrize("damage", ["bytes", "name", "network"])
def test_a_preconditioner_that_cannot_be_used_is_made_anew(whole, tmp_path, monkeypatch, damage):
    def crash(self, row):
        raise Interrupted

    monkeypatch.setattr(Record, "add", crash)
    with pytest.raises(Interrupted):
        run(tmp_path / "cut")
    monkeypatch.undo()
    path = tmp_path / "cut/checkpoint/cholesky.npz"
    with np.load(path) as file:
        kept = dict(file)
    if damage == "bytes":
        path.write_bytes(path.read_bytes()[:100])
    elif damage == "name":
        np.savez(path, basis=kept["factor"], fingerprint=kept["fingerprint"])
    else:
        np.savez(path, factor=0 * kept["factor"], fingerprint=kept["fingerprint"] + 1)
    run(tmp_path / "cut")
    assert metrics(tmp_path / "cut") == metrics(whole[0])


def test_gradients_out_of_range_are_one_line(tmp_path):
    config = resolve(**SETTINGS, output_factor=1e30)
    with pytest.raises(DataError, match="preconditioner_examples=4: .*finite"):
        carry_out(config, Options(tmp_path / "run"))


HIDDEN = """
import keras
import tensorflow as tf


class Hidden(keras.layers.Layer):
    def call(self, x):
        y = tf.numpy_function(lambda a: 2 * a, [x], tf.float32)
        y.set_shape(x.shape)
        return y


def net(input_shape, num_classes, width, seed):
    x = inputs = keras.Input(input_shape)
    x = Hidden(name="hidden")(keras.layers.Dense(5)(keras.layers.Flatten()(x)))
    return keras.Model(inputs, keras.layers.Dense(num_classes)(x))
"""


@pytest.mark.parametrize("experiment", ["converged", "train", "trajectory", "rank"])
def test_own_networks_without_a_derivative_are_refused_in_one_line(
    tmp_path, monkeypatch, experiment
):
    (tmp_path / "hidingnet.py").write_text(HIDDEN)
    monkeypatch.chdir(tmp_path)
    settings = {"arch": "hidingnet:net", "dataset": "digits"}
    settings |= {"examples": 5} if experiment == "rank" else {"train_examples": 40}
    linearized = {"linearized": True} if experiment == "train" else {}
    config = resolve(experiment=experiment, **settings, **linearized)
    named = r"dense\S*/kernel" if experiment == "rank" else "'hidden'"
    with pytest.raises(SettingError, match=f"^--arch=hidingnet:net: .*{named}") as raised:
        carry_out(config, Options(tmp_path / "run"))
    assert "\n" not in str(raised.value)
    assert "check=False" not in str(raised.value)


def test_preconditioner_of_many_classes_is_of_fewer_pictures():
    def config(classes):
        card = dataclasses.replace(data.card("digits"), classes=classes)
        return resolve(lambda _: card, experiment="converged", dataset="digits")

    found = {classes: config(classes).preconditioner_examples for classes in (2, 10, 100, 9000)}
    assert found == {2: 600, 10: 600, 100: 60, 9000: 1}


@pytest.mark.parametrize(("tolerance", "earlier"), [(2e-3, "residual"), (1e-2, "output_change")])
def test_ends_where_both_residual_and_outputs_are_settled(tolerance, earlier, tmp_path):
    config = resolve(
        **(SETTINGS | {"weight_decay": 1.0, "preconditioner_examples": 0, "tolerance": tolerance})
    )
    carry_out(config, Options(tmp_path))
    small = [
        [float(row[name]) <= tolerance for name in ("residual", "output_change")]
        for row in metrics(tmp_path)[1:]
    ]
    assert small[-1] == [True, True]
    assert [True, True] not in small[:-1]
    assert small[-2] == [earlier == "residual", earlier == "output_change"]


def test_cross_entropy_is_refused():
    with pytest.raises(SettingError, match="--loss=cross_entropy: --experiment=converged does not"):
        resolve(**SETTINGS, loss="cross_entropy")


def test_several_weight_decays_in_one_run(all_formats, tmp_path, monkeypatch):
    """Each ends where it ends alone; interrupted, they end the same to the bit."""
    alone = {**SETTINGS, "tolerance": 1e-6, "max_passes": 300}
    several = {
        k: v for k, v in alone.items() if k not in ("weight_decay", "preconditioner_examples")
    }
    config = resolve(**several, weight_decays=(1.0, 3e-1))
    result = carry_out(config, Options(tmp_path / "whole", checkpoint_minutes=1e-9))
    found = [solution["weight_decay"] for solution in result["solutions"]]
    assert found == [1.0, 3e-1]
    assert result["objective"] == result["solutions"][0]["objective"]
    for solution in result["solutions"]:
        config_alone = resolve(**(alone | {"weight_decay": solution["weight_decay"]}))
        one = carry_out(config_alone, Options(tmp_path / f"{solution['weight_decay']}"))
        for name in ("objective", "train_loss", "test_loss", "distance"):
            np.testing.assert_allclose(solution[name], one[name], rtol=1e-4)
    for ending in ("csv", "png", "svg"):
        assert (tmp_path / "whole" / f"weight_decays.{ending}").exists()

    add = Record.add

    def crash(self, row):
        add(self, row)
        if row["pass"] == 4:
            monkeypatch.undo()
            raise Interrupted

    monkeypatch.setattr(Record, "add", crash)
    with pytest.raises(Interrupted):
        carry_out(config, Options(tmp_path / "cut", checkpoint_minutes=1e-9))
    carry_out(config, Options(tmp_path / "cut", checkpoint_minutes=1e-9))
    whole, cut = (final_arrays(tmp_path / name) for name in ("whole", "cut"))
    for name, array in whole.items():
        np.testing.assert_array_equal(cut[name], array)


@pytest.mark.parametrize(
    ("decays", "most"), [((1e-3,), 5), ((1e-3, 1e-6), 5), ((1e-6, 1e-3), 2), ((1e-3, 1e-6), 1)]
)
def test_what_did_not_converge_says_so(decays, most, tmp_path):
    """In no more passes than are allowed, those that confirm the residuals included."""
    given = {"weight_decays": decays, "max_passes": most, "tolerance": 1e-9}
    others = {"weight_decay": None, "preconditioner_examples": None}
    config = resolve(**(SETTINGS | others | given))
    result = carry_out(config, Options(tmp_path / "run"))
    assert result["stopped_by"] == "max_passes"
    assert result["passes"] <= most
    assert [found["weight_decay"] for found in result["solutions"]] == list(decays)
    text = EXPERIMENTS["converged"].describe(tmp_path / "run")
    residual = max(found["residual"] for found in result["solutions"])
    for found in result["solutions"]:
        decay, accuracy = found["weight_decay"], found["test_accuracy"]
        assert re.search(rf"weight decay {decay:g}: .*test accuracy {accuracy:.2%}", text)
    assert f"residual {residual:.1e} after {result['passes']} passes, stopped by --max_" in text


def test_a_report_of_a_run(whole, tmp_path):
    """Words in result.json are words in its table."""
    write.write(whole[0], tmp_path)
    text = (tmp_path / "tables/converged_mlp_digits.md").read_text()
    assert "stopped by" in text
    assert "max_passes" in text


def test_one_or_several_weight_decays():
    with pytest.raises(SettingError, match="--weight_decay=0.01: read only with one weight decay"):
        resolve(experiment="converged", weight_decay=1e-2, weight_decays=(1e-2, 1e-3))
    with pytest.raises(SettingError, match="--weight_decays=0.1,0.1: must be different values"):
        resolve(experiment="converged", weight_decays=(0.1, 0.1))


@pytest.mark.parametrize("title", ["mlp on a$_$b.npz", "mlp on $x^2$.npz", "mlp on 100$.npz"])
def test_a_title_is_no_formula(tmp_path, title):
    row = dict.fromkeys(figure.COLUMNS, 0.5)
    figure.draw([row, row | {"weight_decay": 0.1}], title, tmp_path)
    drawn = (tmp_path / "weight_decays.svg").read_text()
    assert f"<!-- {title} -->" in drawn
