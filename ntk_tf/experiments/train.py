"""`--experiment=train`: train a network or its linearization, and record how well it does."""

import math
from typing import Any

import keras
import tensorflow as tf
from rich.console import Console

from ntk_tf import data, models, runs, signals
from ntk_tf.config import Config, Options
from ntk_tf.data import pipeline
from ntk_tf.linearization import LinearizedModel
from ntk_tf.models.size import step_flops
from ntk_tf.training import TorchSGD, distribution, step_schedule
from ntk_tf.training.callbacks import Profile, Record, Save, ShowProgress, Speed, StopAtDivergence
from ntk_tf.training.loop import Plan, evaluation_function, train
from ntk_tf.training.metrics import FirstNonFinite, loss_function
from ntk_tf.training.state import State, changing_variables

#: Updates before a profile begins.
WARM_UP_STEPS = 10


def run(config: Config, options: Options, console: Console) -> dict[str, Any]:
    """Train to the end, from where an earlier process stopped; see `experiments.run`."""
    source = data.load_for(config, options)
    strategy = distribution.strategy(options.strategy)
    distribution.check_batches(len(source.train), config.batch_size, strategy.num_replicas_in_sync)
    runs.open_workdir(options.workdir, config.to_dict(), options.resume, source.classes)
    result = _Training(config, options, source, strategy, console).run()
    path = options.workdir / "result.json"
    runs.insist(lambda: runs.write_json(path, result), options.checkpoint_minutes)
    return result


def compiled_model(config: Config, steps_per_epoch: int, linearized: bool) -> keras.Model:
    """The network or its linearization at initialization, ready to train.

    Args:
        config: the run's settings.
        steps_per_epoch: updates an epoch, for the schedule of the learning rate.
        linearized: which of the two.

    Returns:
        A compiled model whose optimizer is built.
    """
    model = models.build(
        config.arch, config.width, config.num_classes, config.input_shape, config.seed
    )
    if config.train_biases is False:
        models.freeze_biases(model)
    offsets = None
    if linearized:
        if config.decay_toward == "zero":
            offsets = model.trainable_variables
        model = LinearizedModel(model)
    rate = step_schedule(
        config.learning_rate, config.lr_drop_every * steps_per_epoch, config.lr_drop_factor
    )
    model.compile(
        optimizer=TorchSGD(rate, config.momentum, config.weight_decay, offsets),
        loss=loss_function(config.loss),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy"), FirstNonFinite()],
    )
    model.optimizer.build(model.trainable_variables)
    return model


def training_stream(
    config: Config, source: data.Source, preprocess: pipeline.Preprocessing, start_step: int
) -> tf.data.Dataset:
    """The run's training batches from an update on; see `pipeline.training_batches`."""
    return pipeline.training_batches(
        source.train,
        preprocess,
        config.num_classes,
        config.batch_size,
        config.seed,
        start_step,
    )


def divergence(config: Config, step: int, steps_per_epoch: int) -> dict[str, Any]:
    """What result.json says of a divergence.

    Args:
        config: the run's settings.
        step: number of the update before which the outputs were not finite.
        steps_per_epoch: updates an epoch.
    """
    rate = config.learning_rate_in((step - 1) // steps_per_epoch)
    return {"status": "diverged", "diverged_at_step": step, "diverged_at_learning_rate": rate}


def title(config: Config) -> str:
    """The run's name on the screen, such as `LinLeNet x5 on mnist`."""
    arch = {"lenet": "LeNet", "alexnet": "AlexNet"}[config.arch]
    return f"{'Lin' if config.linearized else ''}{arch} x{config.width} on {config.dataset}"


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
        self,
        config: Config,
        options: Options,
        source: data.Source,
        strategy: tf.distribute.Strategy,
        console: Console,
    ):
        self.config, self.options, self.source, self.console = config, options, source, console
        self.preprocess = pipeline.preprocessing(
            source, config.image_size, config.padding, config.input_shape[-1], config.augment
        )
        per_epoch = pipeline.steps_per_epoch(len(source.train), config.batch_size)
        self.replicas = strategy.num_replicas_in_sync
        with strategy.scope():
            self.model = compiled_model(config, per_epoch, config.linearized)
        self.test_batches = self._evaluation_batches(source.test)
        distribution.build_metrics(self.model, config.num_classes)
        self.evaluate = evaluation_function(self.model)
        fixed = self.model.base.variables if config.linearized else []
        variables = changing_variables(self.model, fixed)
        self.state = State(options.workdir / "checkpoint", variables, fixed)
        total = min(config.epochs * per_epoch, config.max_steps or config.epochs * per_epoch)
        start = self.state.restore()
        self.profiled = _profiled(options.profile, start, total)
        self.plan = Plan(per_epoch, total, start, frozenset(self.profiled))

    def run(self) -> dict[str, Any]:
        """Train to the end, then evaluate."""
        config, plan = self.config, self.plan
        batches = training_stream(config, self.source, self.preprocess, plan.start_step)
        minutes = self.options.checkpoint_minutes
        stop = StopAtDivergence(plan)
        record = Record(self.options.workdir, self.state.history, plan, config.learning_rate_in)
        save = Save(self.state.save, plan, minutes)
        network = self.model.base if config.linearized else self.model
        self.speed = Speed(config.batch_size, step_flops(network, config.linearized))
        with signals.deferred(), ShowProgress(title(config), plan, self.console) as progress:
            callbacks = [stop, record, save, progress, self.speed]
            if self.profiled:
                callbacks.append(Profile(self.options.workdir / "tensorboard", *self.profiled))
            step = train(self.model, batches, plan, self._test, callbacks)
        runs.insist(record.complete, minutes)
        runs.insist(save.complete, minutes)
        return self._result(step, stop.step)

    def _result(self, step: int, diverged_at: int | None) -> dict[str, Any]:
        """The content of result.json."""
        if diverged_at is None:
            with self.console.status("evaluating on the training set"):
                train_logs = self.evaluate(self._evaluation_batches(self.source.train))
            test_logs = self.evaluate(self.test_batches)
            if not math.isfinite(train_logs["loss"] + test_logs["loss"]):
                diverged_at = step
        result = {"status": "completed"}
        if diverged_at is not None:
            train_logs = test_logs = {"accuracy": None, "loss": None}
            result = divergence(self.config, diverged_at, self.plan.steps_per_epoch)
        return result | {
            "train_accuracy": train_logs["accuracy"],
            "test_accuracy": test_logs["accuracy"],
            "train_loss": train_logs["loss"],
            "test_loss": test_logs["loss"],
            "epochs": len(self.state.history.table("metrics")),
            "steps": step,
            "parameters": sum(math.prod(w.shape) for w in self.model.trainable_weights),
            "seed": self.config.seed,
            "learning_rate": self.config.learning_rate,
            "seconds": round(self.state.history.elapsed(), 3),
            "performance": self.speed.result(),
            "versions": runs.versions(),
        }

    def _evaluation_batches(self, split: data.Split):
        size = pipeline.evaluation_batch_size(self.config.input_shape)
        size = distribution.even_size(len(split), size, self.replicas)
        return pipeline.evaluation_batches(split, self.preprocess, self.config.num_classes, size)

    def _test(self) -> dict[str, float]:
        logs = self.evaluate(self.test_batches)
        return {"test_loss": logs["loss"], "test_accuracy": logs["accuracy"]}
