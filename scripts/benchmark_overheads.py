"""What the input pipeline, Keras and records add to the time of a step, as ratios taken in one run.

    python scripts/benchmark_overheads.py [--widths=1,4] [--rounds=7] [--json=FILE]

For LeNet at each width and for both models it times, in turn and over several rounds,

- bare: a `tf.function` loop over `train_step` on one batch that is already in memory,
- fit:  Keras' `fit` on a `tf.data` dataset of batches in memory, 64 steps an execution,
- ours: the graph and the input pipeline of `python -m ntk_tf.main`,

and, for the trajectory experiment, both models together without and with a record of their outputs
on three pictures after every update. It prints medians and ratios. Machines are noisy: believe the
ratios, not the milliseconds.
"""

import argparse
import json
import pathlib
import statistics
import sys
import time
import warnings

from ntk_tf.process import startup

startup.import_tensorflow()

import tensorflow as tf  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from ntk_tf import data  # noqa: E402
from ntk_tf.data import pipeline  # noqa: E402
from ntk_tf.experiments import network  # noqa: E402
from ntk_tf.experiments.resolving import resolve  # noqa: E402
from ntk_tf.experiments.trajectory.pair import Pair  # noqa: E402
from ntk_tf.training.loop import multi_step_function  # noqa: E402

BATCH = 32


def batches_in_memory(count):
    """`count` batches of digits at LeNet's input size, and one batch as tensors."""
    source = data.load("digits")
    preprocess = pipeline.preprocessing(source, 28, 0, 1)
    stream = pipeline.training_batches(source.train, preprocess, 10, BATCH, seed=0)
    full = stream.unbatch().batch(BATCH, drop_remainder=True).take(count)
    xs, ys = zip(*full, strict=True)
    dataset = tf.data.Dataset.from_tensor_slices((tf.stack(xs), tf.stack(ys)))
    return dataset.prefetch(2), (xs[0], ys[0])


def bare_loop(config, steps, batch):
    model = network.compiled(config, steps, config.linearized)
    model.evaluate(*batch, verbose=0)  # builds the metrics

    @tf.function
    def loop(count):
        for _ in tf.range(count):
            model.train_step(batch)

    return lambda: loop(tf.constant(steps))


def keras_fit(config, steps, dataset):
    model = network.compiled(config, steps, config.linearized)
    model.compile(
        optimizer=model.optimizer,
        loss=model.loss,
        metrics=["categorical_accuracy"],
        steps_per_execution=min(64, steps),
    )
    return lambda: model.fit(dataset, epochs=1, shuffle=False, verbose=0)


def own_loop(config, steps):
    source = data.load("digits")
    preprocess = pipeline.preprocessing(source, 28, 0, 1)
    model = network.compiled(config, steps, config.linearized)
    stream = pipeline.training_batches(source.train, preprocess, 10, BATCH, config.seed)
    model.evaluate(stream.take(1), verbose=0)  # builds the metrics
    iterator, run = iter(stream), multi_step_function(model)
    return lambda: run(iterator, tf.constant(steps))


def pair_loop(config, steps, batches, every):
    models = [network.compiled(config, steps, linearized) for linearized in (False, True)]
    iterator = iter(batches.repeat())
    for model in models:
        model.evaluate(batches.take(1), verbose=0)  # builds the metrics
    pair = Pair(*models, next(iterator)[0][:3], count=100_000 // every + 1, every=every, outputs=10)
    run = multi_step_function(pair)
    return lambda: run(iterator, tf.constant(steps))


def measure(widths, rounds):
    """Milliseconds a step: {(width, model, way): [rounds]}."""
    # Keras warns of the end of a dataset that ends exactly where it should.
    warnings.filterwarnings("ignore", message="Your input ran out of data")
    times, ways = {}, {}
    for width in widths:
        steps = max(64, 256 // width)
        dataset, batch = batches_in_memory(steps)
        for linearized in (False, True):
            config = resolve(dataset="digits", width=width, linearized=linearized)
            key = (width, linearized)
            ways[*key, "bare"] = steps, bare_loop(config, steps, batch)
            ways[*key, "fit"] = steps, keras_fit(config, steps, dataset)
            ways[*key, "ours"] = steps, own_loop(config, steps)
        ways[width, "pair", "plain"] = steps, pair_loop(config, steps, dataset, 100_000)
        ways[width, "pair", "recorded"] = steps, pair_loop(config, steps, dataset, 1)
    for _, run in ways.values():  # traces
        run()
    for _ in range(rounds):
        for key, (steps, run) in ways.items():
            start = time.perf_counter()
            run()
            times.setdefault(key, []).append(1e3 * (time.perf_counter() - start) / steps)
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--widths", default="1,4", help="width factors, comma-separated")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", help="file for the raw times")
    args = parser.parse_args()
    widths = [int(width) for width in args.widths.split(",")]
    times = measure(widths, args.rounds)
    median = {key: statistics.median(values) for key, values in times.items()}

    def ratio(key, other):
        """Median over rounds of the ratio within a round."""
        return statistics.median(a / b for a, b in zip(times[key], times[other], strict=True))

    table = Table("model", "bare ms", "fit ms", "ours ms", "fit/bare", "ours/bare", "lin/std")
    for width in widths:
        for linearized in (False, True):
            key = (width, linearized)
            bare, fit, ours = ((*key, way) for way in ("bare", "fit", "ours"))
            over = f"{ratio(bare, (width, False, 'bare')):.2f}" if linearized else ""
            cells = [f"{median[way]:.2f}" for way in (bare, fit, ours)]
            ratios = [f"{ratio(way, bare):.2f}" for way in (fit, ours)]
            table.add_row(f"{'Lin' * linearized}LeNet x{width}", *cells, *ratios, over)
    pairs = Table("both models", "ms", "recorded ms", "recorded/plain")
    for width in widths:
        plain, recorded = ((width, "pair", way) for way in ("plain", "recorded"))
        cells = [f"{median[way]:.2f}" for way in (plain, recorded)]
        pairs.add_row(f"LeNet x{width}", *cells, f"{ratio(recorded, plain):.2f}")
    console = Console(width=160 if not sys.stdout.isatty() else None)
    console.print(table)
    console.print(pairs)
    if args.json:
        content = {" ".join(map(str, key)): values for key, values in times.items()}
        pathlib.Path(args.json).write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
