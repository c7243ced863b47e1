"""`--experiment=baseline`: logistic regression on the pixels that the networks see."""

import dataclasses
import math
import pathlib
from collections.abc import Mapping
from typing import Any

from ntk_tf.experiments import costs
from ntk_tf.experiments.experiment import Experiment, accuracies
from ntk_tf.runs import number
from ntk_tf.settings import groups


@dataclasses.dataclass(frozen=True, kw_only=True)
class Baseline(groups.MaxSteps, groups.TestSubset, groups.TrainSubset, groups.Data):
    """The settings of a logistic regression."""

    builds_network = False


def memory(config: Baseline) -> tuple[int, float]:
    """Parameters of a logistic regression, and bytes of its inputs, twice while it is fitted."""
    features = math.prod(config.input_shape)
    train, _ = costs.examples(config)
    return (features + 1) * config.num_classes, costs.FLOAT * 2 * features * train


def summary(result: Mapping[str, Any], path: pathlib.Path) -> str:
    """The accuracies in words, and whether more iterations would have changed them."""
    text, iterations = accuracies(result, path), number(result, "iterations", path)
    if result.get("converged") is False and iterations is not None:
        text += f"  stopped after {iterations:g} iterations, before it converged"
    return text


EXPERIMENT = Experiment("baseline", Baseline, "ntk_tf.experiments.baseline.run", summary, memory)
