"""`--experiment=rank`: singular values of a network's output gradients, and their effective rank.

A is the matrix `[n L, p]` of the gradients of all L outputs at n training pictures in all p
weights; it is never held, only its Gram A A^T, the neural tangent kernel (Figure 5 of Samarin et
al. 2020). On request the regression with that kernel tells where training the linearization on
these pictures ends.
"""

import collections
import resource
import shutil
import sys
import time
import zlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ntk_tf import data, models, ntk, runs, signals
from ntk_tf.config import Config, Options
from ntk_tf.data import pipeline
from ntk_tf.experiments.run_weights import load_weights
from ntk_tf.experiments.train import title
from ntk_tf.linearization import LinearizedModel
from ntk_tf.reporting import rank as figures
from ntk_tf.training import checkpoint


def run(config: Config, options: Options, console: Console) -> dict[str, Any]:
    """Compute the spectrum, from where an earlier process stopped; see `experiments.run`.

    Raises:
        DataError: if there are fewer pictures than asked for, or too little memory.
        RunDirectoryError: if an earlier process divided the work otherwise.
    """
    source = data.load_for(config, options)
    if config.examples > len(source.train):
        raise data.DataError(
            f"--examples={config.examples}: {config.dataset} has {len(source.train)} training"
            " pictures"
        )
    model, step = _network(config)
    runs.open_workdir(options.workdir, config.to_dict(), options.resume, source.classes)
    try:
        result = _Rank(config, options, source, model, console).run()
    except ntk.BudgetError as error:
        raise data.DataError(f"--{error}") from error
    except ntk.PartialError as error:
        raise runs.RunDirectoryError(
            f"{options.workdir / 'checkpoint'}: {error}; remove the folder to start anew"
        ) from error
    if step is not None:
        result["from_step"] = step
    complete = {"status": "completed"} | result | {"versions": runs.versions()}

    def finish() -> None:
        runs.write_json(options.workdir / "rank.json", result)
        figures.draw([options.workdir], options.workdir)
        runs.write_json(options.workdir / "result.json", complete)

    runs.insist(finish, options.checkpoint_minutes)
    shutil.rmtree(options.workdir / "checkpoint", ignore_errors=True)
    return complete


def _network(config: Config) -> tuple[keras.Model, int | None]:
    """The network, and the update that its weights are from; None for the initialization."""
    arguments = config.arch, config.width, config.num_classes, config.input_shape, config.seed
    model, step = models.build(*arguments), None
    if config.from_run is not None:
        step = load_weights(model, config)
    if config.precision == "float64":
        model = _in_float64(model, arguments)
    return model, step


def _in_float64(model: keras.Model, arguments: tuple) -> keras.Model:
    """The same network with the same weights, computing in float64."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    try:
        precise = models.build(*arguments)
    finally:
        keras.config.set_dtype_policy(before)
    for variable, source in zip(precise.variables, model.variables, strict=True):
        variable.assign(tf.cast(source.value, tf.float64))
    return precise


class _Rank:
    """One run: its network and pictures, what has been done, and the clock."""

    def __init__(
        self,
        config: Config,
        options: Options,
        source: data.Source,
        model: keras.Model,
        console: Console,
    ):
        self.config, self.options, self.source = config, options, source
        self.model, self.console = model, console
        self.checkpoints = options.workdir / "checkpoint"
        self.memory_gib = options.memory_gib or ntk.free_memory() / 2
        self.stages: dict[str, list[float]] = collections.defaultdict(lambda: [0.0, 0.0])
        self.seconds, self.started = 0.0, time.monotonic()
        self.saved = self.started
        self.fingerprint = 0
        for variable in model.variables:
            self.fingerprint = zlib.crc32(variable.numpy().tobytes(), self.fingerprint)

    def run(self) -> dict[str, Any]:
        """Compute everything; the content of rank.json."""
        config, outputs = self.config, self.config.num_classes
        x = self._inputs(self.source.train.first(config.examples))
        rates = [_product_rate(config.precision)]
        gram = self._gram(x)
        rates.append(_product_rate(config.precision))
        regression = self._regression(gram, x) if config.kernel_regression else {}
        started = time.monotonic()
        with self.console.status("eigenvalues"):
            spectrum = ntk.decompose(gram, overwrite=True)
        del gram
        self.stages["eigenvalues"] = [time.monotonic() - started, 0.0]
        runs.insist(lambda: self._write(spectrum), self.options.checkpoint_minutes)
        return {
            "effective_rank": spectrum.effective_rank,
            "examples": config.examples,
            "outputs": outputs,
            "rows": config.examples * outputs,
            "parameters": int(sum(np.prod(w.shape) for w in self.model.trainable_weights)),
            "width": config.width,
            "seed": config.seed,
            "seconds": round(self._elapsed(), 3),
            "trace": spectrum.trace,
            "largest_eigenvalue": spectrum.largest_eigenvalue,
            "smallest_eigenvalue": spectrum.smallest_eigenvalue,
            "condition": spectrum.condition,
            **regression,
            "peak_memory_gib": round(_peak_memory_gib(), 3),
            "matrix_product_gflops": [round(rate, 1) for rate in rates],
            "stages": {
                name: {
                    "seconds": round(seconds, 3),
                    "gflops": round(operations / seconds / 1e9, 1) if operations else None,
                }
                for name, (seconds, operations) in self.stages.items()
            },
        }

    def _write(self, spectrum: ntk.Spectrum) -> None:
        with runs.atomic_write(self.options.workdir / "spectrum.npz", "wb") as file:
            np.savez(file, singular_values=spectrum.singular_values)

    def _inputs(self, split: data.Split) -> np.ndarray:
        """Pictures as the network sees them, `[n, h, w, c]`."""
        config = self.config
        preprocess = pipeline.preprocessing(
            self.source, config.image_size, config.padding, config.input_shape[-1]
        )
        size = pipeline.evaluation_batch_size(config.input_shape)
        batches = pipeline.evaluation_batches(split, preprocess, config.num_classes, size)
        return np.concatenate([x.numpy() for x, _ in batches]).astype(config.precision)

    def _gram(self, x: np.ndarray) -> np.ndarray:
        """Theta `[n, L, n, L]`, going on from a checkpoint, with a progress bar."""
        progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:3.0f}%"),
            TimeElapsedColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
            transient=True,
        )
        with progress, signals.deferred():
            task = progress.add_task(f"NTK of {title(self.config)}", total=None)

            def after_step(step: ntk.Step) -> None:
                stage = self.stages[step.name]
                stage[0] += step.seconds
                stage[1] += step.operations or 0.0
                progress.update(task, total=step.total, completed=step.done)
                # Before the eigenvalues, which do not listen to signals, all is saved.
                minutes = min(1.0, self.options.checkpoint_minutes)
                due = minutes if step.done == step.total else self.options.checkpoint_minutes
                if signals.pending() or time.monotonic() - self.saved > 60 * due:
                    runs.attempt(lambda: self._save(step))
                    self.saved = time.monotonic()
                signals.obey()

            return ntk.gram(
                self.model,
                x,
                memory_gib=self.memory_gib,
                precision=self.config.precision,
                after_step=after_step,
                partial=self._restore(),
            )

    def _save(self, step: ntk.Step) -> None:
        meta = {
            "memory_gib": self.memory_gib,
            "steps": step.total,
            "seconds": self._elapsed(),
            "stages": self.stages,
            "fingerprint": self.fingerprint,
        }
        found = checkpoint.Checkpoint(step.done, {"gram": step.gram}, meta)
        checkpoint.save(self.checkpoints, found)

    def _restore(self) -> ntk.Partial | None:
        """What an earlier process has done, if anything.

        Raises:
            RunDirectoryError: if it was done with other weights.
        """
        found = checkpoint.restore(self.checkpoints)
        if found is None:
            return None
        if not {"fingerprint", "stages", "seconds", "steps", "memory_gib"} <= found.meta.keys():
            raise runs.RunDirectoryError(
                f"{self.checkpoints}: made by another version of ntk_tf; remove the folder to"
                " start anew"
            )
        if found.meta["fingerprint"] != self.fingerprint:
            raise runs.RunDirectoryError(
                f"{self.checkpoints}: made with other weights; remove the folder to start anew"
            )
        self.stages.update(found.meta["stages"])
        self.seconds = found.meta["seconds"]
        self.memory_gib = found.meta["memory_gib"]
        self.console.print(f"going on after step {found.step}")
        steps = found.meta["steps"]
        return ntk.Partial(found.step, steps, found.arrays["gram"], self.memory_gib)

    def _regression(self, gram: np.ndarray, x: np.ndarray) -> dict[str, float]:
        """Accuracies of the linearization trained to the end on the n examples."""
        config = self.config
        labels = self.source.train.labels[: config.examples]
        targets = np.eye(config.num_classes)[labels]
        with self.console.status("kernel regression"):
            offset = _batched(lambda part: self.model(part, training=False), x)
            solution = ntk.kernel_regression(gram, targets, offset, config.ridge)
            linear = LinearizedModel(self.model)
            _assign_minimizer(linear, x, solution.dual)
            test = self._inputs(self.source.test)
            predicted = _batched(lambda part: linear(part, training=False), test)
        return {
            "ridge": config.ridge,
            "train_accuracy": _accuracy(solution.fitted, labels),
            "test_accuracy": _accuracy(predicted, self.source.test.labels),
            "train_loss": float(np.mean((solution.fitted - targets) ** 2)),
            "test_examples": len(self.source.test),
        }

    def _elapsed(self) -> float:
        return self.seconds + time.monotonic() - self.started


def _assign_minimizer(linear: LinearizedModel, x: np.ndarray, dual: np.ndarray) -> None:
    """Set u = A^T alpha, summed over batches: one vector-Jacobian product of all outputs."""
    weights = [w.value for w in linear.base.trainable_weights]
    for u in linear.trainable_weights:
        u.assign(tf.zeros_like(u.value))
    for part in _ranges(len(x)):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            outputs = linear.base(x[part], training=False)
        cotangents = tf.constant(dual[part], outputs.dtype)
        for u, g in zip(
            linear.trainable_weights,
            tape.gradient(outputs, weights, cotangents, tf.UnconnectedGradients.ZERO),
            strict=True,
        ):
            u.assign_add(g)


def _batched(function, x: np.ndarray) -> np.ndarray:
    """A function of a batch, applied to all; float64."""
    return np.concatenate([np.asarray(function(x[part]), np.float64) for part in _ranges(len(x))])


def _ranges(count: int, size: int = 100) -> list[slice]:
    return [slice(start, start + size) for start in range(0, count, size)]


def _accuracy(outputs: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(outputs.argmax(axis=1) == labels))


def _product_rate(precision: str) -> float:
    """Billions of operations a second in a large matrix product, the best of three."""
    a = tf.ones((1024, 4096), precision)
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        tf.matmul(a, a, transpose_b=True).numpy()
        seconds.append(time.perf_counter() - started)
    return 2 * 1024 * 1024 * 4096 / min(seconds) / 1e9


def _peak_memory_gib() -> float:
    """The most memory that the process has had."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
