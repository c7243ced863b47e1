"""The spectrum of a network's output gradients, from its Gram.

A is the matrix `[n L, p]` of the gradients of all L outputs at n training pictures in all p
weights; it is never held, only its Gram A A^T, the neural tangent kernel (Figure 5 of Samarin et
al. 2020), or what is asked for of it. On request the regression with that kernel tells where
training the linearization on these pictures ends, and what the kernel alone knows of them, for a
trained network beside the kernel at its initialization.
"""

import collections
import dataclasses
import pathlib
import shutil
import time
from typing import Any

import keras
import numpy as np
from rich.console import Console

from ntk_tf import ntk, runs
from ntk_tf.data import DataError
from ntk_tf.experiments import network, trained_weights
from ntk_tf.experiments.inputs import Inputs
from ntk_tf.experiments.network import title
from ntk_tf.experiments.rank import Rank, figure, regression
from ntk_tf.linearization import map_batches
from ntk_tf.linearization.check import HiddenWeightsError
from ntk_tf.models.size import parameters
from ntk_tf.ntk.regression import Regression
from ntk_tf.process import signals, terminal
from ntk_tf.process.memory import budget, peak_memory
from ntk_tf.runs import checkpoint
from ntk_tf.runs.saving import SaveWhenDue
from ntk_tf.settings import Options, SettingError
from ntk_tf.training.state import fingerprint

_META = {"fingerprint", "stages", "seconds", "steps", "memory_gib"}


def run(config: Rank, options: Options, console: Console) -> dict[str, Any]:
    """Compute the spectrum, from where an earlier process stopped; see `experiment.Experiment`.

    Raises:
        DataError: if there are fewer pictures than asked for, or too little memory.
        SettingError: if a network of the user's hides weights from differentiation.
        RunDirectoryError: if an earlier process divided the work otherwise.
    """
    began = time.monotonic()
    inputs = Inputs(config, options)
    available = len(inputs.source.train)
    if config.examples > available:
        raise DataError(
            f"examples={config.examples}: {config.dataset} has {available:,} training pictures"
        )
    if config.from_run and config.kernel_regression:
        trained_weights.check_start(config)
    model, step = network.build(config, options.workdir)
    inputs.open_workdir(console)
    try:
        rank = _Rank(config, options, inputs, (model, step), console)
        rank.history.started = began
        result = rank.run()
    except ntk.BudgetError as error:
        raise DataError(str(error)) from error
    except HiddenWeightsError as error:
        raise SettingError(f"--arch={config.arch}: {error}") from error
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
    if "accuracies" in result:
        console.print(regression.show(result["accuracies"]))
    return complete


class _Rank:
    """One run: its network and pictures, what has been done, and the clock."""

    def __init__(
        self,
        config: Rank,
        options: Options,
        inputs: Inputs,
        start: tuple[keras.Model, int],
        console: Console,
    ):
        self.config, self.options, self.inputs = config, options, inputs
        (self.model, self.updates), self.console = start, console
        self.checkpoints = options.workdir / "checkpoint"
        self.memory_gib = options.memory_gib or budget(8 * config.rows**2)
        self.stages: dict[str, list[float]] = collections.defaultdict(lambda: [0.0, 0.0])
        self.history = runs.History()
        self.accuracies: list[dict[str, Any]] = []

    def run(self) -> dict[str, Any]:
        """Compute everything; the content of rank.json.

        Raises:
            DataError: if the kernel is zero or not finite.
        """
        config, outputs = self.config, self.config.num_classes
        x = self._arrays(self.inputs.source.train.first(config.examples))
        problem = self._problem(x) if config.kernel_regression else None
        partial = self._restore(self.model, self.checkpoints)
        if problem and self.updates and not self.accuracies:
            self.accuracies = [self._at_start(problem)]
        gram = self._gram(self.model, x, self.checkpoints, partial)
        if not (np.isfinite(gram.sum()) and gram.any()):
            raise DataError(
                "the kernel is zero or not finite; must be neither: another --output_factor, or"
                " --precision=float64"
            )
        regressed = self._regressions(gram, problem) if problem else None
        started = time.monotonic()
        with self.console.status("eigenvalues"):
            spectrum = ntk.decompose(gram, overwrite=True)
        del gram
        self.stages["eigenvalues"] = [time.monotonic() - started, 0.0]
        found = {"singular_values": spectrum.singular_values}
        path = self.options.workdir / "spectrum.npz"
        runs.insist(lambda: runs.write_arrays(path, found), self.options.checkpoint_minutes)
        accuracies = self._accuracies(problem, *regressed) if problem and regressed else {}
        return {
            "effective_rank": spectrum.effective_rank,
            "examples": config.examples,
            "outputs": outputs,
            "rows": config.rows,
            "parameters": parameters(self.model),
            "width": config.width,
            "seed": config.seed,
            "seconds": round(self.history.elapsed(), 3),
            "trace": spectrum.trace,
            "largest_eigenvalue": spectrum.largest_eigenvalue,
            "smallest_eigenvalue": spectrum.smallest_eigenvalue,
            "condition_of_singular_values": spectrum.condition,
            "condition_of_eigenvalues": spectrum.condition**2,
            **accuracies,
            "peak_memory_gib": round(peak_memory() / 2**30, 3),
            "stages": {
                name: {
                    "seconds": round(seconds, 3),
                    "gflops": round(operations / seconds / 1e9, 1) if operations else None,
                }
                for name, (seconds, operations) in self.stages.items()
            },
        }

    def _arrays(self, split) -> np.ndarray:
        """Pictures as the network sees them, in its precision."""
        return self.inputs.arrays(split).astype(self.config.precision)

    def _gram(
        self,
        model: keras.Model,
        x: np.ndarray,
        place: pathlib.Path,
        partial: ntk.Partial | None,
        moment: str = "",
    ) -> np.ndarray:
        """Theta, going on from a checkpoint in a folder, with a progress bar."""
        known = fingerprint(model.variables)
        with terminal.progress(self.console) as progress, signals.deferred():
            task = progress.add_task(f"NTK of {title(self.config)}{moment}", total=None)
            save = SaveWhenDue(lambda _: self._save(place, known))

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
                model,
                x,
                outputs=self.config.outputs,
                memory_gib=self.memory_gib,
                precision=self.config.precision,
                after_step=after_step,
                partial=partial,
            )
            return np.asarray(gram)

    def _save(self, place: pathlib.Path, known: int) -> None:
        """Write a checkpoint of the Gram so far."""
        meta = {
            "memory_gib": self.memory_gib,
            "steps": self.step.total,
            "seconds": self.history.elapsed(),
            "stages": self.stages,
            "fingerprint": known,
            "accuracies": self.accuracies,
        }
        checkpoint.save(
            place, checkpoint.Checkpoint(self.step.done, {"gram": self.step.gram}, meta)
        )

    def _restore(self, model: keras.Model, place: pathlib.Path) -> ntk.Partial | None:
        """What an earlier process has done, if anything; see `checkpoint.restore`."""
        found = checkpoint.restore(place, _META, fingerprint(model.variables))
        if found is None:
            return None
        asked = self.options.memory_gib
        self.accuracies = found.meta.get("accuracies", [])  # absent before version 0.2
        unfinished = found.step < found.meta["steps"]
        if unfinished and asked and asked != found.meta["memory_gib"]:
            terminal.say(
                self.console,
                f"the kernel begins anew: its steps so far were those of"
                f" --memory_gib={found.meta['memory_gib']:g}",
            )
            checkpoint.remove(place)
            return None
        self.stages.update(found.meta["stages"])
        self.history.seconds = found.meta["seconds"]
        self.memory_gib = found.meta["memory_gib"]
        terminal.say(self.console, f"going on after step {found.step}")
        steps = found.meta["steps"]
        return ntk.Partial(found.step, steps, found.arrays["gram"], self.memory_gib)

    def _problem(self, x: np.ndarray) -> regression.Problem:
        """What the regressions learn, and what they predict."""
        config, source = self.config, self.inputs.source
        labels = source.train.labels[: config.examples]
        return regression.Problem(
            x,
            labels,
            self.inputs.wanted(labels),
            self._arrays(source.test),
            source.test.labels,
            config.outputs,
            config.precision,
            self.memory_gib,
        )

    def _at_start(self, problem: regression.Problem) -> dict[str, Any]:
        """The row of the kernel at the initialization, of a network that has been trained."""
        untrained: Any = {"from_run": None, "pretrain_steps": 0}
        config = dataclasses.replace(self.config, **untrained)
        model, _ = network.build(config, self.options.workdir)
        place = self.checkpoints / "start"
        partial = self._restore(model, place)
        gram = self._gram(model, problem.x, place, partial, " at the initialization")
        with self.console.status("regression with the kernel at the initialization"):
            fits = regression.fit(gram, problem)
            del gram
            predicted = problem.predict(model, fits.duals)
            return regression.of_kernel(fits, predicted, problem, 0)

    def _regressions(
        self, gram: np.ndarray, problem: regression.Problem
    ) -> tuple[regression.Fits, Regression]:
        """On the kernel alone, and the linearization trained to the end on the n examples."""
        with self.console.status("kernel regression"):
            offset = _outputs(self.model, problem.x)
            arguments = self.config.ridge, self.config.precision
            linearization = ntk.kernel_regression(gram, problem.targets, offset, *arguments)
            return regression.fit(gram, problem), linearization

    def _accuracies(
        self, problem: regression.Problem, fits: regression.Fits, linearization: Regression
    ) -> dict[str, Any]:
        """What rank.json says of the regressions: the linearization's accuracies, and all rows."""
        model, updates = self.model, self.updates
        with self.console.status("test pictures"):
            start = _outputs(model, problem.x), _outputs(model, problem.test)
            *alone, moved = problem.predict(model, [*fits.duals, linearization.dual])
        fitted = linearization.fitted
        return {
            "ridge": self.config.ridge,
            **problem.accuracies(fitted, start[1] + moved),
            "train_loss": float(np.mean((fitted - problem.targets) ** 2)),
            "test_examples": len(problem.test),
            "accuracies": [
                *self.accuracies,
                regression.of_kernel(fits, alone, problem, updates),
                {"of": "network", "updates": updates, **problem.accuracies(*start)},
            ],
        }


def _outputs(model: keras.Model, x: np.ndarray) -> np.ndarray:
    return map_batches(lambda part: model(part, training=False), x)
