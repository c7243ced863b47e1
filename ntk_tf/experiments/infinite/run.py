"""What the infinitely wide network would learn: regression with its kernels.

The NTK in NTK parametrization, that of the paper's widening, and the NNGP kernel, which stands for
training the last layer alone. Targets are .9 for the class of a picture and -.1 for others, as of
Arora et al. (2019). The kernels are computed in tiles, and a run goes on with those missing.
"""

import dataclasses
import shutil
import time
from typing import Any

import numpy as np
from rich.console import Console

from ntk_tf import ntk, runs
from ntk_tf.data import DataError
from ntk_tf.data.source import Split
from ntk_tf.experiments.infinite import Infinite, figure, finite
from ntk_tf.experiments.infinite.array import FOLDER
from ntk_tf.experiments.infinite.forecast import check_memory, more
from ntk_tf.experiments.infinite.processes import carry_out
from ntk_tf.experiments.infinite.tiles import KINDS, Work, functions
from ntk_tf.experiments.inputs import Inputs
from ntk_tf.ntk import infinite
from ntk_tf.ntk.leave_one_out import leave_one_out
from ntk_tf.ntk.regression import accuracy
from ntk_tf.process import signals, terminal
from ntk_tf.settings import Options, SettingError

__all__ = ["more", "run"]

#: Target of the other classes; that of a picture's own is 1 more.
_OTHER = -0.1
#: Pictures at which it is seen what more random channels would change.
_EXTRAPOLATED = 32
#: Seconds between counts of the tiles, for the progress bar.
_SHOWN_EVERY = 1.0


def run(config: Infinite, options: Options, console: Console) -> dict[str, Any]:
    """Compute the kernels and regress with them; see `experiment.Experiment`.

    Raises:
        DataError: if all training pictures are of one class, or the memory is too small.
        SettingError: if the architecture has no kernels at infinite width.
        RunDirectoryError: if a tile is damaged.
    """
    history = runs.History()
    inputs = Inputs(config, options)
    inputs.insist_on_classes()
    try:
        check_memory(config, options)
        work = Work(config, options, inputs)
    except ntk.BudgetError as error:
        raise DataError(str(error)) from error
    inputs.open_workdir(console)
    _kernels(work, config, options, console)
    result, spectra = _results(work, config, inputs, options, console)
    result["seconds"] = round(history.elapsed(), 3)
    result["tile_seconds"] = round(sum(work.seconds.values()), 3)
    complete = {"status": "completed"} | result | runs.provenance()

    def finish() -> None:
        runs.write_arrays(options.workdir / "spectrum.npz", spectra)
        if config.finite_widths:
            finite.draw(result["finite"], options.workdir / "widths")
        figure.draw_spectra(spectra, options.workdir / "spectra")
        runs.write_json(options.workdir / "infinite.json", result)
        runs.write_json(options.workdir / "result.json", complete)

    runs.insist(finish, options.checkpoint_minutes)
    for folder in ("tiles", FOLDER):
        shutil.rmtree(options.workdir / folder, ignore_errors=True)
    return complete


def _kernels(work: Work, config: Infinite, options: Options, console: Console) -> None:
    """Compute the tiles that are missing, with a progress bar."""
    total = sum(tile.entries for tile in work.tiles)
    missing = work.missing()
    if len(missing) < len(work.tiles):
        terminal.say(console, f"going on: {len(missing)} of {len(work.tiles)} tiles are missing")
    with terminal.progress(console) as progress, signals.deferred():
        task = progress.add_task(f"kernels of infinite {config.arch}", total=total)
        shown = 0.0

        def after() -> None:
            nonlocal shown
            signals.obey()
            if time.monotonic() > shown + _SHOWN_EVERY:
                left = sum(work.tiles[number].entries for number in work.missing())
                progress.update(task, completed=total - left)
                shown = time.monotonic()

        carry_out(work, config, options, console, after)


def _results(
    work: Work, config: Infinite, inputs: Inputs, options: Options, console: Console
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The content of infinite.json, and singular values by kernel.

    Raises:
        SettingError: if a kernel is zero or not finite.
    """
    kept: dict[str, np.ndarray] = {}
    found, spectra = {}, {}
    train, test = inputs.source.train, inputs.source.test
    for kind in KINDS:
        gram, cross = work.assemble("train", kind), work.assemble("test", kind)
        if not (np.isfinite(gram).all() and np.isfinite(cross).all()):
            raise SettingError(
                f"--recursion={config.recursion}: the kernel {kind} is not finite; allowed:"
                " float64, or --arch_args with a smaller sigma_w, sigma_b or depth"
            )
        if not all(np.trace(one) > 0 for one in gram):
            raise SettingError(
                f"--dataset={config.dataset}: the kernel {kind} of these pictures is zero, as they"
                " are to the network; allowed: other pictures, or --arch_args with a sigma_b"
            )
        with console.status(f"regression with {kind}"):
            found[kind], spectra[kind] = _regress(gram, cross, train, test, config)
        if config.keep_kernels:
            kept |= {f"{kind}_train": gram.mean(axis=0), f"{kind}_test": cross.mean(axis=0)}
        if kind == "ntk_paper_widening" and config.finite_widths:
            limit = gram.mean(axis=0)
        del gram, cross  # before the next ones are there
        signals.obey()
    if config.keep_kernels:
        path = options.workdir / "kernel.npz"
        runs.insist(lambda: runs.write_arrays(path, kept), options.checkpoint_minutes)
    x = inputs.arrays(train)
    more: dict[str, Any] = {}
    if work.estimated and min(work.functions["ntk"].channels) > 1:
        more["extrapolation"] = _extrapolation(work, config, options, x)
    if config.finite_widths:
        more["finite"] = finite.compare(config, options, x, limit, console)
    of_ntk = found["ntk"]
    names = ("train_accuracy", "test_accuracy", "ridge", "effective_rank")
    return {name: of_ntk[name] for name in names} | {
        "train_examples": len(train),
        "test_examples": len(test),
        "channels": list(work.functions["ntk"].channels) if work.estimated else None,
        "seeds": work.seeds,
        **found,
        **more,
    }, spectra


def _regress(
    gram: np.ndarray, cross: np.ndarray, train: Split, test: Split, config: Infinite
) -> tuple[dict[str, Any], np.ndarray]:
    """What one kernel says, and its features' singular values.

    Args:
        gram: of the training pictures `[seeds, n, n]`.
        cross: of the test pictures with them `[seeds, m, n]`.
        train: with their labels.
        test: with theirs.
        config: the run's settings.
    """
    targets = np.eye(config.num_classes)[train.labels] + _OTHER
    mean, mean_cross = gram.mean(axis=0), cross.mean(axis=0)
    best = leave_one_out(mean, targets)
    plain = ntk.kernel_regression(mean, targets, precision=config.recursion)
    values = np.sqrt(np.maximum(best.eigenvalues, 0))
    by_seed = [
        accuracy(c @ leave_one_out(g, targets).regression.dual, test.labels)
        for g, c in zip(gram, cross, strict=True)
    ]
    return {
        "train_accuracy": accuracy(best.regression.fitted, train.labels),
        "test_accuracy": accuracy(mean_cross @ best.regression.dual, test.labels),
        "ridge": best.ridge,
        "leave_one_out_error": best.error,
        "train_accuracy_without_ridge": accuracy(plain.fitted, train.labels),
        "test_accuracy_without_ridge": accuracy(mean_cross @ plain.dual, test.labels),
        "test_accuracy_by_seed": by_seed,
        "relative_error": infinite.relative_error(gram) if len(gram) > 1 else None,
        "effective_rank": ntk.effective_rank(values),
        "trace": float(np.trace(mean)),
        "largest_eigenvalue": float(best.eigenvalues[0]),
        "smallest_eigenvalue": float(best.eigenvalues[-1]),
    }, values


def _extrapolation(
    work: Work, config: Infinite, options: Options, x: np.ndarray
) -> dict[str, float]:
    """What doubling the channels changes, at some pictures; see `infinite.extrapolate`."""
    many = work.functions["ntk"]
    half = tuple(count // 2 for count in many.channels)
    few = functions(dataclasses.replace(config, channels=half), options.memory_gib)["ntk"]
    x, seeds = x[:_EXTRAPOLATED], max(2, work.seeds)
    kernels = [np.stack([f(x, seed=seed).ntk for seed in range(seeds)]) for f in (few, many)]
    found = infinite.extrapolate(*kernels)
    return {"pictures": len(x), "change": found.change, "noise": found.noise}
