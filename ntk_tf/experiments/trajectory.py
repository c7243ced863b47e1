"""`--experiment=trajectory`: a network and its linearization side by side, update by update.

Both start from the same weights and see the same minibatches; before the first update and after
every `record_every`-th, the outputs of both on a few test pictures are recorded inside the compiled
graph (Figure 2 of Samarin et al. 2020). At chosen updates the distance between the two on more test
pictures is measured, and on request the movement of the network's kernel.
"""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console

from ntk_tf import data, ntk, runs, signals
from ntk_tf.config import Config, Options
from ntk_tf.data import pipeline
from ntk_tf.experiments.train import compiled_model, divergence, title, training_stream
from ntk_tf.ntk.compare import kernel_movement
from ntk_tf.reporting import trajectories
from ntk_tf.training import distribution
from ntk_tf.training.callbacks import EventFiles, Save, ShowProgress, StopAtDivergence
from ntk_tf.training.loop import Plan, train
from ntk_tf.training.pair import Pair, relative_distance
from ntk_tf.training.state import State, changing_variables

KERNEL_COLUMNS = ("step", "relative_change", "cosine", "label_alignment")


def run(config: Config, options: Options, console: Console) -> dict[str, Any]:
    """Train both models and record their trajectories; see `experiments.run`."""
    source = data.load_for(config, options)
    chosen = choose_examples(source.test.labels, config.examples, config.num_classes)
    runs.open_workdir(options.workdir, config.to_dict(), options.resume, source.classes)
    result = _Trajectory(config, options, source, chosen, console).run()

    def finish() -> None:
        trajectories.draw([options.workdir], options.workdir)
        runs.write_json(options.workdir / "result.json", result)

    runs.insist(finish, options.checkpoint_minutes)
    return result


def choose_examples(
    labels: np.ndarray, examples: tuple[int, ...] | int, num_classes: int
) -> np.ndarray:
    """Positions of the test pictures to record, int64 `[E]`.

    Args:
        labels: of all test pictures.
        examples: the positions, or how many to take: the first ones of distinct classes.
        num_classes: L.

    Returns:
        The positions in the order of the pictures, or as given.

    Raises:
        DataError: if there are not so many classes or pictures.
    """
    if isinstance(examples, tuple):
        if max(examples) >= len(labels):
            raise data.DataError(
                f"--examples={','.join(map(str, examples))}: there are {len(labels)} test"
                f" pictures, counted from 0"
            )
        return np.array(examples)
    first = np.sort(np.unique(labels, return_index=True)[1])
    if examples > len(first):
        raise data.DataError(
            f"--examples={examples}: the test pictures are of {len(first)} classes, and one of"
            " each is taken; name pictures by their positions, comma-separated, to take others"
        )
    return first[:examples]


class _Trajectory:
    """One run: two models, what is recorded of them, and where it goes."""

    def __init__(
        self,
        config: Config,
        options: Options,
        source: data.Source,
        chosen: np.ndarray,
        console: Console,
    ):
        self.config, self.options, self.source, self.console = config, options, source, console
        self.chosen = chosen
        self.preprocess = pipeline.preprocessing(
            source, config.image_size, config.padding, config.input_shape[-1], config.augment
        )
        self.per_epoch = pipeline.steps_per_epoch(len(source.train), config.batch_size)
        self.total = config.max_steps or self.per_epoch
        self.pair = self._build_pair()
        fixed = self.pair.linearized.base.variables
        variables = [
            *changing_variables(self.pair.standard, []),
            *changing_variables(self.pair.linearized, fixed),
        ]
        place = options.workdir / "checkpoint"
        self.state = State(place, variables, fixed, [self.pair.records])
        self.plan = Plan(self.per_epoch, self.total, self.state.restore(), self._pauses())

    def run(self) -> dict[str, Any]:
        """Train to the end and write everything down."""
        config, plan = self.config, self.plan
        batches = training_stream(config, self.source, self.preprocess, plan.start_step)
        minutes = self.options.checkpoint_minutes
        stop = StopAtDivergence(plan)
        save = Save(self.save, plan, min(1.0, minutes))
        name = f"{title(config)} and its linearization"
        with signals.deferred(), ShowProgress(name, plan, self.console) as progress:
            callbacks = [stop, _Measure(self), save, progress]
            step = train(self.pair, batches, plan, dict, callbacks)
        runs.insist(save.complete, minutes)
        # What was recorded before a divergence is a result too, and a process may have ended
        # between its last checkpoint and these files.
        runs.insist(lambda: self.write_files(step), minutes)
        return self._result(step, stop.step)

    def save(self, step: int) -> None:
        """Write a checkpoint, and what has been recorded so far where users look for it."""
        self.state.save(step)
        self.write_files(step)

    def write_files(self, step: int) -> None:
        """Write trajectories.npz and the tables up to an update."""
        workdir, count = self.options.workdir, step // self.config.record_every + 1
        records = self.pair.records.numpy()[:count]
        with runs.atomic_write(workdir / "trajectories.npz", "wb") as file:
            np.savez(
                file,
                step=np.arange(count) * self.config.record_every,
                standard=records[:, 0],
                linearized=records[:, 1],
                label=self.source.test.labels[self.chosen],
                index=self.chosen,
            )
        history = self.state.history
        content = {"width": self.config.width, "seed": self.config.seed, "steps": step}
        runs.write_json(
            workdir / "trajectory.json", content | {"distances": history.table("distance")}
        )
        if self.config.kernel_every:
            runs.write_table(workdir / "kernel.csv", KERNEL_COLUMNS, history.table("kernel"))

    def test_pictures(self, positions: np.ndarray | slice) -> tf.Tensor:
        """Test pictures as the networks see them, `[n, h, w, c]`."""
        split = self.source.test.take(positions)
        batches = pipeline.evaluation_batches(
            split, self.preprocess, self.config.num_classes, len(split)
        )
        return next(iter(batches))[0]

    def _build_pair(self) -> Pair:
        """Both models from the same initialization, and the buffer of their outputs."""
        config = self.config
        standard, linearized = (
            compiled_model(config, self.per_epoch, linearized) for linearized in (False, True)
        )
        for model in (standard, linearized):
            distribution.build_metrics(model, config.num_classes)
        count = self.total // config.record_every + 1
        return Pair(
            standard, linearized, self.test_pictures(self.chosen), count, config.record_every
        )

    def _pauses(self) -> frozenset[int]:
        """Updates after which something is measured between the graph's executions."""
        config = self.config
        steps = set(range(0, self.total, config.distance_every)) | {self.total}
        if config.kernel_every:
            steps |= set(range(0, self.total, config.kernel_every))
        return frozenset(steps)

    def _result(self, step: int, diverged_at: int | None) -> dict[str, Any]:
        """The content of result.json."""
        result = {"status": "completed"}
        if diverged_at is not None:
            result = divergence(self.config, diverged_at, self.per_epoch)
        distances = self.state.history.table("distance")
        return result | {
            "relative_distance": distances[-1]["relative_distance"] if distances else None,
            "steps": step,
            "parameters": int(self.pair.standard.count_params()),
            "seed": self.config.seed,
            "learning_rate": self.config.learning_rate,
            "seconds": round(self.state.history.elapsed(), 3),
            "versions": runs.versions(),
        }


class _Measure(keras.callbacks.Callback):
    """Measures at the plan's pauses, and shows everything recorded in TensorBoard.

    Sibling runs `standard` and `linearized` hold the same tags, so that the curves of a picture
    overlay; `comparison` holds the distance between the two and the movement of the kernel.
    """

    def __init__(self, trajectory: _Trajectory):
        super().__init__()
        self.run = trajectory
        self.config = trajectory.config
        self.history = trajectory.state.history
        self.distance_pictures = trajectory.test_pictures(slice(0, self.config.distance_examples))

    def on_train_begin(self, logs=None):
        """Record the start, and bring the event files to the state that training starts from."""
        if self.config.kernel_every:
            self._prepare_kernel()
        step = self.run.plan.start_step
        self.run.pair.record()
        if step == 0:
            self._measure(0)
        self.step = step
        folder = self.run.options.workdir / "tensorboard"
        self.events = EventFiles(folder, ("standard", "linearized", "comparison"), self._show_all)

    def on_train_batch_end(self, batch, logs=None):
        """Measure, if it is time; `batch` is the number of updates done."""
        self.run.pair.record()
        self.step = batch
        if not self.model.stop_training:
            self._measure(batch)
        self.events.write(self._show)

    def on_train_end(self, logs=None):
        """Close the event files."""
        self.events.close()

    def _measure(self, step: int) -> None:
        config, total = self.config, self.run.total
        if step > 0 and (step % config.distance_every == 0 or step == total):
            row = {"step": step} | relative_distance(self.run.pair, self.distance_pictures)
            self.history.table("distance").append(row)
        if config.kernel_every and (step % config.kernel_every == 0 or step == total):
            kernel = self.kernel(self.kernel_pictures)
            row = {"step": step} | kernel_movement(kernel, self.kernel_at_start, self.targets)
            self.history.table("kernel").append(row)

    def _prepare_kernel(self) -> None:
        count = self.config.kernel_examples
        self.kernel_pictures = self.run.test_pictures(slice(0, count)).numpy()
        self.targets = np.eye(self.config.num_classes)[self.run.source.test.labels[:count]]
        self.kernel = ntk.GramFunction(self.run.pair.standard)
        base = self.run.pair.linearized.base  # still at w0, also when a run goes on
        self.kernel_at_start = ntk.gram(base, self.kernel_pictures)

    def _show_all(self, writers: Mapping[str, tf.summary.SummaryWriter]) -> None:
        """Write everything, into new files."""
        self.shown = dict.fromkeys(("distance", "kernel", "outputs"), 0)
        self._show(writers)

    def _show(self, writers: Mapping[str, tf.summary.SummaryWriter]) -> None:
        """Write what has been measured and recorded since the last time."""
        with writers["comparison"].as_default():
            for table in ("distance", "kernel"):
                rows = self.history.table(table)
                for row in rows[self.shown[table] :]:
                    for name in row.keys() - {"step"}:
                        tf.summary.scalar(f"{table}/{name}", row[name], step=row["step"])
                self.shown[table] = len(rows)
        self._show_outputs(writers)

    def _show_outputs(self, writers: Mapping[str, tf.summary.SummaryWriter]) -> None:
        """Write the outputs of the correct classes."""
        count = self.step // self.config.record_every + 1
        records = self.run.pair.records.numpy()
        labels = self.run.source.test.labels[self.run.chosen]
        for side, name in enumerate(("standard", "linearized")):
            with writers[name].as_default():
                for position in range(self.shown["outputs"], count):
                    for e, (index, label) in enumerate(zip(self.run.chosen, labels, strict=True)):
                        tf.summary.scalar(
                            f"output of the correct class/picture {index} (class {label})",
                            records[position, side, e, label],
                            step=position * self.config.record_every,
                        )
        self.shown["outputs"] = count
