"""Converged linearizations beside network and SGD; linearizations and kernels after training."""

import pytest
from written_runs import fake, rows

from ntk_tf import runs
from ntk_tf.reporting import ends, write


def test_gap_in_two_parts(tmp_path):
    for seed, network, sgd, end in ((0, 99, 94, 95), (1, 97, 92, 94)):
        fake(tmp_path / "runs", 99.5, network, dataset="mnist", seed=seed)
        fake(tmp_path / "runs", 93, sgd, dataset="mnist", seed=seed, linearized=True)
        fake(tmp_path / "runs", 96, end, dataset="mnist", seed=seed, experiment="converged")
    fake(tmp_path / "runs", 10, 10, dataset="mnist", seed=2)  # no end of this seed is known
    other = {"dataset": "mnist", "width": 2, "arch_args": "kernel_size=3"}
    fake(tmp_path / "runs", 77, 77, **other)  # another network has no part in it
    solutions = [
        {"weight_decay": decay, "train_accuracy": value, "test_accuracy": value / 2}
        for decay, value in ((5e-5, 0.9), (1e-8, 0.8))
    ]
    fake(
        *(tmp_path / "runs", 90, 45),
        **{"dataset": "mnist", "experiment": "converged", "width": 2},
        weight_decays=(5e-5, 1e-8),
        more={"solutions": solutions},
    )
    write.write(tmp_path / "runs", tmp_path / "out")
    found = rows(tmp_path / "out/tables/converged_lenet_MNIST_gap.csv")
    assert [(r["width"], r["weight_decay"]) for r in found] == [
        ("1", "5e-05"),
        ("2", "1e-08"),
        ("2", "5e-05"),
    ]
    first = found[0]
    assert (first["network_test"], first["sgd_test"]) == ("98.0", "93.0")
    assert (first["converged_test"], first["converged_test_std"]) == ("94.5", "0.7071")
    assert (first["kernel"], first["descent"]) == ("3.5", "1.5")
    assert [r["converged_test"] for r in found[1:]] == ["40.0", "45.0"]
    assert found[1]["network_test"] == found[1]["descent"] == ""
    assert (tmp_path / "out/figures/converged_lenet_MNIST_gap.svg").stat().st_size > 5000
    assert "network − converged" in (tmp_path / "out/index.html").read_text()


def test_weight_decays_are_compared_on_the_same_seeds(tmp_path):
    for seed, decay, test in ((0, 5e-5, 95), (1, 5e-5, 91), (0, 1e-8, 97)):
        settings = {"dataset": "mnist", "experiment": "converged", "weight_decay": decay}
        fake(tmp_path / "runs", 96, test, seed=seed, **settings)
        if decay == 5e-5:
            fake(tmp_path / "runs", 99, test + 4, dataset="mnist", seed=seed)
    write.write(tmp_path / "runs", tmp_path / "out")
    found = rows(tmp_path / "out/tables/converged_lenet_MNIST_gap.csv")
    assert [(r["weight_decay"], r["converged_test"]) for r in found] == [
        ("1e-08", "97.0"),
        ("5e-05", "95.0"),
    ]
    assert [(r["network_test"], r["kernel"]) for r in found] == [("99.0", "2.0"), ("99.0", "4.0")]


def test_all_columns_are_of_the_same_seeds(tmp_path):
    """Also where there are more ends than trainings, or the other way round."""
    ends = {"dataset": "mnist", "experiment": "converged"}
    for seed, test in ((0, 95), (1, 85)):
        fake(tmp_path / "runs", 96, test, seed=seed, **ends)
        fake(tmp_path / "runs", 96, test, seed=seed, width=2, **ends)
        fake(tmp_path / "runs", 99, 99 - 6 * seed, dataset="mnist", seed=seed, width=2)
    fake(tmp_path / "runs", 99, 99, dataset="mnist", seed=0)
    fake(tmp_path / "runs", 93, 94, dataset="mnist", seed=0, linearized=True)
    fake(tmp_path / "runs", 93, 84, dataset="mnist", seed=1, linearized=True, width=2)
    write.write(tmp_path / "runs", tmp_path)
    one, two = rows(tmp_path / "tables/converged_lenet_MNIST_gap.csv")
    names = ("network_test", "converged_test", "sgd_test", "kernel", "descent")
    assert [float(one[name]) for name in names] == pytest.approx([99, 95, 94, 4, 1])
    assert [float(two[name]) for name in names] == pytest.approx([93, 85, 84, 8, 1])


def test_network_and_sgd_are_of_one_training_which_is_named(tmp_path):
    """The longest where none has the paper's settings, and not one each of two."""
    shared = {"dataset": "mnist", "padding": 2}
    fake(tmp_path / "runs", 96, 95, experiment="converged", **shared)
    for epochs, test in ((1, 70), (150, 99)):
        fake(tmp_path / "runs", 99, test, epochs=epochs, **shared)
    for epochs in (7, 150):
        fake(tmp_path / "runs", 93, 90 + epochs / 100, epochs=epochs, linearized=True, **shared)
    write.write(tmp_path / "runs", tmp_path)
    (path,) = (tmp_path / "tables").glob("converged_lenet_MNIST*gap.csv")
    (row,) = rows(path)
    assert (row["network_test"], row["sgd_test"]) == ("99.0", "91.5")
    assert row["settings"] == "padding 2, training with epochs 150"


def test_of_several_ends_the_nearest_counts_and_tells_how_near(tmp_path):
    settings = {"dataset": "mnist", "experiment": "converged"}
    fake(tmp_path / "runs", 96, 95, more={"residual": 1e-2}, **settings)
    fake(tmp_path / "runs", 50, 50, more={"residual": 0.7}, max_passes=3, **settings)
    write.write(tmp_path / "runs", tmp_path / "out")
    (row,) = rows(tmp_path / "out/tables/converged_lenet_MNIST_gap.csv")
    assert (row["converged_test"], row["residual"]) == ("95.0", "0.01")


def test_other_losses_and_pictures_have_other_ends(tmp_path):
    fake(tmp_path / "runs", 96, 95, dataset="mnist", experiment="converged")
    for other in ({"loss": "cross_entropy"}, {"augment": "flip_crop"}):
        fake(tmp_path / "runs", 99, 98, dataset="mnist", linearized=True, **other)
        fake(tmp_path / "runs", 99, 99, dataset="mnist", **other)
    write.write(tmp_path / "runs", tmp_path / "out")
    (row,) = rows(tmp_path / "out/tables/converged_lenet_MNIST_gap.csv")
    assert {row[f"{key}_test"] for key in ("network", "sgd")} == {""}
    assert "residual" not in row


def test_moments_of_linearization(tmp_path):
    settings = {"dataset": "mnist", "linearized": True}
    for steps, test in ((0, 94), (100, 95), (1000, 97)):
        for seed in (0, 1):
            folder = fake(
                *(tmp_path / "runs/pretraining", 90, test + seed),
                pretrain_steps=steps,
                seed=seed,
                **settings,
            )
            if steps:
                fake(folder, 80, steps / 20, dataset="mnist", max_steps=steps, name="pretraining")
    write.write(tmp_path / "runs", tmp_path / "out")
    found = rows(tmp_path / "out/tables/pretrain_lenet_MNIST_1.csv")
    assert [(r["updates"], r["seeds"]) for r in found] == [("0", "2"), ("100", "2"), ("1000", "2")]
    assert [r["linearized_test"] for r in found] == ["94.5", "95.5", "97.5"]
    assert [r["network_test"] for r in found] == ["", "5.0", "50.0"]
    assert (tmp_path / "out/figures/pretrain_lenet_MNIST_1.svg").stat().st_size > 5000
    widths = rows(tmp_path / "out/tables/figure3_lenet_mnist.csv")
    ours = [(r["model"], r["test"]) for r in widths if r["test"]]
    assert ours == [("linearized LeNet", "94.5")]


def test_kernels_before_and_after_training(tmp_path):
    for updates in (7, 70):
        for seed in (0, 1):
            regressed = [
                {"of": "kernel", "updates": 0, "test_accuracy": 0.5 + 0.1 * seed},
                {"of": "kernel", "updates": updates, "test_accuracy": 0.6 + 0.1 * seed},
            ]
            for row in regressed:
                row |= {"train_accuracy": 1, "test_accuracy_without_ridge": 0.25}
            network = {"of": "network", "updates": updates}
            regressed.append(network | {"train_accuracy": 0.9, "test_accuracy": updates / 100})
            content = {"accuracies": regressed, "effective_rank": 2.0, "rows": 5, "width": 1}
            folder = fake(
                tmp_path / "runs",
                **{"experiment": "rank", "dataset": "mnist", "seed": seed},
                **{"pretrain_steps": updates, "kernel_regression": True},
                more=content,
            )
            runs.write_json(folder / "rank.json", content)
    write.write(tmp_path / "runs", tmp_path / "out")
    found = rows(tmp_path / "out/tables/rank_lenet_MNIST_regression.csv")
    assert [(r["updates"], r["seeds"]) for r in found] == [("0", "2"), ("7", "2"), ("70", "2")]
    assert [r["kernel_test"] for r in found] == ["55.0", "65.0", "65.0"]
    assert [r["kernel_test_std"] for r in found] == ["7.0711"] * 3
    assert [r["kernel_plain_test"] for r in found] == ["25.0"] * 3
    assert [r["network_test"] for r in found] == ["", "7.0", "70.0"]
    assert (tmp_path / "out/figures/rank_lenet_MNIST_regression.svg").stat().st_size > 5000


def test_kernels_of_other_trainings_are_other_rows(tmp_path):
    for origin, accuracy in (("runs/fast", 0.9), ("runs/slow", 0.5)):
        row = {"of": "kernel", "updates": 7, "train_accuracy": 1, "test_accuracy": accuracy}
        row["test_accuracy_without_ridge"] = accuracy
        content = {"accuracies": [row], "effective_rank": 2.0, "rows": 5, "width": 1}
        settings = {"experiment": "rank", "dataset": "mnist", "kernel_regression": True}
        folder = fake(tmp_path / "runs", **settings, from_run=origin, more=content)
        runs.write_json(folder / "rank.json", content)
    write.write(tmp_path / "runs", tmp_path / "out")
    found = rows(tmp_path / "out/tables/rank_lenet_MNIST_regression.csv")
    assert [r["kernel_test"] for r in found] == ["90.0", "50.0"]
    assert [r["settings"] for r in found] == ["from run runs/fast", "from run runs/slow"]


def test_missing_training_before_is_named(tmp_path):
    fake(tmp_path / "runs", 90, 95, dataset="mnist", linearized=True, pretrain_steps=3)
    with pytest.raises(runs.RunDirectoryError, match="pretraining"):
        write.write(tmp_path / "runs", tmp_path / "out")


def test_every_width_has_a_scale_of_all_weight_decays(tmp_path, monkeypatch):
    """Also where one weight decay was tried, whose own scale would have no mark."""
    for width, decay in ((1, 1e-8), (1, 5e-5), (2, 5e-5)):
        settings = {"dataset": "mnist", "experiment": "converged"}
        fake(tmp_path / "runs", 96, 95, width=width, weight_decay=decay, **settings)
    figures, usual = {}, ends.plots.save

    def save(figure, path):
        figures[path.name] = figure
        usual(figure, path)

    monkeypatch.setattr(ends.plots, "save", save)
    write.write(tmp_path / "runs", tmp_path / "out")
    axes = figures["converged_lenet_MNIST_gap"].axes
    assert [axis.get_title() for axis in axes] == ["width 1", "width 2"]
    for axis in axes:
        assert [text.get_text() for text in axis.get_xticklabels()] == ["1e-8", "5e-5"]
