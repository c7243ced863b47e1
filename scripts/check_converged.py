"""Is the converged linearization where SGD ends, and what does a pass over the data cost?

    python scripts/check_converged.py --run_dir=runs/converged_lenet_x1_mnist_seed0

Takes the solution of a finished run of `--experiment=converged`, trains the linearization from
there by SGD for some epochs, and prints its test accuracy after each, with the change; then times
epochs of this training and passes of the solver in turn, in this one process, and prints their
ratio. The run has one weight decay.
"""

import argparse
import pathlib
import statistics
import time

import keras
import numpy as np
import tensorflow as tf

from ntk_tf.experiments import network
from ntk_tf.experiments.inputs import Inputs
from ntk_tf.linearization import LinearizedModel
from ntk_tf.linearization.ridge import Ridge
from ntk_tf.reporting.collect import read_config
from ntk_tf.runs import checkpoint
from ntk_tf.settings import options
from ntk_tf.training import TorchSGD
from ntk_tf.training.loop import evaluation_function


def timed(function) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


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
    chosen = options(given.run_dir, data_dir=given.data_dir, manual_dir=given.manual_dir)
    inputs = Inputs(config, chosen)
    model, _ = network.build(config, given.run_dir)
    batches = inputs.evaluation_batches(inputs.source.train)
    rows = len(inputs.source.train) * config.num_classes
    ridge = Ridge(model, batches, rows, [config.weight_decay], config.decay_toward, config.centered)
    found = checkpoint.restore(given.run_dir / "checkpoint")
    if found is None:
        raise SystemExit(f"run_dir={given.run_dir}: holds no checkpoint")
    solution = tf.constant(found.arrays["u"][0])

    linear = LinearizedModel(model, centered=config.centered)
    for u, value in zip(linear.trainable_weights, ridge.split(solution), strict=True):
        u.assign(value)
    linear.compile(
        TorchSGD(given.learning_rate, 0.9, config.weight_decay),
        "mse",
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )
    x, labels = inputs.arrays(inputs.source.train), inputs.source.train.labels
    targets = inputs.wanted(labels).astype(np.float32)
    training = tf.data.Dataset.from_tensor_slices((x, targets)).shuffle(len(x), seed=0)
    training = training.batch(32)
    evaluate = evaluation_function(linear)
    test = inputs.evaluation_batches(inputs.source.test)

    def accuracy() -> float:
        return 100 * evaluate(test)["accuracy"]

    start = accuracy()
    print(f"test accuracy of the solution {start:.2f} %")
    epochs, passes = [], []
    for epoch in range(given.epochs):
        epochs.append(timed(lambda: linear.fit(training, verbose=0)))
        print(f"after epoch {epoch + 1} of SGD {accuracy():.2f} % ({accuracy() - start:+.2f})")
    ridge.product(solution)
    for _ in range(given.rounds):
        epochs.append(timed(lambda: linear.fit(training, verbose=0)))
        passes.append(timed(lambda: ridge.product(solution)))
    ratios = [p / e for p, e in zip(passes, epochs[given.epochs :], strict=True)]
    print(f"a pass takes {statistics.median(passes):.1f} s, {statistics.median(ratios):.2f} epochs")


if __name__ == "__main__":
    main()
