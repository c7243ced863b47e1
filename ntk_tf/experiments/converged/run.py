"""The converged linearization of a network, by conjugate gradients over all training pictures.

Training T(u) = f + J u by mean squared error and weight decay has one minimizer, which needs no
SGD; how well it does on training and test pictures is recorded after every step towards it. A run
goes on after any step as if it had not been interrupted.
"""

import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console

from ntk_tf import ntk, runs
from ntk_tf.data import DataError
from ntk_tf.data.source import Split
from ntk_tf.experiments import network
from ntk_tf.experiments.converged import Converged, figure
from ntk_tf.experiments.converged.record import Record
from ntk_tf.experiments.inputs import Inputs
from ntk_tf.experiments.network import title
from ntk_tf.linearization.ridge import Ridge
from ntk_tf.linearization.solve import (
    ConjugateGradients,
    NotFiniteError,
    Preconditioner,
    State,
    dot,
    preconditioner,
)
from ntk_tf.ntk.regression import accuracy
from ntk_tf.process import signals, terminal
from ntk_tf.runs import checkpoint
from ntk_tf.runs.saving import SaveWhenDue
from ntk_tf.settings import Options
from ntk_tf.training.state import fingerprint

_VECTORS = ("u", "r", "p", "best")
_ARRAYS = ("outputs", "tangents", "zeta", "ratio", "betas", "residuals")
_NUMBERS = ("length", "rz", "norm", "least", "drifted", "exhausted")
_META = {"fingerprint", "tables", "seconds", "seconds_in", *_NUMBERS}
#: GiB for the preconditioner's Gram besides itself and the room that its factor takes later. Not
#: what is free, so that the order of its sums, and with it the last bit of every result, is the
#: same in each process.
_GRAM_GIB = 1.0


def run(config: Converged, options: Options, console: Console) -> dict[str, Any]:
    """Solve, from where an earlier process stopped; see `experiment.Experiment`.

    Raises:
        DataError: if the memory does not hold the preconditioner's Gram, or the network's outputs
            or gradients are not finite.
        RunDirectoryError: if an earlier process had other weights.
        SettingError: if a network of the user's cannot be linearized.
    """
    began = time.monotonic()
    inputs = Inputs(config, options)
    model, step = network.build(config, options.workdir)
    inputs.open_workdir(console)
    solver = _Converged(config, options, inputs, model)
    solver.history.started = began
    solver.history.add("start", time.monotonic() - began)
    try:
        state, stopped_by = solver.solve(console)
    except (ntk.BudgetError, NotFiniteError) as error:
        raise DataError(str(error)) from error
    result = solver.result(state, stopped_by) | ({"from_step": step} if step else {})

    def finish() -> None:
        if config.weight_decays:
            figure.draw(result["solutions"], solver.title, options.workdir)
        runs.write_json(options.workdir / "result.json", result)

    runs.insist(finish, options.checkpoint_minutes)
    solver.preconditioner_path.unlink(missing_ok=True)
    return result


class _Converged:
    """One run: its regression, where it is, and what has been recorded."""

    def __init__(self, config: Converged, options: Options, inputs: Inputs, model: keras.Model):
        self.config, self.options, self.inputs, self.model = config, options, inputs, model
        self.checkpoints = options.workdir / "checkpoint"
        self.preconditioner_path = self.checkpoints / "cholesky.npz"
        self.fingerprint = fingerprint(model.variables)
        self.title = f"linearized {title(config)}"
        self.splits = self.train, self.test = inputs.source.train, inputs.source.test
        batches, rows = inputs.evaluation_batches(self.train), len(self.train) * config.num_classes
        self.ridge = Ridge(
            model,
            batches,
            rows,
            config.decays,
            config.decay_toward,
            config.centered,
            watched=inputs.evaluation_batches(self.test).map(lambda x, y: x),
        )
        jacobian = self.ridge.jacobian
        network.check_linearizable(config, lambda x: jacobian.check(x, "graph"), "float32")
        self.history = runs.History()
        self.tested = np.empty(0)
        self.restored = self._restore()

    def solve(self, console: Console) -> tuple[State, str]:
        """Go on until it is done, then see that all of it is written; and what has ended it."""
        config, minutes = self.config, self.options.checkpoint_minutes
        rows = self.history.table("metrics")
        record = Record(self.options.workdir, rows, self.title, config.tolerance, console)
        save = SaveWhenDue(lambda _: self._save(state))

        def recorded(reached: State) -> State:
            record.add(self._measure(reached))
            return reached

        if self.restored:
            terminal.say(console, f"going on after pass {self.restored.passes}")
        with signals.deferred(), record:
            method = ConjugateGradients(self.ridge, self._precondition(console), config.tolerance)
            state = self.restored or recorded(self._timed(method.start))
            while (stopped_by := self._stopped_by(state)) is None:
                state = recorded(self._timed(method.step, state))
                save.after(state.passes, 60 * minutes)
        runs.insist(record.complete, minutes)
        runs.insist(lambda: self._save(state), minutes)
        if state.exhausted:
            residual = f"{self.ridge.dtype.name} holds no residual below {state.residual:.1e}"
            terminal.say(console, f"{residual}; tolerance={config.tolerance:g} is not reached")
        if not config.weight_decays or state.passes == 1:  # at the start they are computed
            return state, stopped_by
        with console.status("residuals"):
            return self._timed(method.confirm, state), stopped_by

    def _timed(self, work: Callable[..., State], *given: State) -> State:
        """What passes over the data lead to."""
        with self.history.timed("passes"):
            return work(*given)

    def _stopped_by(self, state: State) -> str | None:
        """What ends the passes, the precision or a setting; None where they go on."""
        config, change = self.config, self.history.table("metrics")[-1]["output_change"]
        settled = change is not None and change <= config.tolerance
        if state.residual == 0 or (settled and state.residual <= config.tolerance):
            return "tolerance"
        if state.exhausted:
            return "precision"
        confirming = len(config.decays) if config.weight_decays else 0
        return "max_passes" if state.passes + confirming >= config.max_passes else None

    def _precondition(self, console: Console) -> Preconditioner | None:
        """The preconditioner, of an earlier process if that has left one.

        Raises:
            DataError: if its Gram has no Cholesky factor.
        """
        few = self.train.first(self.config.few(len(self.train)))
        if not len(few):
            return None
        x, batch = self.inputs.arrays(few), self.inputs.evaluation_batch
        kept = self._kept_factor(console)
        if kept is not None:
            return Preconditioner(self.ridge, x, kept, batch)
        gib = 2 * 8 * (len(x) * self.config.num_classes) ** 2 / 2**30 + _GRAM_GIB
        with console.status("preconditioner"), self.history.timed("preconditioner"):
            gram = ntk.gram(
                self.model,
                x,
                memory_gib=self.options.memory_gib or gib,
                after_step=lambda _: signals.obey(),
            )
            try:
                found = preconditioner(self.ridge, x, np.asarray(gram), len(self.train), batch)
            except ValueError as error:  # not finite, or the precision is too low
                raise DataError(f"preconditioner_examples={len(x)}: {error}") from error
        runs.insist(lambda: self._keep(found), self.options.checkpoint_minutes)
        return found

    def _keep(self, found: Preconditioner) -> None:
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        kept = {"factor": found.factor, "fingerprint": self.fingerprint}
        runs.write_arrays(self.preconditioner_path, kept)

    def _kept_factor(self, console: Console) -> np.ndarray | None:
        """Of an earlier process of this run; None if it has left none that can be used."""
        if not self.preconditioner_path.exists():
            return None
        try:
            kept = runs.read_arrays(self.preconditioner_path)
        except runs.DamagedError as error:
            terminal.say(console, f"{error}; it is made anew")
            return None
        return kept.get("factor") if kept.get("fingerprint") == self.fingerprint else None

    def _measure(self, state: State) -> dict[str, Any]:
        """The row of metrics.csv, of the smallest weight decay; notes the test outputs."""
        before, self.tested = self.tested, state.outputs[:, len(self.train) :]
        first = not self.history.table("metrics")
        change = None if first else float(np.sqrt(np.mean((self.tested - before) ** 2)))
        found = self._solution(state, 0)
        return {
            "pass": state.passes,
            "objective": found["objective"],
            "residual": state.residual,
            "output_change": change,
            "train_accuracy": found["train_accuracy"],
            "test_accuracy": found["test_accuracy"],
            "seconds": round(self.history.elapsed(), 3),
        }

    def _solution(self, state: State, i: int) -> dict[str, Any]:
        """What is known of the solution of the i-th weight decay, the smallest first."""
        outputs = np.split(state.outputs[i], [len(self.train)])
        decaying, decay = self.ridge.decaying(state.u[i]), sorted(self.config.decays)[i]
        losses = [self._loss(*pair) for pair in zip(outputs, self.splits, strict=True)]
        accuracies = [
            accuracy(part, split.labels) for part, split in zip(outputs, self.splits, strict=True)
        ]
        return {
            "weight_decay": decay,
            "train_accuracy": accuracies[0],
            "test_accuracy": accuracies[1],
            "train_loss": losses[0],
            "test_loss": losses[1],
            "objective": losses[0] + decay / 2 * dot(decaying, decaying),
            "residual": float(state.residuals[i]),
            "distance": dot(decaying, decaying) ** 0.5,
        }

    def _loss(self, outputs: np.ndarray, split: Split) -> float:
        targets = self.inputs.wanted(split.labels)
        return float(np.mean((outputs - targets) ** 2))

    def result(self, state: State, stopped_by: str) -> dict[str, Any]:
        """The content of result.json: the first weight decay's numbers, and those of all."""
        config = self.config
        found = [self._solution(state, sorted(config.decays).index(d)) for d in config.decays]
        result = dict(found[0])
        if config.weight_decays:
            result["solutions"] = found
        else:
            del result["weight_decay"]  # a setting
        return {
            "status": "completed",
            **result,
            "passes": state.passes,
            "stopped_by": stopped_by,
            "parameters": self.ridge.size,
            "seed": config.seed,
            **self.history.times(),
            **runs.provenance(),
        }

    def _save(self, state: State) -> None:
        """Write a checkpoint of the state and of what has been recorded."""
        arrays = {name: np.asarray(getattr(state, name)) for name in _VECTORS + _ARRAYS}
        meta = {name: getattr(state, name) for name in _NUMBERS}
        meta |= self.history.saved() | {"fingerprint": self.fingerprint}
        checkpoint.save(self.checkpoints, checkpoint.Checkpoint(state.passes, arrays, meta))

    def _restore(self) -> State | None:
        """Go back to the newest checkpoint, if there is one; see `checkpoint.restore`."""
        found = checkpoint.restore(self.checkpoints, _META, self.fingerprint)
        if found is None:
            return None
        meta = found.meta
        self.history = runs.History.restored(meta)
        arrays: dict[str, Any] = {name: found.arrays[name] for name in _ARRAYS}
        self.tested = arrays["outputs"][:, len(self.train) :]
        vectors = {name: tf.constant(found.arrays[name]) for name in _VECTORS}
        numbers = {name: meta[name] for name in _NUMBERS}
        return State(passes=found.step, **vectors, **arrays, **numbers)
