"""A network and its linearization side by side, update by update.

Both start from the same weights and see the same minibatches; before the first update and after
every `record_every`-th, the outputs of both on a few test pictures are recorded inside the compiled
graph (Figure 2 of Samarin et al. 2020). At chosen updates the distance between the two on more test
pictures is measured, and on request the movement of the network's kernel.
"""

import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console

from ntk_tf import runs
from ntk_tf.data import DataError
from ntk_tf.experiments import network, trained_weights
from ntk_tf.experiments.inputs import Inputs
from ntk_tf.experiments.network import title
from ntk_tf.experiments.trajectory import Trajectory, figure
from ntk_tf.experiments.trajectory.measure import (
    Distance,
    KernelMovement,
    Measure,
    distance_steps,
    steps_every,
)
from ntk_tf.experiments.trajectory.pair import Pair
from ntk_tf.experiments.trajectory.show import Show
from ntk_tf.models.size import parameters
from ntk_tf.process import signals
from ntk_tf.settings import Options
from ntk_tf.training import distribution
from ntk_tf.training.callbacks import Clock, Save, StopAtDivergence, divergence
from ntk_tf.training.loop import Plan, train
from ntk_tf.training.metrics import has_finite_outputs
from ntk_tf.training.progress import ShowProgress
from ntk_tf.training.state import State, changing_variables


def run(config: Trajectory, options: Options, console: Console) -> dict[str, Any]:
    """Train both models and record their trajectories; see `experiment.Experiment`."""
    began = time.monotonic()
    inputs = Inputs(config, options)
    chosen = choose_examples(inputs.source.test.labels, config.examples)
    trajectory = _Trajectory(config, options, inputs, chosen, console)
    inputs.open_workdir(console)
    result = trajectory.run(began)

    def finish() -> None:
        figure.draw([options.workdir], options.workdir)
        runs.write_json(options.workdir / "result.json", result)

    runs.insist(finish, options.checkpoint_minutes)
    return result


def choose_examples(labels: np.ndarray, examples: tuple[int, ...] | int) -> np.ndarray:
    """Positions of the test pictures to record, int64 `[E]`.

    Args:
        labels: of all test pictures.
        examples: the positions, or how many to take: the first ones of distinct classes.

    Returns:
        The positions in the order of the pictures, or as given.

    Raises:
        DataError: if there are not so many classes or pictures.
    """
    if isinstance(examples, tuple):
        if max(examples) >= len(labels):
            raise DataError(
                f"examples={','.join(map(str, examples))}: there are {len(labels)} test"
                f" pictures, counted from 0"
            )
        return np.array(examples)
    first = np.sort(np.unique(labels, return_index=True)[1])
    if examples > len(first):
        raise DataError(
            f"examples={examples}: the test pictures are of {len(first)} classes, and one of"
            " each is taken; name pictures by their positions, comma-separated, to take others"
        )
    return first[:examples]


class _Trajectory:
    """One run: two models, what is recorded of them, and where it goes."""

    def __init__(
        self,
        config: Trajectory,
        options: Options,
        inputs: Inputs,
        chosen: np.ndarray,
        console: Console,
    ):
        self.config, self.options, self.inputs, self.console = config, options, inputs, console
        self.chosen, self.labels = chosen, inputs.source.test.labels[chosen]
        self.total = config.max_steps or inputs.steps_per_epoch
        self.pair = self._build_pair()
        fixed = self.pair.linearized.base.variables
        variables = [
            *changing_variables(self.pair.standard, []),
            *changing_variables(self.pair.linearized, fixed),
        ]
        self.last_kernel = self._no_kernel() if config.kernel_every else None
        records = [r for r in (self.pair.records, self.last_kernel) if r is not None]
        self.state = State(options.workdir / "checkpoint", variables, fixed, records)

    def run(self, began: float) -> dict[str, Any]:
        """Train to the end and write everything down; `began` is when the run did."""
        start, pauses = self.state.restore(), self._pauses()
        self.state.history.started = began
        workdir = self.options.workdir
        self.before = trained_weights.recorded_before(self.state.history, self.config, workdir)
        plan = Plan(self.inputs.steps_per_epoch, self.total, start, pauses)
        minutes = self.options.checkpoint_minutes
        clock, stop = Clock(self.state.history), StopAtDivergence(plan, self._is_finite)
        save = Save(self.save, plan, min(1.0, minutes))
        folder, history = self.options.workdir / "tensorboard", self.state.history
        show = Show(folder, self.pair, self.chosen, self.labels, history, plan.start_step)
        name = f"{title(self.config)} and its linearization"
        with signals.deferred(), ShowProgress(name, plan, self.console) as progress:
            callbacks = [clock, stop, self._measure(plan), show, save, progress]
            batches = self.inputs.training_batches(plan.start_step)
            step = train(self.pair, batches, plan, dict, callbacks)
        runs.insist(save.complete, minutes)
        # What was recorded before a divergence is a result too, and a process may have ended
        # between its last checkpoint and these files.
        runs.insist(lambda: self.write_files(step), minutes)
        return self._result(step, plan, stop.step)

    def _is_finite(self) -> bool:
        few = self.pair.pictures[:2]
        return self.state.is_finite() and has_finite_outputs(self.pair.standard, few)

    def save(self, step: int) -> None:
        """Write a checkpoint, and what has been recorded so far where users look for it."""
        self.state.save(step)
        self.write_files(step)

    def write_files(self, step: int) -> None:
        """Write trajectories.npz and the tables up to an update."""
        workdir, every = self.options.workdir, self.config.record_every
        records = self.pair.records.numpy()[: step // every + 1]
        content = {
            "step": np.arange(len(records)) * every,
            "standard": records[:, 0],
            "linearized": records[:, 1],
            "label": self.labels,
            "index": self.chosen,
        }
        runs.write_arrays(workdir / "trajectories.npz", content)
        history = self.state.history
        about = {"width": self.config.width, "seed": self.config.seed, "steps": step}
        distances = {"distances": history.table("distance")}
        runs.write_json(workdir / "trajectory.json", about | distances)
        if self.config.kernel_every:
            rows = history.table("kernel")
            columns = list(dict.fromkeys(name for row in rows for name in row))
            runs.write_table(workdir / "kernel.csv", columns, rows)

    def _pictures(self, positions: np.ndarray | slice) -> tf.Tensor:
        """Test pictures as the networks see them, `[n, h, w, c]`."""
        split = self.inputs.source.test.take(positions)
        return next(iter(self.inputs.evaluation_batches(split, len(split))))[0]

    def _build_pair(self) -> Pair:
        """Both models from the same initialization, and the buffer of their outputs."""
        config = self.config
        standard, linearized = (
            network.compiled(config, self.inputs.steps_per_epoch, linearized, self.options.workdir)
            for linearized in (False, True)
        )
        for model in (standard, linearized):
            distribution.build_metrics(model, config.num_classes)
        count = self.total // config.record_every + 1
        chosen = self._pictures(self.chosen)
        return Pair(standard, linearized, chosen, count, config.record_every, config.num_classes)

    def _no_kernel(self) -> keras.Variable:
        """Room for the kernel that was measured last; see `measure.KernelMovement`."""
        n = min(self.config.kernel_examples, len(self.inputs.source.test))
        zeros = np.zeros((n, self.config.num_classes) * 2)
        return keras.Variable(zeros, dtype="float64", trainable=False, name="last_kernel")

    def _pauses(self) -> frozenset[int]:
        """Updates after which something is measured between the graph's executions."""
        return self._distance_steps() | self._kernel_steps()

    def _distance_steps(self) -> frozenset[int]:
        return distance_steps(self.config.distance_every, self.total)

    def _kernel_steps(self) -> frozenset[int]:
        return steps_every(self.config.kernel_every, self.total)

    def _measure(self, plan: Plan) -> Measure:
        """What is measured at the pauses."""
        config, table = self.config, self.state.history.table
        pictures = self._pictures(slice(0, config.distance_examples))
        distance = Distance(self.pair, pictures, self._distance_steps(), table("distance"))
        found: list[Distance | KernelMovement] = [distance]
        if self.last_kernel is not None:
            first = slice(0, config.kernel_examples)
            # One-hot, whatever the loss wants, so that alignments can be compared.
            targets = np.eye(self.config.num_classes)[self.inputs.source.test.labels[first]]
            pictures, steps = self._pictures(first).numpy(), self._kernel_steps()
            found.append(
                KernelMovement(
                    self.pair, pictures, targets, steps, table("kernel"), self.last_kernel
                )
            )
        return Measure(self.pair, found, plan)

    def _result(self, step: int, plan: Plan, diverged_at: int | None) -> dict[str, Any]:
        """The content of result.json."""
        result = {"status": "completed"}
        if diverged_at is not None:
            result = divergence(diverged_at, plan, self.config.learning_rate_in)
        distances = self.state.history.table("distance")
        return result | {
            "relative_distance": distances[-1]["relative_distance"] if distances else None,
            "steps": step,
            "parameters": parameters(self.pair.standard),
            "seed": self.config.seed,
            **({"from_step": self.before} if self.before else {}),
            "learning_rate": self.config.learning_rate,
            **self.state.history.times(),
            **runs.provenance(),
        }
