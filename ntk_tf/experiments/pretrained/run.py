"""`--experiment=pretrained`: a network trained on all of ImageNet, evaluated on the snakes."""

import pathlib
import time
from typing import Any

import keras
import numpy as np
from rich.console import Console

from ntk_tf import models, runs
from ntk_tf.catalogue.datasets import SNAKE_SYNSETS
from ntk_tf.data import DataError
from ntk_tf.experiments.inputs import Inputs
from ntk_tf.experiments.pretrained import OUTPUTS, Pretrained, torch_weights
from ntk_tf.ntk.regression import accuracy
from ntk_tf.process.paths import expanded
from ntk_tf.settings import Options
from ntk_tf.training.metrics import has_finite_outputs

#: Position of the first snake among the classes of ILSVRC 2012.
FIRST_SNAKE = 52
#: Channels of AlexNet's first convolution at width 1.
CHANNELS = 64


def run(config: Pretrained, options: Options, console: Console) -> dict[str, Any]:
    """Evaluate; see `experiment.Experiment`.

    The result's `test_accuracy` counts a picture as right if its class is the largest of all 1,000
    outputs, `test_accuracy_among_snakes` if it is the largest of those of the chosen snakes.

    Raises:
        DataError: if the pictures or the weights cannot be had, or outputs are not finite.
    """
    started = time.monotonic()
    try:
        model = network(expanded(config.weights), config.input_shape)
    except torch_weights.WeightsError as error:
        raise DataError(str(error)) from error
    inputs = Inputs(config, options)
    inputs.open_workdir(console)
    test = inputs.source.test
    with console.status("evaluating"):
        batches = inputs.evaluation_batches(test)
        outputs = model.predict(batches.map(lambda x, _: x), verbose=0)
    few = next(iter(batches))[0][:2]
    if not (np.isfinite(outputs).all() and has_finite_outputs(model, few)):
        raise DataError(f"weights={config.weights}: the network's outputs are not all finite")
    accuracy = accuracies(outputs, test.labels, inputs.source.classes or ())
    result = {
        "status": "completed",
        "train_accuracy": None,
        "test_accuracy": accuracy[0],
        "test_accuracy_among_snakes": accuracy[1],
        "test_examples": len(test),
        "parameters": int(model.count_params()),
        "seconds": round(time.monotonic() - started, 3),
        **runs.provenance(),
    }
    path = options.workdir / "result.json"
    runs.insist(lambda: runs.write_json(path, result), options.checkpoint_minutes)
    return result


def network(path: pathlib.Path, input_shape: tuple[int, ...]) -> keras.Model:
    """AlexNet with the weights of a file, as wide as they are.

    Args:
        path: of the weights, in PyTorch's layouts; see `torch_weights`.
        input_shape: (height, width, channels) of a picture.

    Returns:
        A model with 1,000 outputs.

    Raises:
        WeightsError: if the file holds something else.
    """
    layers = torch_weights.kernels_and_biases(torch_weights.read(path), path)
    if not len(layers[0][1]):
        raise torch_weights.WeightsError(f"weights={path}: the first layer has no channels")
    if len(layers[-1][1]) != OUTPUTS:
        raise torch_weights.WeightsError(
            f"weights={path}: the network has {len(layers[-1][1])} outputs; one trained on all of"
            f" ImageNet has {OUTPUTS:,}"
        )
    width = len(layers[0][1]) / CHANNELS
    model = models.build("alexnet", width, OUTPUTS, input_shape)
    torch_weights.assign(model, layers, path)
    return model


def accuracies(
    outputs: np.ndarray, labels: np.ndarray, synsets: tuple[str, ...]
) -> tuple[float, float]:
    """Top-1 accuracy over all outputs and over those of the chosen snakes.

    Args:
        outputs: `[n, 1000]`.
        labels: `[n]`, positions in `synsets`.
        synsets: the chosen snakes.

    Returns:
        Two fractions.
    """
    position = np.array([FIRST_SNAKE + SNAKE_SYNSETS.index(synset) for synset in synsets])
    return accuracy(outputs, position[labels]), accuracy(outputs[:, position], labels)
