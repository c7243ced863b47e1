"""Run directories written here, and what is read out of a report."""

import csv
from html.parser import HTMLParser

import numpy as np

from ntk_tf import runs
from ntk_tf.experiments.resolving import resolve
from ntk_tf.settings import run_name


def fake(runs_dir, train=None, test=None, diverged=False, name=None, more=(), **settings):
    """A finished run's directory; accuracies in percent."""
    config = resolve(**settings)
    folder = runs_dir / (name or run_name(config))
    folder.mkdir(parents=True)
    result = {
        "status": "diverged" if diverged else "completed",
        "train_accuracy": None if diverged or train is None else train / 100,
        "test_accuracy": None if diverged or test is None else test / 100,
        "epochs": getattr(config, "epochs", None),
        "seconds": 12.3,
        "versions": {"tensorflow": "2.21.0"},
    } | dict(more)
    runs.write_json(folder / "config.json", config.to_dict())
    runs.write_json(folder / "result.json", result)
    return folder


def fake_trajectory(runs_dir, rng, width=1, seed=0, **settings):
    """A finished trajectory of 5 records, two pictures and three outputs; its arrays."""
    place = {"experiment": "trajectory", "dataset": "digits", "width": width, "seed": seed}
    folder = fake(runs_dir, more={"relative_distance": 0.5, "steps": 8}, **place, **settings)
    arrays = {
        "step": np.arange(0, 10, 2),
        "standard": rng.normal(size=(5, 2, 3)).astype(np.float32),
        "linearized": rng.normal(size=(5, 2, 3)).astype(np.float32),
        "label": np.array([2, 0]),
        "index": np.array([7, 3]),
    }
    np.savez(folder / "trajectories.npz", **arrays)
    distances = [
        {"step": step, "relative_distance": step / 16, "distance": 1.0, "movement": 2.0}
        for step in (4, 8)
    ]
    runs.write_json(folder / "trajectory.json", {"width": width, "distances": distances})
    return folder, arrays


def fake_rank(runs_dir, rng, width=1, **settings):
    """A finished spectrum of 12 singular values; these."""
    content = {"effective_rank": 9.5 + width, "rows": 12, "width": width, "seed": 0}
    place = {"experiment": "rank", "dataset": "digits", "width": width, "examples": 4}
    folder = fake(runs_dir, more=content, **place, **settings)
    values = -np.sort(-rng.uniform(size=12))
    np.savez(folder / "spectrum.npz", singular_values=values)
    runs.write_json(folder / "rank.json", content)
    return folder, values


def metrics(folder, accuracies):
    """Write metrics.csv with these test accuracies in percent, None for an empty cell."""
    found = [
        {"epoch": i + 1, "test_accuracy": None if accuracy is None else accuracy / 100}
        for i, accuracy in enumerate(accuracies)
    ]
    runs.write_table(folder / "metrics.csv", runs.METRICS_COLUMNS, found)


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


class Page(HTMLParser):
    """What a page links to and shows; `open`: elements that were not closed in order."""

    VOID = ("meta", "img", "br", "link", "wbr")

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.sources, self.ids = [], [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.links += [attrs["href"]] if "href" in attrs else []
        self.sources += [attrs["src"]] if "src" in attrs else []
        self.ids |= {attrs["id"]} if "id" in attrs else set()
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
