"""The report, from directories written here: the paper's numbers as fake runs, and others."""

import json
import pathlib
import re
import subprocess
import sys
import urllib.parse

import numpy as np
import pytest
from written_runs import Page, fake, metrics, rows

from ntk_tf import runs
from ntk_tf.experiments.resolving import resolve
from ntk_tf.reporting import accuracies, collect, grouping, paper, write

PAPER = paper.numbers()


def fake_figure(runs_dir, key, arch, dataset, curves):
    content = PAPER[key]
    for curve, settings in curves.items():
        values = zip(
            content["widths"], *(content[curve][s] for s in ("train", "test")), strict=True
        )
        for width, train, test in values:
            place = {"arch": arch, "dataset": dataset, "width": width}
            fake(runs_dir, train, test, **place, **settings)


@pytest.fixture(scope="module")
def papers_report(tmp_path_factory):
    """The report of the paper's numbers, as if we had run its experiments with its settings."""
    folder = tmp_path_factory.mktemp("paper")
    both = {"standard": {}, "linearized": {"linearized": True}}
    fake_figure(folder / "runs/a", "figure3_lenet_mnist", "lenet", "mnist", both)
    fake_figure(folder / "runs/a", "figure4_lenet_cifar10", "lenet", "cifar10", both)
    rate1 = {"linearized": True, "learning_rate": 1.0, "weight_decay": 5e-7}
    rate01 = {"linearized": True, "learning_rate": 0.1, "weight_decay": 5e-6}
    curves = {"standard": {}, "linearized_lr_1": rate1, "linearized_lr_0.1": rate01}
    snakes = {"arch": "alexnet", "dataset": "imagenet_snakes"}
    fake_figure(folder / "runs/b", "figure6_alexnet_snakes", *snakes.values(), curves)
    figure1 = PAPER["figure1_alexnet_snakes"]
    fake(folder / "runs/c", **figure1["cross_entropy"], loss="cross_entropy", **snakes)
    pretrained = figure1["pretrained_on_full_imagenet"]
    weights = folder / "a.pth"
    weights.touch()
    fake(folder / "runs/c", **pretrained, experiment="pretrained", weights=str(weights))
    weights.unlink()  # a report needs nothing of what the runs took
    fake(folder / "runs/c", **figure1["l2"], **snakes)  # once more: the same run as in Figure 6
    write.write(folder / "runs", folder / "report")
    return folder / "report"


@pytest.mark.parametrize("figure", paper.figures(), ids=lambda figure: figure.key)
def test_papers_numbers_give_the_papers_figures(papers_report, figure):
    found = rows(papers_report / "tables" / f"{figure.key}.csv")
    content = PAPER[figure.key]
    expected = [
        (str(width), repr(float(test)), repr(float(train)))
        for curve in figure.curves
        for width, test, train in zip(
            content["widths"], content[curve.key]["test"], content[curve.key]["train"], strict=True
        )
    ]
    assert [(r["width"], r["test"], r["train"]) for r in found] == expected
    for row in found:
        for split in ("test", "train"):
            assert float(row[f"paper_{split}"]) == float(row[split])
            assert row[f"{split}_difference"] == "0.0"
        assert row["seeds"] == "1"


def test_papers_numbers_give_table_1(papers_report):
    found = rows(papers_report / "tables" / "table1_test_accuracy.csv")
    for row, entry in zip(found, PAPER["table1_test_accuracy"], strict=True):
        ours = entry["arch"] in ("lenet", "alexnet")
        for side in ("standard", "linearized"):
            assert float(row[f"paper_{side}"]) == entry[side]
            assert row[side] == (repr(float(entry[side])) if ours else "")
            assert row[f"{side}_difference"] == ("0.0" if ours else "")


def test_papers_numbers_give_figure_1(papers_report):
    found = rows(papers_report / "tables" / "figure1_alexnet_losses.csv")
    assert [(r["train"], r["test"]) for r in found] == [
        ("98.5", "51.4"),
        ("99.1", "53.8"),
        ("", "47.6"),
    ]
    assert [r["test_difference"] for r in found] == ["0.0"] * 3
    assert [r["seeds"] for r in found] == ["1", "1", ""]


def test_a_difference_is_ours_less_the_papers(tmp_path):
    for linearized, test in ((False, 99.2 + 0.3), (True, 93.2 - 1.5)):
        fake(tmp_path / "runs", 99, test, dataset="mnist", linearized=linearized)
    write.write(tmp_path / "runs", tmp_path / "report")
    table = rows(tmp_path / "report/tables/figure3_lenet_mnist.csv")
    found = [float(row["test_difference"]) for row in table if row["test_difference"]]
    assert found == pytest.approx([0.3, -1.5])


def test_every_accuracy_is_in_percent(tmp_path):
    weights = tmp_path / "a.pth"
    weights.touch()
    more = {"test_accuracy_among_snakes": 0.652}
    fake(tmp_path / "runs", test=56.5, experiment="pretrained", weights=str(weights), more=more)
    write.write(tmp_path / "runs", tmp_path / "report")
    (table,) = (tmp_path / "report/tables").glob("pretrained*.csv")
    (row,) = rows(table)
    assert (row["test_accuracy"], row["test_accuracy_among_snakes"]) == ("56.5", "65.2")


def test_figures_show_each_split_in_percent(tmp_path, monkeypatch):
    metrics(fake(tmp_path / "runs", 99, 90, dataset="digits", width=2), [50, 60, 90])
    drawn, save = {}, accuracies.plots.save
    monkeypatch.setattr(
        accuracies.plots, "save", lambda f, path: (drawn.update({path.name: f}), save(f, path))
    )
    write.write(tmp_path / "runs", tmp_path / "report")
    for axis in drawn["lenet_digits"].axes:
        split = axis.get_title().removesuffix(" accuracy")
        values = [y for line in axis.lines for y in np.ravel(line.get_ydata()) if y > 1]
        assert set(values) == {{"train": 99.0, "test": 90.0}[split]}
    lines = [line for line in drawn["lenet_digits_epochs"].axes[0].lines if len(line.get_ydata())]
    np.testing.assert_allclose(lines[0].get_ydata(), [50, 60, 90])


def test_missing_cells_are_visibly_empty(papers_report):
    tables = papers_report / "tables"
    assert (
        "| VGG-11 | 8 | CIFAR-10 | — | 89.7 | — | — | 61.7 |"
        in (tables / "table1_test_accuracy.md").read_text()
    )
    latex = (tables / "table1_test_accuracy.tex").read_text()
    assert "VGG-11 & 8 & CIFAR-10 & -- & 89.7 & -- & -- & 61.7 & --" in latex
    body = latex.split(r"\midrule")[1].split(r"\bottomrule")[0]
    assert {line.count("&") for line in body.strip().splitlines()} == {9}


def test_figures_and_page(papers_report):
    for figure in ("figure1_alexnet_losses", *(f.key for f in paper.figures())):
        for ending in ("png", "pdf", "svg"):
            assert (papers_report / "figures" / f"{figure}.{ending}").stat().st_size > 5000
    text = (papers_report / "index.html").read_text()
    assert "versions: tensorflow 2.21.0" in text
    page = Page(text)
    assert page.open == []
    assert len([src for src in page.sources if src.startswith("data:image/svg+xml;base64,")]) == 5
    for target in page.links:
        if target.startswith("#"):
            assert target[1:] in page.ids
        else:
            place = papers_report / urllib.parse.unquote(target)
            assert place.is_file() or (place / "result.json").exists()
    assert len(page.links) > 40


@pytest.fixture
def mixed(tmp_path):
    """Three seeds at 0.1, a better one that partly diverged at 1, one at 0.01, another study."""
    for seed, test in enumerate((90, 92, 94)):
        fake(tmp_path / "runs", 99, test, dataset="digits", seed=seed)
    fake(tmp_path / "runs", 99.5, 97, dataset="digits", learning_rate=1)
    fake(tmp_path / "runs", diverged=True, dataset="digits", learning_rate=1, seed=1)
    fake(tmp_path / "runs", 80, 70, dataset="digits", learning_rate=0.01)
    fake(tmp_path / "runs", diverged=True, dataset="digits", learning_rate=1, width=2)
    fake(tmp_path / "runs", 99, 98, dataset="digits", epochs=5)
    return tmp_path


def test_choice_mean_and_divergence(mixed):
    write.write(mixed / "runs", mixed / "report")
    network = rows(mixed / "report/tables/lenet_digits.csv")[:2]
    assert network[0]["learning_rate"] == "0.1"
    assert (network[0]["test"], network[0]["test_std"], network[0]["seeds"]) == ("92.0", "2.0", "3")
    assert network[0]["remark"] == "diverged at learning rate 1 (1 of 2 seeds)"
    assert (network[1]["width"], network[1]["test"]) == ("2", "")
    assert network[1]["remark"] == "diverged at learning rate 1"
    everything = rows(mixed / "report/tables/lenet_digits_all_settings.csv")
    status = {(row["width"], row["learning_rate"]): row["status"] for row in everything}
    assert status == {
        ("1", "1.0"): "diverged (1 of 2)",
        ("1", "0.1"): "chosen",
        ("1", "0.01"): "",
        ("2", "1.0"): "diverged (1 of 1)",
    }
    assert rows(mixed / "report/tables/lenet_digits_epochs5.csv")[0]["test"] == "98.0"
    markdown = (mixed / "report/tables/lenet_digits.md").read_text()
    assert "| LeNet | 1 | 0.1 | 5e-05 | 3 | 92.0 ± 2.0 |" in markdown
    assert "paper's" not in markdown.splitlines()[2]


def test_settings_are_compared_on_the_seeds_that_all_have(tmp_path):
    for seed, accuracy in enumerate((95.0, 93.0, 94.0)):
        fake(tmp_path / "runs", accuracy, accuracy, seed=seed, learning_rate=0.1)
    fake(tmp_path / "runs", 94.5, 94.5, seed=0, learning_rate=0.01)
    fake(tmp_path / "runs", 10.0, 10.0, seed=0, learning_rate=0.001)
    (study,) = grouping.studies(collect.read(tmp_path / "runs").of("train"))
    assert grouping.choose(study.settings).learning_rate == 0.1
    fake(tmp_path / "runs", 93.5, 93.5, seed=7, learning_rate=0.02)
    (study,) = grouping.studies(collect.read(tmp_path / "runs").of("train"))
    assert grouping.choose(study.settings).learning_rate == 0.01


def test_every_run_and_its_best_epoch(mixed):
    place = mixed / "runs"
    metrics(place / "lenet_x1_digits_seed0", [80, 91.5, 91, 91.5, 90])
    metrics(place / "lenet_x1_digits_seed1", [80, 92])
    metrics(place / "lenet_x1_digits_seed1_learning_rate1", [30, None])
    metrics(place / "lenet_x1_digits_seed0_learning_rate0.01", [])
    before = {path.name for path in place.iterdir()}
    write.write(place, mixed / "report")
    assert {path.name for path in place.iterdir()} == before
    found = {row["run"]: row for row in rows(mixed / "report/tables/lenet_digits_all_runs.csv")}
    assert len(found) == 7
    keys = ("seed", "learning_rate", "test", "best_test_accuracy", "best_epoch", "status")
    assert {name: tuple(row[key] for key in keys) for name, row in found.items()} == {
        "lenet_x1_digits_seed0": ("0", "0.1", "90.0", "91.5", "2", "completed"),
        "lenet_x1_digits_seed1": ("1", "0.1", "92.0", "92.0", "2", "completed"),
        "lenet_x1_digits_seed2": ("2", "0.1", "94.0", "", "", "completed"),
        "lenet_x1_digits_seed0_learning_rate1": ("0", "1", "97.0", "", "", "completed"),
        "lenet_x1_digits_seed1_learning_rate1": ("1", "1", "", "30.0", "1", "diverged"),
        "lenet_x1_digits_seed0_learning_rate0.01": ("0", "0.01", "70.0", "", "", "completed"),
        "lenet_x2_digits_seed0_learning_rate1": ("0", "1", "", "", "", "diverged"),
    }
    assert "Every run (7)" in (mixed / "report/index.html").read_text()


@pytest.mark.parametrize(
    "text", ["", "epoch\n1\n", "epoch,test_accuracy\n1,x\n", "epoch,test_accuracy\n1,2\n"]
)
def test_damaged_metrics_are_named(text, tmp_path):
    path = fake(tmp_path / "runs", 99, 98, dataset="digits") / "metrics.csv"
    path.write_text(text)
    if not text:  # no epoch yet
        write.write(tmp_path / "runs", tmp_path / "report")
        return
    with pytest.raises(runs.RunDirectoryError, match=f"^{path}: "):
        write.write(tmp_path / "runs", tmp_path / "report")


def test_other_settings_are_other_studies(tmp_path):
    fake(tmp_path / "runs", 94, 94, dataset="digits", linearized=True)
    fake(tmp_path / "runs", 93, 92, dataset="digits", linearized=True, decay_toward="zero")
    fake(tmp_path / "runs", 99, 98, dataset="digits")
    fake(tmp_path / "runs", 97, 96, dataset="digits", train_biases=False)
    path = tmp_path / "runs/linlenet_x1_digits_seed0/config.json"  # as an earlier version wrote it
    content = json.loads(path.read_text())
    del content["decay_toward"], content["train_biases"]
    path.write_text(json.dumps(content))
    write.write(tmp_path / "runs", tmp_path / "report")
    usual = rows(tmp_path / "report/tables/lenet_digits.csv")
    other = rows(tmp_path / "report/tables/lenet_digits_decay_towardzero.csv")
    assert [(row["model"], row["test"]) for row in usual] == [
        ("LeNet", "98.0"),
        ("linearized LeNet", "94.0"),
    ]
    assert [(row["model"], row["test"]) for row in other] == [("linearized LeNet", "92.0")]
    fixed = rows(tmp_path / "report/tables/lenet_digits_train_biasesFalse.csv")
    assert [(row["model"], row["test"]) for row in fixed] == [("LeNet", "96.0")]


def test_report_of_the_same_runs_is_the_same(mixed):
    write.write(mixed / "runs", mixed / "one")
    write.write(mixed / "runs", mixed / "two")
    for path in sorted((mixed / "one/tables").iterdir()):
        assert path.read_bytes() == (mixed / "two/tables" / path.name).read_bytes()


def test_runs_of_other_versions_are_read(tmp_path):
    folder = fake(tmp_path, 99, 98, dataset="digits")
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {"classes": ["a"], "new": 1}))
    assert collect.read(tmp_path).records[0].config == resolve(dataset="digits")


def report(*args):
    command = [sys.executable, "-X", "importtime", "-m", "ntk_tf.report", *args]
    return subprocess.run(command, capture_output=True, text=True)


def test_command(mixed):
    done = report(f"--runs_dir={mixed / 'runs'}", f"--output_dir={mixed / 'report'}")
    assert done.returncode == 0
    assert " tensorflow\n" not in done.stderr
    assert "Warning" not in done.stderr
    assert "index.html" in done.stdout
    done = report(f"--runs_dir={mixed / 'runs'}")
    assert done.returncode == 0
    assert " matplotlib\n" not in done.stderr
    assert not (mixed / "runs/report").exists()


def test_bad_input(tmp_path):
    for args in (["--runs_dir=/nowhere"], [f"--runs_dir={tmp_path}", "--runs=3"], ["stray"]):
        command = [sys.executable, "-m", "ntk_tf.report", f"--output_dir={tmp_path / 'o'}", *args]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1
    assert list(pathlib.Path(tmp_path).iterdir()) == []


def test_a_file_in_the_place_of_the_report(mixed, tmp_path):
    (tmp_path / "file").touch()
    done = report(f"--runs_dir={mixed / 'runs'}", f"--output_dir={tmp_path / 'file'}")
    assert done.returncode == 2
    *_, last = done.stderr.splitlines()
    assert re.fullmatch(r"error: --output_dir=\S+: cannot be written \(\S+: Not a dir.*\)", last)
