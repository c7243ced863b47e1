"""ntk_tf's worker: the graph and the input pipeline of `python -m ntk_tf.main`."""

import dataclasses
import functools
import pathlib
import unittest.mock

import protocol

from ntk_tf.process import startup

startup.import_tensorflow()

import tensorflow as tf  # noqa: E402

from ntk_tf import __version__  # noqa: E402
from ntk_tf.experiments import network  # noqa: E402
from ntk_tf.experiments.inputs import Inputs  # noqa: E402
from ntk_tf.experiments.resolving import resolve  # noqa: E402
from ntk_tf.linearization import LinearizedModel  # noqa: E402
from ntk_tf.settings import Options  # noqa: E402
from ntk_tf.training.loop import multi_step_function  # noqa: E402


def configuration(problem):
    """The training command's settings; of digits only the pixels stay, resized and repeated."""
    side, _, channels = problem["input"]
    config = resolve(
        dataset="digits",
        arch=problem["arch"],
        width=problem["width"],
        linearized=problem["model"] != "standard",
        batch_size=problem["batch"],
        image_size=side,
        weight_decay=5e-5,
        schedule="step",
        train_examples=1437 // problem["batch"] * problem["batch"],
    )
    card = dataclasses.replace(config.card, shape=(8, 8, channels), classes=problem["outputs"])
    return dataclasses.replace(config, card=card)


def training(problem):
    config = configuration(problem)
    inputs = Inputs(config, Options(pathlib.Path()))
    jvp = "double_vjp" if problem["model"] == "double_vjp" else "auto"
    way = functools.partial(LinearizedModel, jvp=jvp)
    with unittest.mock.patch.object(network, "LinearizedModel", way):
        model = network.compiled(config, inputs.steps_per_epoch, config.linearized)
    batches = inputs.training_batches(0)
    model.evaluate(batches.take(1), verbose=0)  # builds the metrics
    iterator, run = iter(batches), multi_step_function(model)

    def steps(count):
        run(iterator, tf.constant(count))
        return {name: float(value) for name, value in model.get_metrics_result().items()}

    return steps


def product(problem):
    size = problem["size"]
    mean, result = tf.fill((size, size), 1 / size), tf.ones((size, size))

    @tf.function
    def run(count):
        product = result
        for _ in tf.range(count):
            product = tf.matmul(mean, product)
        return product[0, 0]

    return lambda count: run(tf.constant(count)).numpy()


def variants(problem):
    prepare = product if problem["model"] == "product" else training
    return {"training command": functools.partial(prepare, problem)}


def peak_memory():
    if tf.config.list_physical_devices("GPU"):
        return tf.config.experimental.get_memory_info("GPU:0")["peak"]
    return protocol.peak_memory()


if __name__ == "__main__":
    protocol.serve({"ntk_tf": __version__, "tensorflow": tf.__version__}, variants, peak_memory)
