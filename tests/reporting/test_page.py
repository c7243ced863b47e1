"""The page of runs of every experiment, and the data behind its figures."""

import base64
import re
import shutil
import urllib.parse
import xml.etree.ElementTree

import numpy as np
import pytest
from written_runs import Page, fake, fake_rank, fake_trajectory, metrics, rows

from ntk_tf.experiments import EXPERIMENTS
from ntk_tf.reporting import write


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """A report of runs of each experiment but `pretrained`, and what was written for it."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("page")
    place = folder / "runs"
    written = {width: fake_trajectory(place / "t", rng, width)[1] for width in (1, 2)}
    fake_trajectory(place / "t", rng, 3)[0].joinpath("trajectories.npz").unlink()
    ranks = {width: fake_rank(place / "r", rng, width)[1] for width in (1, 2)}
    fake(place, 93, 92, experiment="baseline", dataset="digits", more={"iterations": 100})
    for seed, accuracies in enumerate(([50, 70, 80], [60, 75, 85])):
        metrics(fake(place, 99, 98, dataset="digits", seed=seed), accuracies)
    for linearized in (False, True):
        fake(place, 97, 96, dataset="digits", width=2, linearized=linearized)
    fake(place / "z", 1, 1, dataset="digits", name="<b>")  # the settings of seed 0
    (fake(place, 1, 1, dataset="digits", seed=9) / "result.json").unlink()
    write.write(place, folder / "report")
    return folder / "report", written, ranks


def test_sections_and_what_is_left_out(everything):
    text = (everything[0] / "index.html").read_text()
    headings = re.findall(r"<h2[^>]*>(.*?)</h2>", text)
    assert headings == [
        "Effective rank: LeNet on digits",
        "LeNet on digits",
        "Logistic regression: digits",
        "Trajectories: LeNet on digits",
    ]  # and none of the paper's, which has no digits
    assert not list((everything[0] / "tables").glob("figure*"))
    assert "lenet_x1_digits_seed9</li>" in text
    assert "z/&lt;b&gt;: the same settings as lenet_x1_digits_seed0" in text
    assert "4 train, 3 trajectory, 2 rank, 1 baseline; 1 unfinished; 1 repeated" in text


def test_every_link_leads_somewhere(everything):
    folder = everything[0]
    page = Page((folder / "index.html").read_text())
    assert page.open == []
    for target in page.links:
        if target.startswith("#"):
            assert urllib.parse.unquote(target[1:]) in page.ids
        else:
            assert (folder / urllib.parse.unquote(target)).exists()
    assert all(source.startswith("data:image/svg+xml;base64,") for source in page.sources)
    drawn = [base64.b64decode(source.partition(",")[2]) for source in page.sources]
    assert len(drawn) == 6
    for text in drawn:
        assert xml.etree.ElementTree.fromstring(text).tag.endswith("svg")


def test_outputs_behind_the_trajectories(everything):
    folder, written, _ = everything
    (path,) = (folder / "figures").glob("trajectory_*/trajectories.csv")
    found = rows(path)
    assert len(found) == 2 * 2 * 5
    for row in found:
        arrays = written[int(row["width"])]
        t = list(arrays["step"]).index(int(row["step"]))
        e = list(arrays["index"]).index(int(row["picture"]))
        label = arrays["label"][e]
        assert int(row["class"]) == label
        for name, side in (("network", "standard"), ("linearization", "linearized")):
            assert float(row[name]) == pytest.approx(arrays[side][t, e, label], rel=1e-6)
    (path,) = (folder / "figures").glob("trajectory_*/distances.csv")
    found = [(row["width"], row["step"], row["relative_distance"]) for row in rows(path)]
    assert found == [(w, s, d) for w in "123" for s, d in (("4", "0.25"), ("8", "0.5"))]


def test_network_solid_linearization_dashed(everything):
    (path,) = (everything[0] / "figures").glob("trajectory_*/trajectories.svg")
    lines = re.findall(r'<path d="M[^"]*"[^>]*style="fill: none;([^"]*)"', path.read_text())
    curves = [line for line in lines if "#0072b2" in line]
    dashed = ["stroke-dasharray" in line for line in curves]
    assert (len(curves), sum(dashed)) == (5, 2)  # two panels, and the legend's picture
    targets = [line for line in lines if "#999999" in line and "dasharray" in line]
    assert len(targets) == 3  # one a panel, and the legend's


def test_values_behind_the_spectra(everything):
    folder, _, ranks = everything
    (path,) = (folder / "figures").glob("rank_*/spectra.csv")
    for width, values in ranks.items():
        found = [float(row["singular_value"]) for row in rows(path) if row["width"] == str(width)]
        assert found == list(values)
    (path,) = (folder / "figures").glob("rank_*/effective_rank.csv")
    assert [row["effective_rank"] for row in rows(path)] == ["10.5", "11.5"]


def test_epochs_of_every_run(everything):
    found = rows(everything[0] / "figures/lenet_digits_epochs.csv")
    assert [(row["run"], row["epoch"], row["test_accuracy"]) for row in found] == [
        (f"lenet_x1_digits_seed{seed}", str(i + 1), str(value / 100))
        for seed, values in enumerate(([50, 70, 80], [60, 75, 85]))
        for i, value in enumerate(values)
    ]


def test_measurements_of_other_experiments(everything):
    tables = everything[0] / "tables"
    (row,) = rows(tables / "baseline_lenet_digits.csv")
    assert (row["train_accuracy"], row["test_accuracy"], row["iterations"]) == (
        "93.0",
        "92.0",
        "100",
    )
    found = rows(tables / "trajectory_lenet_digits.csv")
    assert [(row["width"], row["relative_distance"]) for row in found] == [
        ("1", "0.5"),
        ("2", "0.5"),
        ("3", "0.5"),
    ]


def test_figures_of_one_run_alone(all_formats, tmp_path):
    folder, _ = fake_trajectory(tmp_path, np.random.default_rng(1))
    EXPERIMENTS["trajectory"].draw([folder], tmp_path)
    assert {p.name for p in tmp_path.glob("*.*")} >= {"trajectories.png", "trajectories.pdf"}
    assert not (tmp_path / "distances.svg").exists()


def test_figures_are_of_the_runs_that_are_there(tmp_path, rng):
    """Also where an earlier report into the same folder had more of them; other files stay."""
    for width in (1, 2):
        fake_rank(tmp_path / "runs", rng, width)
    write.write(tmp_path / "runs", tmp_path / "report")
    (drawn,) = (tmp_path / "report/figures").glob("rank_*/effective_rank.svg")
    (drawn.parent / "notes.txt").write_text("mine")
    for folder in (tmp_path / "runs").iterdir():
        if folder.name.startswith("rank_lenet_x2"):
            shutil.rmtree(folder)
    write.write(tmp_path / "runs", tmp_path / "report")
    assert {path.stem for path in drawn.parent.iterdir()} == {"spectra", "notes"}
    assert "Effective rank against" not in (tmp_path / "report/index.html").read_text()
