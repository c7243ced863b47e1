"""Training from the first update to the result."""

import math
import time
from typing import Any

import keras
import tensorflow as tf
from rich.console import Console

from ntk_tf import runs
from ntk_tf.catalogue import architectures
from ntk_tf.data.source import Split
from ntk_tf.experiments import architecture, costs, network, trained_weights
from ntk_tf.experiments.inputs import Inputs
from ntk_tf.experiments.network import title
from ntk_tf.experiments.train import Train
from ntk_tf.linearization import CenteredModel
from ntk_tf.models.size import count, parameters
from ntk_tf.process import signals
from ntk_tf.settings import Options, SettingError
from ntk_tf.training import distribution
from ntk_tf.training.callbacks import Clock, Profile, Save, StopAtDivergence, divergence
from ntk_tf.training.loop import Plan, evaluation_function, train
from ntk_tf.training.metrics import has_finite_outputs
from ntk_tf.training.progress import ShowProgress
from ntk_tf.training.records import Record
from ntk_tf.training.state import State, changing_variables

#: Updates before a profile begins.
WARM_UP_STEPS = 10


def run(config: Train, options: Options, console: Console) -> dict[str, Any]:
    """Train to the end, from where an earlier process stopped; see `experiment.Experiment`.

    Raises:
        SettingError: if the batches cannot be split over the devices.
    """
    began = time.monotonic()
    inputs = Inputs(config, options)
    try:
        strategy = distribution.strategy(options.strategy)
        replicas = strategy.num_replicas_in_sync
        distribution.check_batches(len(inputs.source.train), config.batch_size, replicas)
    except ValueError as error:
        raise SettingError(f"--{error}") from error
    with strategy.scope():
        model = network.compiled(config, inputs.steps_per_epoch, config.linearized, options.workdir)
    inputs.open_workdir(console)
    training = _Training(config, options, inputs, model, console)
    training.state.history.started = began
    result = training.run()
    path = options.workdir / "result.json"
    runs.insist(lambda: runs.write_json(path, result), options.checkpoint_minutes)
    return result


def _profiled(steps: int | None, start: int, total: int) -> tuple[int, ...]:
    """The updates after which a profile begins and ends; nothing where there is to be none.

    It leaves out the first updates, and is shorter where there are fewer left.
    """
    left = total - start
    if not steps or not left:
        return ()
    begin = start + min(WARM_UP_STEPS, left // 2)
    return begin, min(begin + steps, total)


class _Training:
    """One run: its data, model and state put together."""

    def __init__(
        self, config: Train, options: Options, inputs: Inputs, model: keras.Model, console: Console
    ):
        self.config, self.options, self.inputs, self.console = config, options, inputs, console
        self.model = model
        self.test_batches = self._evaluation_batches(inputs.source.test)
        distribution.build_metrics(model, config.num_classes)
        self.evaluate = evaluation_function(model)
        fixed = model.start if isinstance(model, CenteredModel) else []
        if config.linearized:
            fixed = model.base.variables
        variables = changing_variables(model, fixed)
        self.state = State(options.workdir / "checkpoint", variables, fixed)
        per_epoch = inputs.steps_per_epoch
        total = min(config.epochs * per_epoch, config.max_steps or config.epochs * per_epoch)
        start = self.state.restore()
        self.before = trained_weights.recorded_before(self.state.history, config, options.workdir)
        self.profiled = _profiled(options.profile, start, total)
        self.plan = Plan(per_epoch, total, start, frozenset(self.profiled))

    def run(self) -> dict[str, Any]:
        """Train to the end, then evaluate."""
        config, plan = self.config, self.plan
        batches = self.inputs.training_batches(plan.start_step)
        minutes = self.options.checkpoint_minutes
        few = next(iter(self.test_batches))[0][:2]
        stop = StopAtDivergence(plan, lambda: self._is_finite(few))
        clock = Clock(self.state.history)
        record = Record(self.options.workdir, self.state.history, plan, config.learning_rate_in)
        save = Save(self.state.save, plan, minutes)
        flops = self._step_flops()
        with signals.deferred(), ShowProgress(title(config), plan, self.console) as progress:
            callbacks = [clock, stop, record, save, progress]
            if self.profiled:
                callbacks.append(Profile(self.options.workdir / "tensorboard", *self.profiled))
            step = train(self.model, batches, plan, self._test, callbacks)
        runs.insist(record.complete, minutes)
        runs.insist(save.complete, minutes)
        pictures = len(self.inputs.source.train) / plan.steps_per_epoch  # last batches are smaller
        return self._result(step, stop.step, clock.performance(pictures, flops))

    def _result(
        self, step: int, diverged_at: int | None, performance: dict[str, float | None]
    ) -> dict[str, Any]:
        """The content of result.json."""
        if diverged_at is None:
            saying = self.console.status("evaluating on the training set")
            with saying, self.state.history.timed("evaluation"):
                train_logs = self.evaluate(self._evaluation_batches(self.inputs.source.train))
                test_logs = self.evaluate(self.test_batches)
            if not math.isfinite(train_logs["loss"] + test_logs["loss"]):
                diverged_at = step
        result = {"status": "completed"}
        if diverged_at is not None:
            train_logs = test_logs = dict[str, Any](accuracy=None, loss=None)
            result = divergence(diverged_at, self.plan, self.config.learning_rate_in)
        return result | {
            "train_accuracy": train_logs["accuracy"],
            "test_accuracy": test_logs["accuracy"],
            "train_loss": train_logs["loss"],
            "test_loss": test_logs["loss"],
            "epochs": len(self.state.history.table("metrics")),
            "steps": step,
            "parameters": parameters(self.model),
            "seed": self.config.seed,
            **({"from_step": self.before} if self.before else {}),
            "learning_rate": self.config.learning_rate,
            **self.state.history.times(),
            "performance": performance,
            **runs.provenance(),
        }

    def _step_flops(self) -> float:
        config = self.config
        if architectures.is_own(config.arch):  # not built again: it may be large, or load weights
            sizes = count(getattr(self.model, "base", self.model), config.input_shape)
        else:
            sizes = architecture.counts(config)
        return costs.step_flops(config, sizes, config.linearized)

    def _is_finite(self, pictures: tf.Tensor) -> bool:
        known = self.config.linearized or has_finite_outputs(self.model, pictures)
        return known and self.state.is_finite()

    def _evaluation_batches(self, split: Split) -> tf.data.Dataset:
        replicas = self.model.distribute_strategy.num_replicas_in_sync
        even = distribution.even_size(len(split), self.inputs.evaluation_batch, replicas)
        return self.inputs.evaluation_batches(split, even)

    def _test(self) -> dict[str, float]:
        with self.state.history.timed("evaluation"):
            logs = self.evaluate(self.test_batches)
        return {"test_loss": logs["loss"], "test_accuracy": logs["accuracy"]}
