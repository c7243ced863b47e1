"""`--experiment=baseline`: logistic regression on the pixels that the networks see."""

import dataclasses

from ntk_tf.experiments.experiment import Experiment, accuracies
from ntk_tf.settings import groups


@dataclasses.dataclass(frozen=True, kw_only=True)
class Baseline(groups.MaxSteps, groups.TestSubset, groups.TrainSubset, groups.Data):
    """The settings of a logistic regression."""


EXPERIMENT = Experiment("baseline", Baseline, "ntk_tf.experiments.baseline.run", accuracies)
