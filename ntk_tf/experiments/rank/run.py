"""The spectrum of a network's output gradients, from its Gram.

A is the matrix `[n L, p]` of the gradients of all L outputs at n training pictures in all p
weights; it is never held, only its Gram A A^T, the neural tangent kernel (Figure 5 of Samarin et
al. 2020). On request the regression with that kernel tells where training the linearization on
these pictures ends.
"""

import collections
import math
import shutil
import time
from typing import Any

import keras
import numpy as np
from rich.console import Console

from ntk_tf import ntk, runs
from ntk_tf.data import DataError
from ntk_tf.experiments import network
from ntk_tf.experiments.inputs import Inputs
from ntk_tf.experiments.network import title
from ntk_tf.experiments.rank import Rank, figure
from ntk_tf.linearization import LinearizedModel, map_batches
from ntk_tf.process import signals, terminal
from ntk_tf.process.memory import free_memory, peak_memory
from ntk_tf.runs import checkpoint
from ntk_tf.runs.saving import SaveWhenDue
from ntk_tf.settings import Options
from ntk_tf.training.state import fingerprint

_META = {"fingerprint", "stages", "seconds", "steps", "memory_gib"}


def run(config: Rank, options: Options, console: Console) -> dict[str, Any]:
    """Compute the spectrum, from where an earlier process stopped; see `experiments.Experiment`.

    Raises:
        DataError: if there are fewer pictures than asked for, or too little memory.
        RunDirectoryError: if an earlier process divided the work otherwise.
    """
    inputs = Inputs(config, options)
    available = len(inputs.source.train)
    if config.examples > available:
        raise DataError(
            f"examples={config.examples}: {config.dataset} has {available} training pictures"
        )
    model, step = network.build(config, options.workdir)
    if config.precision == "float64":
        model = network.in_float64(model, config)
    inputs.open_workdir(console)
    try:
        result = _Rank(config, options, inputs, model, console).run()
    except ntk.BudgetError as error:
        raise DataError(str(error)) from error
    except ntk.PartialError as error:
        raise runs.RunDirectoryError(
            f"{options.workdir / 'checkpoint'}: {error}; remove the folder to start anew"
        ) from error
    if step:
        result["from_step"] = step
    complete = {"status": "completed"} | result | runs.provenance()

    def finish() -> None:
        runs.write_json(options.workdir / "rank.json", result)
        figure.draw([options.workdir], options.workdir)
        runs.write_json(options.workdir / "result.json", complete)

    runs.insist(finish, options.checkpoint_minutes)
    shutil.rmtree(options.workdir / "checkpoint", ignore_errors=True)
    return complete


class _Rank:
    """One run: its network and pictures, what has been done, and the clock."""

    def __init__(
        self, config: Rank, options: Options, inputs: Inputs, model: keras.Model, console: Console
    ):
        self.config, self.options, self.inputs = config, options, inputs
        self.model, self.console = model, console
        self.checkpoints = options.workdir / "checkpoint"
        self.memory_gib = options.memory_gib or free_memory() / 2
        self.stages: dict[str, list[float]] = collections.defaultdict(lambda: [0.0, 0.0])
        self.history = runs.History()
        self.fingerprint = fingerprint(model.variables)

    def run(self) -> dict[str, Any]:
        """Compute everything; the content of rank.json."""
        config, outputs = self.config, self.config.num_classes
        x = self._arrays(self.inputs.source.train.first(config.examples))
        gram = self._gram(x)
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
            "parameters": sum(math.prod(w.shape) for w in self.model.trainable_weights),
            "width": config.width,
            "seed": config.seed,
            "seconds": round(self.history.elapsed(), 3),
            "trace": spectrum.trace,
            "largest_eigenvalue": spectrum.largest_eigenvalue,
            "smallest_eigenvalue": spectrum.smallest_eigenvalue,
            "condition_of_singular_values": spectrum.condition,
            "condition_of_eigenvalues": spectrum.condition**2,
            **regression,
            "peak_memory_gib": round(peak_memory() / 2**30, 3),
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

    def _arrays(self, split) -> np.ndarray:
        """Pictures as the network sees them, in its precision."""
        return self.inputs.arrays(split).astype(self.config.precision)

    def _gram(self, x: np.ndarray) -> np.ndarray:
        """Theta `[n, L, n, L]`, going on from a checkpoint, with a progress bar."""
        with terminal.progress(self.console) as progress, signals.deferred():
            task = progress.add_task(f"NTK of {title(self.config)}", total=None)
            save = SaveWhenDue(lambda _: self._save())

            def after_step(step: ntk.Step) -> None:
                self.step = step
                stage = self.stages[step.name]
                stage[0] += step.seconds
                stage[1] += step.operations or 0.0
                progress.update(task, total=step.total, completed=step.done)
                # Before the eigenvalues, which do not listen to signals, all is saved.
                minutes = self.options.checkpoint_minutes
                due = min(1.0, minutes) if step.done == step.total else minutes
                save.after(step.done, 60 * due)

            gram = ntk.gram(
                self.model,
                x,
                memory_gib=self.memory_gib,
                precision=self.config.precision,
                after_step=after_step,
                partial=self._restore(),
            )
            return np.asarray(gram)

    def _save(self) -> None:
        """Write a checkpoint of the Gram so far."""
        meta = {
            "memory_gib": self.memory_gib,
            "steps": self.step.total,
            "seconds": self.history.elapsed(),
            "stages": self.stages,
            "fingerprint": self.fingerprint,
        }
        found = checkpoint.Checkpoint(self.step.done, {"gram": self.step.gram}, meta)
        checkpoint.save(self.checkpoints, found)

    def _restore(self) -> ntk.Partial | None:
        """What an earlier process has done, if anything; see `checkpoint.restore`."""
        found = checkpoint.restore(self.checkpoints, _META, self.fingerprint)
        if found is None:
            return None
        self.stages.update(found.meta["stages"])
        self.history = runs.History(seconds=found.meta["seconds"])
        self.memory_gib = found.meta["memory_gib"]
        terminal.say(self.console, f"going on after step {found.step}")
        steps = found.meta["steps"]
        return ntk.Partial(found.step, steps, found.arrays["gram"], self.memory_gib)

    def _regression(self, gram: np.ndarray, x: np.ndarray) -> dict[str, float]:
        """Accuracies of the linearization trained to the end on the n examples."""
        config, source = self.config, self.inputs.source
        labels = source.train.labels[: config.examples]
        targets = self.inputs.wanted(labels)
        with self.console.status("kernel regression"):
            offset = map_batches(lambda part: self.model(part, training=False), x)
            solution = ntk.kernel_regression(gram, targets, offset, config.ridge, config.precision)
            linear = LinearizedModel(self.model)
            dual = solution.dual.astype(config.precision)
            minimizer = linear.jacobian.vjp_in_batches(x, dual)  # u = A^T alpha
            for u, value in zip(linear.trainable_weights, minimizer, strict=True):
                u.assign(value)
            test = self._arrays(source.test)
            predicted = map_batches(lambda part: linear(part, training=False), test)
        return {
            "ridge": config.ridge,
            "train_accuracy": _accuracy(solution.fitted, labels),
            "test_accuracy": _accuracy(predicted, source.test.labels),
            "train_loss": float(np.mean((solution.fitted - targets) ** 2)),
            "test_examples": len(source.test),
        }


def _accuracy(outputs: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(outputs.argmax(axis=1) == labels))
