"""`--experiment=train`: train a network or its linearization, and record how well it does."""

import dataclasses

from ntk_tf.experiments.experiment import Experiment, accuracies
from ntk_tf.settings import groups
from ntk_tf.settings.setting import TRUE_OR_FALSE, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(
    groups.Network,
    groups.Centering,
    groups.Training,
    groups.TestSubset,
    groups.TrainSubset,
    groups.Data,
    groups.Epochs,
):
    """The settings of a training run."""

    linearized: bool = setting(
        False,
        TRUE_OR_FALSE,
        "train T_f(u, x) = f(w0, x) + u . grad f(w0, x) in place of the network f (default: off)",
        plural="models",
        words={"standard": False, "linearized": True},
        named=False,
    )


EXPERIMENT = Experiment(
    "train", Train, "ntk_tf.experiments.train.run", accuracies, keeps_inputs=True
)
