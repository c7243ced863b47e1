"""`--experiment=pretrained`: a network trained on all of ImageNet, evaluated on the snakes."""

import pathlib
import time
from typing import Any

import keras
import numpy as np
from rich.console import Console

from ntk_tf import data, models, runs
from ntk_tf.choices import SNAKE_SYNSETS
from ntk_tf.config import Config, Options
from ntk_tf.data import pipeline
from ntk_tf.models import weights

#: Classes of ILSVRC 2012, and the position of the first snake among them.
OUTPUTS, FIRST_SNAKE = 1000, 52
#: Channels of AlexNet's first convolution at width 1.
CHANNELS = 64


def run(config: Config, options: Options, console: Console) -> dict[str, Any]:
    """Evaluate; see `experiments.run`.

    The result's `test_accuracy` counts a picture as right if its class is the largest of all 1,000
    outputs, `test_accuracy_among_snakes` if it is the largest of those of the chosen snakes.

    Raises:
        DataError: if the pictures or the weights cannot be had.
    """
    started = time.monotonic()
    try:
        model = network(pathlib.Path(config.weights), config.input_shape)
    except weights.WeightsError as error:
        raise data.DataError(str(error)) from error
    source = data.load_for(config, options)
    runs.open_workdir(options.workdir, config.to_dict(), options.resume, source.classes)
    with console.status("evaluating"):
        outputs = predictions(model, config, source)
    accuracy = accuracies(outputs, source.test.labels, source.classes)
    result = {
        "status": "completed",
        "train_accuracy": None,
        "test_accuracy": accuracy[0],
        "test_accuracy_among_snakes": accuracy[1],
        "test_examples": len(source.test),
        "parameters": int(model.count_params()),
        "seconds": round(time.monotonic() - started, 3),
        "versions": runs.versions(),
    }
    path = options.workdir / "result.json"
    runs.insist(lambda: runs.write_json(path, result), options.checkpoint_minutes)
    return result


def network(path: pathlib.Path, input_shape: tuple[int, int, int]) -> keras.Model:
    """AlexNet with the weights of a file, as wide as they are.

    Args:
        path: of the weights, in PyTorch's layouts; see `models.weights`.
        input_shape: (height, width, channels) of a picture.

    Returns:
        A model with 1,000 outputs.

    Raises:
        WeightsError: if the file holds something else.
    """
    layers = weights.kernels_and_biases(weights.read(path), path)
    if not len(layers[0][1]):
        raise weights.WeightsError(f"--weights={path}: the first layer has no channels")
    if len(layers[-1][1]) != OUTPUTS:
        raise weights.WeightsError(
            f"--weights={path}: the network has {len(layers[-1][1])} outputs; one trained on all of"
            f" ImageNet has {OUTPUTS:,}"
        )
    width = len(layers[0][1]) / CHANNELS
    model = models.build("alexnet", width, OUTPUTS, input_shape)
    weights.assign(model, layers, path)
    return model


def predictions(model: keras.Model, config: Config, source: data.Source) -> np.ndarray:
    """The outputs `[n, L]` for the test pictures."""
    preprocess = pipeline.preprocessing(source, config.image_size, 0, config.input_shape[-1])
    size = pipeline.evaluation_batch_size(config.input_shape)
    batches = pipeline.evaluation_batches(source.test, preprocess, config.num_classes, size)
    return model.predict(batches.map(lambda x, _: x), verbose=0)


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
    overall = np.argmax(outputs, axis=1) == position[labels]
    among = np.argmax(outputs[:, position], axis=1) == labels
    return float(np.mean(overall)), float(np.mean(among))
