"""What tests of several rooms share."""

import csv
import dataclasses
import json

import commands
import pytest
from rich.console import Console

from ntk_tf.experiments import EXPERIMENTS, architecture
from ntk_tf.experiments.resolving import resolve
from ntk_tf.runs import checkpoint
from ntk_tf.settings import Options
from ntk_tf.training.callbacks import Save

#: A network that is quickly made, for what does not depend on it.
SMALL = {"arch": "mlp", "arch_args": "depth=2", "image_size": 8, "learning_rate": 0.1}
#: Over it, the paper's.
LENET = {"arch": "lenet", "arch_args": None, "image_size": 28}
#: A short run.
QUICK = {"dataset": "digits", "train_examples": 200, "test_examples": 50, "epochs": 4, **SMALL}


def carry_out(config, options, console=None):
    """Run an experiment in this process; the content of its result.json."""
    console = console or Console(quiet=True)
    return EXPERIMENTS[config.experiment].run(config, options, console)


def main(*args, **options):
    return commands.run(commands.command(*args), **options)


def in_process(workdir, **settings):
    """Run an experiment in this process; its result."""
    return carry_out(resolve(**(QUICK | settings)), Options(workdir))


def metrics(workdir):
    """metrics.csv without its wall-clock column."""
    with open(workdir / "metrics.csv") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


#: Of result.json: what two runs with equal settings need not share.
OF_THE_MACHINE = ("seconds", "seconds_in", "performance", "provenance")


def result(workdir):
    """result.json without what depends on the machine."""
    content = json.loads((workdir / "result.json").read_text())
    return {name: value for name, value in content.items() if name not in OF_THE_MACHINE}


def final_arrays(workdir):
    return checkpoint.restore(workdir / "checkpoint").arrays


class Interrupted(Exception):
    """Stands for a crash at a chosen moment."""


def interrupted(workdir, stop, monkeypatch, **settings):
    """A run that crashes right after an update."""
    save = Save.on_train_batch_end

    def crash(self, batch, logs=None):
        self.minutes = 0  # save whenever asked
        save(self, batch, logs)
        if batch >= stop:
            raise Interrupted

    monkeypatch.setattr(Save, "on_train_batch_end", crash)
    with pytest.raises(Interrupted):
        in_process(workdir, **settings)
    monkeypatch.undo()
    assert not (workdir / "result.json").exists()


def start_elsewhere(monkeypatch):
    """Networks have the initial weights of another seed, as another version of Keras may draw."""
    usual = architecture.build
    monkeypatch.setattr(
        architecture, "build", lambda c: usual(dataclasses.replace(c, seed=c.seed + 1))
    )
