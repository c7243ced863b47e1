"""The tables that are typed into results/, against the runs that lie beside them.

A number that has no run, a run that is in no table, and one that was typed wrong are found.
"""

import csv
import itertools
import json
import pathlib
import re

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
RESULTS = ROOT / "results"
pytestmark = pytest.mark.skipif(
    not RESULTS.exists(), reason="results/ is no part of a source distribution"
)
DATASETS = {"MNIST": "mnist", "CIFAR-10 (JPEG)": "cifar10"}


def tables(path, first):
    """Rows of cells of all tables whose first header is this one, each with its header."""
    found, lines = [], (RESULTS / path).read_text().splitlines()
    for i, line in enumerate(lines):
        if not re.fullmatch(rf"\| {re.escape(first)} ?\|.*\|", line):
            continue
        header = cells(line)
        for number, name in enumerate(header):
            if name == "difference":
                header[number] = f"difference to {header[number - 1]}"
        for row in lines[i + 2 :]:
            if not row.startswith("|"):
                break
            found.append(dict(zip(header, cells(row), strict=True)))
    assert found, f"{path}: no table begins with {first!r}"
    return found


def cells(line):
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def runs(folder, experiment):
    """The settings and results of all runs in a folder."""
    found = []
    for path in sorted((RESULTS / folder).rglob("config.json")):
        config = json.loads(path.read_text())
        if config["experiment"] == experiment:
            found.append((config, json.loads((path.parent / "result.json").read_text())))
    return found


def one(found, **wanted):
    """The result of the only run with some settings, and None if there is none."""
    fits = [r for c, r in found if all(c.get(name) == value for name, value in wanted.items())]
    assert len(fits) <= 1, wanted
    return fits[0] if fits else None


def percent(fraction, digits=1):
    return f"{100 * fraction:.{digits}f}"


def test_infinite_lenets_and_finite_ones():
    kernels, networks, used = runs("infinite", "infinite"), runs("infinite", "train"), 0
    for row in tables("infinite/README.md", "dataset"):
        settings = {
            "arch": "lenet",
            "dataset": DATASETS[row["dataset"]],
            "train_examples": int(row["training pictures"].replace(",", "")),
            "arch_args": {"max": None, "average": "pooling=average"}[row["pooling"]],
        }
        found = one(kernels, **settings)
        columns = {
            "infinite, NTK": "ntk",
            "the paper's widening": "ntk_paper_widening",
            "NNGP": "nngp",
        }
        for column, kind in columns.items():
            assert row[column] == percent(found[kind]["test_accuracy"]), (settings, column)
        for model, width in itertools.product(("LinLeNet", "LeNet"), (1, 5, 10)):
            linearized = model == "LinLeNet"
            result = one(networks, linearized=linearized, width=float(width), **settings)
            used += result is not None
            expected = percent(result["test_accuracy"]) if result else ""
            assert row[f"{model} x{width}"] == expected, (settings, model, width)
    others = [c for c, _ in networks if c["train_examples"] == 500 and c["dataset"] == "mnist"]
    assert used == len(networks) - len(others)  # those that the page names without numbers


def test_cnn_v_on_cifar10():
    kernels = runs("infinite/cnn_v", "infinite")
    for row in tables("infinite/README.md", "depth"):
        if "Arora et al." not in row:
            continue
        found = [r["ntk"] for c, r in kernels if c["arch_args"] == f"depth={row['depth']}"]
        assert len(found) == 5
        for column, name in (
            ("without a ridge", "test_accuracy_without_ridge"),
            ("ridge by leave-one-out", "test_accuracy"),
        ):
            values = [result[name] for result in found]
            spread = percent(np.std(values, ddof=1))
            assert row[column] == f"{percent(np.mean(values))} ± {spread}", (row, column)


def test_cnns_on_digits():
    kernels = runs("infinite/digits", "infinite")
    rows = [row for row in tables("infinite/README.md", "depth") if "network" in row]
    assert len(rows) == len(kernels)
    for row in rows:
        arch = row["network"].lower().replace("-", "_")
        found = one(kernels, arch=arch, arch_args=f"depth={row['depth']}")
        assert row["NTK"] == percent(found["ntk"]["test_accuracy"])
        assert row["the paper's widening"] == percent(found["ntk_paper_widening"]["test_accuracy"])
        assert row["NNGP"] == percent(found["nngp"]["test_accuracy"])
        assert row["seconds on one busy core"] == f"{found['seconds']:.0f}"


def test_cosines_of_finite_kernels():
    rows = [row for row in tables("infinite/README.md", "") if "x25" in row]
    assert len(rows) == 2
    for row in rows:
        path = RESULTS / f"infinite/cosine_{DATASETS[row['']]}/widths.csv"
        with open(path) as file:
            entries = list(csv.DictReader(file))
        for width in (1, 2, 5, 10, 25):
            of_width = [float(e["cosine"]) for e in entries if float(e["width"]) == width]
            assert row[f"x{width}"] == f"{np.mean(of_width):.4f}", (row[""], width)


@pytest.mark.parametrize("model", ["LeNet", "linearized"])
def test_learning_rates(model):
    """Of seed 0; the rate of .1 is that of Figures 3 and 4."""
    found = [
        run for folder in ("learning_rates", "figure3", "figure4") for run in runs(folder, "train")
    ]
    for row in tables("README.md", ""):
        if "0.001" not in row or not row[""].startswith(model):
            continue
        dataset = DATASETS[row[""].split(", ")[1]]
        for rate in ("1", "0.1", "0.01", "0.001"):
            result = one(
                found,
                dataset=dataset,
                linearized=model == "linearized",
                width=1.0,
                seed=0,
                learning_rate=float(rate),
            )
            accuracies = result and [result[f"{split}_accuracy"] for split in ("test", "train")]
            assert row[rate] == (" / ".join(map(percent, accuracies)) if result else ""), (
                row,
                rate,
            )


def test_effective_ranks():
    found = runs("figure5", "rank")
    assert found
    for row in tables("README.md", "network"):
        arch, width = re.match(r"(LeNet|AlexNet) x(\d+)", row["network"]).groups()
        for precision in ("float32", "float64"):
            ranks = [
                r["effective_rank"]
                for c, r in found
                if (c["arch"], c["precision"]) == (arch.lower(), precision)
                and c["width"] == float(width)
                and c["examples"] == int(row["pictures"].replace(",", ""))
            ]
            assert len(ranks) <= 1
            assert row[precision] == "".join(f"{rank:.3f}" for rank in ranks), (row, precision)


def test_figures_3_and_4_in_the_readme():
    """Means and standard deviations over the seeds named, and differences to the paper's."""
    found = {"MNIST": runs("figure3", "train"), "CIFAR-10": runs("figure4", "train")}
    paper = json.loads((ROOT / "ntk_tf/reporting/paper_numbers.json").read_text())
    figures = {"MNIST": "figure3_lenet_mnist", "CIFAR-10": "figure4_lenet_cifar10"}
    used, rows = 0, [row for row in tables("../README.md", "") if "difference to train" in row]
    for row in rows:
        dataset, model, *seeds = row[""].split(", ", 2)
        width = int(model.rsplit("x", 1)[1])
        kind = "linearized" if model.startswith("linearized") else "standard"
        of_row = [
            result
            for config, result in found[dataset]
            if (config["width"], config["linearized"]) == (width, kind == "linearized")
        ]
        named = re.findall(r"\d", seeds[0]) if seeds else "012"
        assert sorted(str(result["seed"]) for result in of_row) == list(named), row
        used += len(of_row)
        numbers = paper[figures[dataset]]
        for split in ("test", "train"):
            values = 100 * np.array([result[f"{split}_accuracy"] for result in of_row])
            spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
            assert row[split] == f"{np.mean(values):.1f}{spread}", (row, split)
            theirs = numbers[kind][split][numbers["widths"].index(width)]
            difference = f"{np.mean(values) - theirs:.1f}".replace("-0.0", "0.0")
            assert row[f"difference to {split}"] == difference, (row, split)
    assert used == sum(map(len, found.values()))
