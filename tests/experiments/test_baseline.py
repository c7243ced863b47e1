"""Logistic regression, against scikit-learn on pixels that are prepared by hand."""

import dataclasses
import json

import numpy as np
import pytest
from helpers import carry_out
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from ntk_tf.data import DataError
from ntk_tf.experiments import EXPERIMENTS
from ntk_tf.experiments.resolving import resolve
from ntk_tf.settings import Options


def test_digits(tmp_path):
    config = resolve(experiment="baseline", dataset="digits", image_size=16, max_steps=30)
    result = carry_out(config, Options(tmp_path / "run"))
    assert json.loads((tmp_path / "run/result.json").read_text()) == result
    assert result["status"] == "completed"
    assert result["parameters"] == 10 * (16 * 16 + 1)
    assert result["iterations"] <= 30
    assert result["train_accuracy"] > 0.95
    assert result["test_accuracy"] > 0.85


def test_what_did_not_converge_says_so(tmp_path):
    config = resolve(experiment="baseline", dataset="digits", train_examples=100, max_steps=2)
    carry_out(config, Options(tmp_path / "run"))
    text = EXPERIMENTS["baseline"].describe(tmp_path / "run")
    assert "  stopped after 2 iterations, before it converged  (" in text
    carry_out(dataclasses.replace(config, max_steps=500), Options(tmp_path / "longer"))
    assert "stopped" not in EXPERIMENTS["baseline"].describe(tmp_path / "longer")


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_digits_at_their_own_size_equal_plain_scikit_learn(tmp_path):
    config = resolve(
        experiment="baseline", dataset="digits", arch="lenet", image_size=8, padding=4, max_steps=30
    )
    result = carry_out(config, Options(tmp_path / "run"))
    digits = load_digits()
    pixels = np.pad(np.round(digits.data * (255 / 16)).reshape(-1, 8, 8), ((0, 0), (4, 4), (4, 4)))
    train, test = pixels[:-360] / 255, pixels[-360:] / 255
    inner = train[:, 4:-4, 4:-4]
    train, test = ((x.reshape(len(x), -1) - inner.mean()) / inner.std() for x in (train, test))
    model = LogisticRegression(max_iter=30).fit(train, digits.target[:-360])
    accuracies = model.score(train, digits.target[:-360]), model.score(test, digits.target[-360:])
    np.testing.assert_allclose(
        (result["train_accuracy"], result["test_accuracy"]), accuracies, atol=0.006
    )


def test_one_class_is_refused(tmp_path):
    config = resolve(experiment="baseline", dataset="digits", train_examples=1)
    with pytest.raises(DataError, match="train_examples=1: all are of one class"):
        carry_out(config, Options(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
