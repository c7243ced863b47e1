"""`--experiment=train`: train a network or its linearization, and record how well it does."""

import dataclasses

from ntk_tf.experiments import costs
from ntk_tf.experiments.experiment import Experiment, Time, accuracies
from ntk_tf.process.speed import Speed
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


def memory(config: Train) -> tuple[int, float]:
    """Parameters, and bytes; see `costs.training_memory`."""
    buffers, copies = (5, 3) if config.linearized else (4, 2)
    if config.centered and not config.linearized:  # w0, and f(w0, x)
        buffers, copies = buffers + 1, copies + 1
    return costs.training_memory(config, buffers, copies)


def time(config: Train, speed: Speed) -> Time:
    """The updates', the tests' after every epoch, and the last evaluation's."""
    train, test = costs.examples(config)
    total = costs.updates(config, config.epochs)
    tests = -(-total // costs.updates(config)) * test
    return Time(
        costs.START
        + 2 * costs.TRACING
        + total * costs.update_seconds(config, config.linearized, speed)
        + costs.evaluation_seconds(config, config.linearized, tests + train + test, speed)
    )


EXPERIMENT = Experiment(
    "train", Train, "ntk_tf.experiments.train.run", accuracies, memory, time, keeps_inputs=True
)
