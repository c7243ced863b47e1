"""Is the converged linearization where SGD ends, and what does a pass over the data cost?

    python scripts/check_converged.py --run_dir=runs/converged_lenet_x1_mnist_seed0

Takes the solution of a finished run of `--experiment=converged`, trains the linearization from
there by SGD for some epochs, in the training command's own loop, and prints its test accuracy after
each, with the change; then times epochs of this training and passes of the solver in turn, in this
one process, and prints their ratio. The run has one weight decay.
"""

import argparse
import pathlib
import statistics
import time

from ntk_tf.process import startup

startup.import_tensorflow()  # without TF32, as a run has it

import tensorflow as tf  # noqa: E402

from ntk_tf.experiments import EXPERIMENTS, network  # noqa: E402
from ntk_tf.experiments.inputs import Inputs  # noqa: E402
from ntk_tf.experiments.resolving import resolve  # noqa: E402
from ntk_tf.linearization.ridge import Ridge  # noqa: E402
from ntk_tf.reporting.collect import read_config  # noqa: E402
from ntk_tf.runs import checkpoint  # noqa: E402
from ntk_tf.settings import options  # noqa: E402
from ntk_tf.settings.setting import declarations  # noqa: E402
from ntk_tf.training import distribution  # noqa: E402
from ntk_tf.training.loop import evaluation_function, multi_step_function  # noqa: E402


def timed(function) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def training(config, learning_rate: float):
    """The settings of SGD on the regression that a run of `--experiment=converged` has solved."""
    read = declarations(EXPERIMENTS["train"].settings)
    shared = {name: value for name, value in config.changed().items() if name in read}
    shared |= {"arch": config.arch, "dataset": config.dataset, "experiment": "train"}
    return resolve(
        lambda _: config.card, **shared, linearized=True, learning_rate=learning_rate, loss="l2"
    )


def solution(config, run_dir: pathlib.Path, inputs: Inputs) -> tuple[Ridge, tf.Tensor]:
    """What a finished run has solved, and its solution u `[p]`.

    Raises:
        SystemExit: if the run directory has no checkpoint.
    """
    model, _ = network.build(config, run_dir)
    batches = inputs.evaluation_batches(inputs.source.train)
    rows = len(inputs.source.train) * config.num_classes
    ridge = Ridge(model, batches, rows, [config.weight_decay], config.decay_toward, config.centered)
    found = checkpoint.restore(run_dir / "checkpoint")
    if found is None:
        raise SystemExit(f"run_dir={run_dir}: holds no checkpoint")
    return ridge, tf.constant(found.arrays["u"][0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run_dir", required=True, type=pathlib.Path)
    parser.add_argument("--data_dir")
    parser.add_argument("--manual_dir")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--learning_rate", type=float, default=0.001)
    parser.add_argument("--rounds", type=int, default=3, help="of the timing")
    given = parser.parse_args()
    config = read_config(given.run_dir / "config.json")
    sgd = training(config, given.learning_rate)
    chosen = options(given.run_dir, data_dir=given.data_dir, manual_dir=given.manual_dir)
    inputs = Inputs(sgd, chosen)
    ridge, u = solution(config, given.run_dir, inputs)

    linear = network.compiled(sgd, inputs.steps_per_epoch, True, given.run_dir)
    distribution.build_metrics(linear, config.num_classes)
    for variable, value in zip(linear.trainable_weights, ridge.split(u), strict=True):
        variable.assign(value)
    evaluate, test = evaluation_function(linear), inputs.evaluation_batches(inputs.source.test)
    several, batches = multi_step_function(linear), iter(inputs.training_batches(0))

    def epoch() -> None:
        several(batches, tf.constant(inputs.steps_per_epoch))

    def accuracy() -> float:
        return 100 * evaluate(test)["accuracy"]

    start = accuracy()
    print(f"test accuracy of the solution {start:.2f} %")
    for i in range(given.epochs):
        epoch()
        print(f"after epoch {i + 1} of SGD {accuracy():.2f} % ({accuracy() - start:+.2f})")
    ridge.product(u)
    pairs = [(timed(epoch), timed(lambda: ridge.product(u))) for _ in range(given.rounds)]
    seconds = statistics.median(taken for _, taken in pairs)
    ratio = statistics.median(taken / of_epoch for of_epoch, taken in pairs)
    print(f"a pass takes {seconds:.1f} s, {ratio:.2f} epochs of training")


if __name__ == "__main__":
    main()
