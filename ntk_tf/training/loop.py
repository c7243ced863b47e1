"""The training loop: many updates inside one graph, Keras callbacks between them.

It knows no experiment; what an experiment adds, it adds as a callback. Keras' own `fit` ties the
number of updates inside a graph to the length of an epoch and cannot start in the middle of one;
here the number is an argument of the graph.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from ntk_tf.training import distribution

#: Callbacks get their turn about this often, in seconds.
CALLBACK_SECONDS = 1.0


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long to train.

    Attributes:
        steps_per_epoch: updates in an epoch.
        total_steps: updates in the whole run; the last epoch may be cut short.
        start_step: updates that an earlier process has already done.
        pauses: numbers of updates after which callbacks get their turn in any case.
    """

    steps_per_epoch: int
    total_steps: int
    start_step: int = 0
    pauses: frozenset[int] = frozenset()

    @property
    def epochs(self) -> int:
        """Number of epochs, a last one cut short included."""
        return -(-self.total_steps // self.steps_per_epoch)

    def next_stop(self, step: int) -> int:
        """The first end of an epoch, pause or end of the run after `step` updates."""
        epoch_end = (step // self.steps_per_epoch + 1) * self.steps_per_epoch
        pause = min((p for p in self.pauses if p > step), default=epoch_end)
        return min(epoch_end, pause, self.total_steps)


def multi_step_function(model: keras.Model) -> Callable[[tf.data.Iterator, tf.Tensor], None]:
    """A graph that runs any number of the model's training steps.

    Args:
        model: a compiled model.

    Returns:
        A function of a batch iterator and a scalar int32 tensor, the number of updates.
    """
    return _repeated(model, distribution.train_step(model))


def _repeated(model: keras.Model, step: Callable) -> Callable[[tf.data.Iterator, tf.Tensor], None]:
    """A graph that calls a model's step with any number of batches.

    As in Keras' own `fit`, the step is traced as it is: AutoGraph would only take time.
    """
    one = _in_loop(model, tf.autograph.experimental.do_not_convert(step))

    @tf.function(reduce_retracing=True)
    def run(iterator, steps):
        for _ in tf.range(steps):
            model.distribute_strategy.run(one, args=(next(iterator),))

    return run


def _in_loop(model: keras.Model, step: Callable) -> Callable:
    """A step of a model, to be called in a graph's loop."""
    if model.distribute_strategy.num_replicas_in_sync > 1:
        return step
    if model.jit_compile:
        return tf.function(step, jit_compile=True)

    # Inlined into the cycle of the loop, max pooling and its gradient come in random order when
    # TensorFlow gives ops to oneDNN, and where the gradient is first it takes ten times longer.
    @tf.function(autograph=False, experimental_attributes={"_noinline": True})
    def call(batch):
        step(batch)

    return call


def evaluation_function(
    model: keras.Model,
) -> Callable[[tf.data.Dataset], dict[str, float]]:
    """A graph that evaluates a compiled model on any dataset of so many batches as `len` says.

    Args:
        model: a compiled model, whose metrics are built.

    Returns:
        A function of a dataset of `(x, y)`, which returns loss and metrics by name.
    """
    run = _repeated(model, model.test_step)

    def evaluate(batches):
        model.reset_metrics()
        run(iter(distribution.spread(model, batches)), tf.constant(len(batches)))
        return {name: shortest(value) for name, value in model.get_metrics_result().items()}

    return evaluate


def train(
    model: keras.Model,
    batches: tf.data.Dataset,
    plan: Plan,
    evaluate: Callable[[], dict[str, float]],
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> int:
    """Train a compiled model, whose metrics and optimizer are built, as planned.

    Callbacks see `on_train_batch_begin(step)` and `on_train_batch_end(step, logs)` before and after
    every second or so of updates, `step` being the number done in the whole run, and
    `on_epoch_end(epoch, logs)` with what `evaluate` returns added. `model.stop_training = True` in
    a callback ends training there.

    Args:
        model: trained in place.
        batches: an unending stream that begins with the batch of update `plan.start_step`.
        plan: how many updates.
        evaluate: called after each epoch.
        callbacks: Keras callbacks.

    Returns:
        The number of updates done in the whole run.
    """
    run = multi_step_function(model)
    iterator = iter(distribution.spread(model, batches))
    hooks = keras.callbacks.CallbackList(list(callbacks), model=model)
    model.stop_training = False
    step, chunk = plan.start_step, 1
    hooks.on_train_begin()
    while step < plan.total_steps and not model.stop_training:
        epoch, done = divmod(step, plan.steps_per_epoch)
        if done == 0:
            model.reset_metrics()
        hooks.on_epoch_begin(epoch)
        end = min((epoch + 1) * plan.steps_per_epoch, plan.total_steps)
        while step < end and not model.stop_training:
            hooks.on_train_batch_begin(step)
            count = min(chunk, plan.next_stop(step) - step)
            started = time.perf_counter()
            run(iterator, tf.constant(count))
            logs = {name: shortest(value) for name, value in model.get_metrics_result().items()}
            chunk = _next_chunk(chunk, count, time.perf_counter() - started)
            step += count
            hooks.on_train_batch_end(step, logs)
        if not model.stop_training:
            logs |= evaluate()
        hooks.on_epoch_end(epoch, logs)
    hooks.on_train_end()
    return step


def shortest(value) -> float:
    """A float32 as the shortest decimal number that stands for it."""
    return float(str(np.float32(value)))


def _next_chunk(chunk: int, count: int, seconds: float) -> int:
    """So many updates that they take about `CALLBACK_SECONDS`, growing at most fourfold."""
    return max(1, min(4 * max(chunk, count), int(count * CALLBACK_SECONDS / seconds)))
