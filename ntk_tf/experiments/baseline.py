"""`--experiment=baseline`: logistic regression on the pixels that the networks see.

Multinomial, by L-BFGS, with scikit-learn's usual L2 penalty (C = 1).
"""

import time
import warnings
from typing import Any

import numpy as np
from rich.console import Console

from ntk_tf import data, runs
from ntk_tf.config import Config, Options
from ntk_tf.data import pipeline

#: Iterations of L-BFGS unless `--max_steps` says otherwise: scikit-learn's default.
ITERATIONS = 100


def run(config: Config, options: Options, console: Console) -> dict[str, Any]:
    """Fit and evaluate; see `experiments.run`."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    started = time.monotonic()
    source = data.load_for(config, options)
    runs.open_workdir(options.workdir, config.to_dict(), options.resume, source.classes)
    model = LogisticRegression(max_iter=config.max_steps or ITERATIONS)
    with console.status("logistic regression"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        pixels = {split: inputs(config, source, split) for split in ("train", "test")}
        model.fit(pixels["train"], source.train.labels)
        accuracy = {
            split: float(model.score(pixels[split], getattr(source, split).labels))
            for split in pixels
        }
    iterations = int(model.n_iter_.max())
    result = {
        "status": "completed",
        "train_accuracy": accuracy["train"],
        "test_accuracy": accuracy["test"],
        "iterations": iterations,
        "converged": iterations < model.max_iter,
        "parameters": int(model.coef_.size + model.intercept_.size),
        "seconds": round(time.monotonic() - started, 3),
        "versions": runs.versions() | {"scikit-learn": _version()},
    }
    path = options.workdir / "result.json"
    runs.insist(lambda: runs.write_json(path, result), options.checkpoint_minutes)
    return result


def inputs(config: Config, source: data.Source, split: str) -> np.ndarray:
    """The pixels of a split's pictures as the network sees them: float32 `[n, h * w * c]`."""
    preprocess = pipeline.preprocessing(
        source, config.image_size, config.padding, config.input_shape[-1]
    )
    pictures = getattr(source, split)
    rows = np.empty((len(pictures), *config.input_shape), np.float32)
    size = pipeline.evaluation_batch_size(config.input_shape)
    batches = pipeline.evaluation_batches(pictures, preprocess, config.num_classes, size)
    for i, (x, _) in enumerate(batches):
        rows[i * size : i * size + len(x)] = x
    return rows.reshape(len(rows), -1)


def _version() -> str:
    import sklearn

    return sklearn.__version__
