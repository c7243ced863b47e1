"""The systems that Table 1 quotes: their rows with runs of ours, and accuracy against alpha."""

import csv
import io
import math

import pytest
from written_runs import fake, rows

from ntk_tf.reporting import collect, grouping, paper, table1, write

CHIZAT = {"loss": "cross_entropy", "batch_size": 8}
ARORA = {"arch_args": "depth=21", "parametrization": "ntk"}


def table_1(folder):
    """Its rows, as CSV has them."""
    table = table1.table(grouping.studies(collect.read(folder).of("train")))
    return list(csv.DictReader(io.StringIO(table.csv())))


def test_the_sources_numbers_give_the_quoted_rows(tmp_path):
    """As if we had run the sources' experiments: lazily, by the limit, and by linearizations."""
    linear = {
        "vgg11": {"centered": True, "alpha": 1e7},
        "resnet18": {"centered": True, "linearized": True},
        "cnn_v": {"centered": True, "linearized": True},
        "cnn_gap": {"linearized": True},
    }
    remarks = {
        "VGG-11": "the paper writes x6; lazy: alpha 1e7",
        "ResNet-18": "the paper writes x8; linearized: centered",
        "CNN-V, 21 layers": "quoted linearized: infinite width; linearized: centered",
        "CNN-GAP, 21 layers": "quoted linearized: infinite width; linearized: not centered",
    }
    for entry in paper.numbers()["table1_test_accuracy"]:
        if entry["arch"] in linear:
            source = CHIZAT if entry["arch"] in ("vgg11", "resnet18") else ARORA
            source = source | {"arch": entry["arch"], "width": entry["width"]}
            for seed, above in ((0, 1), (1, -1)):
                place = source | {"seed": seed}
                fake(tmp_path, 99, entry["standard"] + above, **place)
                fake(tmp_path, 60, entry["linearized"] + above, **place, **linear[entry["arch"]])
    quoted = [row for row in table_1(tmp_path) if row["arch"] in remarks]
    assert [row["arch"] for row in quoted] == list(remarks)
    for row in quoted:
        assert row["standard"] == row["paper_standard"]
        assert row["linearized"] == row["paper_linearized"]
        assert row["standard_difference"] == row["linearized_difference"] == "0.0"
        assert row["standard_std"] == row["linearized_std"] == repr(round(math.sqrt(2), 4))
        assert row["remark"] == remarks[row["arch"]]


def test_other_sizes_stand_below_with_what_sets_them_apart(tmp_path):
    small = {"arch": "vgg11", "train_examples": 5000}
    fake(tmp_path, 99, 60, **small)
    fake(tmp_path, 50, 40, **small, linearized=True)  # of the linearizations the last resort
    fake(tmp_path, 51, 41, **small, linearized=True, centered=True)
    fake(tmp_path, 52, 42, **small, centered=True, alpha=1e3)
    fake(tmp_path, 99, 88, arch="vgg11", width=2, **CHIZAT)
    fake(tmp_path, 99, 11, arch="vgg11", width=2, loss="cross_entropy")  # further from the source
    fake(tmp_path, 99, 87, arch="vgg11", width=8, epochs=7, **CHIZAT)
    fake(tmp_path, 99, 70, arch="cnn_v", parametrization="ntk", arch_args="depth=4")
    found = table_1(tmp_path)
    columns = ("width", "standard", "linearized", "paper_standard", "remark")
    vgg = [[row[key] for key in columns] for row in found if row["arch"] == "VGG-11"]
    small = "loss l2; batch size 128; train examples 5000; linearized: centered"
    assert vgg == [
        ["8", "87.0", "", "89.7", "the paper writes x6; epochs 7"],
        ["1", "60.0", "41.0", "", small],
        ["2", "88.0", "", "", ""],
    ]
    cnn = [[row[k] for k in ("arch", *columns)] for row in found if "CNN-V" in row["arch"]]
    assert cnn == [
        ["CNN-V, 21 layers", "1", "", "", "75.6", "quoted linearized: infinite width"],
        ["CNN-V", "1", "70.0", "", "", "arch args depth=4"],
    ]


@pytest.fixture(scope="module")
def alphas(tmp_path_factory):
    """A report of centered networks of several alphas, their limit and the network."""
    folder = tmp_path_factory.mktemp("alphas")
    place = {"arch": "vgg11", "train_examples": 500}
    for seed in (0, 1):
        for alpha, accuracy in ((0.1, 20), (1, 60), (1e7, 40)):
            scaled = {"centered": True, "alpha": alpha, "seed": seed}
            fake(folder / "runs", 90, accuracy + seed, **place, **scaled, precision="float64")
        fake(folder / "runs", 50, 42 + seed, **place, seed=seed, centered=True, linearized=True)
    fake(folder / "runs", diverged=True, **place, centered=True, alpha=10, learning_rate=1)
    fake(folder / "runs", 91, 30, **place, centered=True, alpha=1e7, learning_rate=0.01)
    fake(folder / "runs", 92, 61, **place)
    write.write(folder / "runs", folder / "report")
    return folder / "report"


def test_accuracy_against_alpha(alphas):
    """Runs that differ in alpha, centering and the precision that it needs are one study."""
    (path,) = (alphas / "tables").glob("vgg11*_alphas.csv")
    shown = ("alpha", "test", "test_std", "train", "seeds", "learning_rate")
    deviation = repr(round(math.sqrt(0.5), 4))
    found = {row["model"]: [row[key] for key in shown] for row in rows(path)}
    assert found == {
        "VGG-11": ["", "61.0", "", "92.0", "1", "0.1"],
        "VGG-11, alpha 0.1": ["0.1", "20.5", deviation, "90.0", "2", "0.1"],
        "VGG-11, alpha 1": ["1", "60.5", deviation, "90.0", "2", "0.1"],
        "VGG-11, alpha 10": ["10", "", "", "", "", ""],
        "VGG-11, alpha 1e7": ["1e7", "40.5", deviation, "90.0", "2", "0.1"],
        "linearized VGG-11, centered": ["", "42.5", deviation, "50.0", "2", "0.1"],
    }
    assert (alphas / "figures" / f"{path.stem}.svg").stat().st_size > 5000
    page = (alphas / "index.html").read_text()
    assert "Accuracy against alpha" in page
    assert f"tables/{path.name}" in page
    (everything,) = (alphas / "tables").glob("vgg11*_all_settings.csv")
    assert {row["precision"] for row in rows(everything)} == {"float32", "float64"}


@pytest.mark.parametrize("alpha", [0.1, 1e3])
def test_one_alpha_beside_the_network_is_drawn_against_the_width(alpha, tmp_path):
    for width in (1, 2):
        fake(tmp_path / "runs", 90, 40, dataset="digits", width=width, centered=True, alpha=alpha)
        fake(tmp_path / "runs", 95, 80, dataset="digits", width=width)
    write.write(tmp_path / "runs", tmp_path / "report")
    drawn = (tmp_path / "report/figures/lenet_digits.svg").read_text()
    assert f"<!-- LeNet, alpha {paper.alpha_text(alpha)} -->" in drawn


def test_one_alpha_is_no_curve(tmp_path):
    for width in (1, 2):
        fake(tmp_path / "runs", 90, 40, dataset="digits", width=width, centered=True, alpha=1e7)
    write.write(tmp_path / "runs", tmp_path / "report")
    assert not list((tmp_path / "report").rglob("*_alphas.*"))
    found = rows(tmp_path / "report/tables/lenet_digits.csv")
    lazy = [row["width"] for row in found if row["model"] == "LeNet, alpha 1e7"]
    assert lazy == ["1", "2"]
