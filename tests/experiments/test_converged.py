"""The converged linearization as an experiment: its files, and going on after any pass."""

import json

import numpy as np
import pytest
from helpers import Interrupted, carry_out, final_arrays, metrics

from ntk_tf.experiments.converged.record import Record
from ntk_tf.experiments.resolving import resolve
from ntk_tf.settings import Options, SettingError

SETTINGS = {
    "experiment": "converged",
    "arch": "mlp",
    "dataset": "digits",
    "train_examples": 40,
    "test_examples": 20,
    "preconditioner_examples": 4,
    "weight_decay": 1e-2,
    "max_passes": 12,
}


def run(workdir):
    return carry_out(resolve(**SETTINGS), Options(workdir, checkpoint_minutes=1e-9))


def test_interrupted_anywhere_ends_the_same(tmp_path, monkeypatch):
    result = run(tmp_path / "whole")
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
    assert metrics(tmp_path / "cut") == metrics(tmp_path / "whole")
    whole, cut = (final_arrays(tmp_path / name) for name in ("whole", "cut"))
    assert whole.keys() == cut.keys() >= {"u", "r", "p"}
    for name, array in whole.items():
        np.testing.assert_array_equal(cut[name], array)
    written = json.loads((tmp_path / "whole/result.json").read_text())
    assert written == result
    row = metrics(tmp_path / "whole")[-1]
    assert written["passes"] == int(row["pass"])
    assert written["test_accuracy"] == float(row["test_accuracy"])
    assert not (tmp_path / "whole/checkpoint/preconditioner.npz").exists()


def test_cross_entropy_is_refused():
    with pytest.raises(SettingError, match="--loss=cross_entropy: --experiment=converged does not"):
        resolve(**SETTINGS, loss="cross_entropy")
