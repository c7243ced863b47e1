"""`--experiment=baseline`: logistic regression on the pixels that the networks see.

Multinomial, by L-BFGS, with scikit-learn's usual L2 penalty (C = 1).
"""

import time
import warnings
from typing import Any

from rich.console import Console

from ntk_tf import runs
from ntk_tf.experiments.baseline import Baseline
from ntk_tf.experiments.inputs import Inputs
from ntk_tf.settings import Options

#: Iterations of L-BFGS unless `--max_steps` says otherwise: scikit-learn's default.
ITERATIONS = 100


def run(config: Baseline, options: Options, console: Console) -> dict[str, Any]:
    """Fit and evaluate; see `experiment.Experiment`.

    Raises:
        DataError: if all training pictures are of one class.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    started = time.monotonic()
    inputs = Inputs(config, options)
    inputs.insist_on_classes()
    inputs.open_workdir(console)
    splits = {"train": inputs.source.train, "test": inputs.source.test}
    model = LogisticRegression(max_iter=config.max_steps or ITERATIONS)
    with console.status("logistic regression"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        pixels = {name: inputs.arrays(s).reshape(len(s), -1) for name, s in splits.items()}
        model.fit(pixels["train"], splits["train"].labels)
        accuracy = {name: float(model.score(pixels[name], splits[name].labels)) for name in splits}
    iterations = int(model.n_iter_.max())
    result = {
        "status": "completed",
        "train_accuracy": accuracy["train"],
        "test_accuracy": accuracy["test"],
        "iterations": iterations,
        "converged": iterations < model.max_iter,
        "parameters": int(model.coef_.size + model.intercept_.size),
        "seconds": round(time.monotonic() - started, 3),
    } | runs.provenance()
    result["versions"]["scikit-learn"] = _version()
    path = options.workdir / "result.json"
    runs.insist(lambda: runs.write_json(path, result), options.checkpoint_minutes)
    return result


def _version() -> str:
    import sklearn

    return sklearn.__version__
