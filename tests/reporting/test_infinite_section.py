"""Infinite width beside networks and linearizations trained on as many pictures."""

from unittest import mock

from written_runs import fake, rows

from ntk_tf.reporting import collect, infinite, write


def kernel(test, error):
    """What infinite.json says of a kernel; accuracies in percent."""
    return {
        "test_accuracy": test / 100,
        "test_accuracy_without_ridge": (test - 3) / 100,
        "train_accuracy": 1.0,
        "relative_error": error,
    }


def test_a_lucky_subset_does_not_decide(tmp_path):
    """Of learning rates, of which one was tried on the easiest subset alone."""
    chosen = {"dataset": "digits", "train_examples": 100}
    kernels = dict.fromkeys(("ntk", "ntk_paper_widening", "nngp"), kernel(40, None))
    for subset in range(3):
        subsets = chosen | {"subset_seed": subset}
        fake(tmp_path, 50, 40, experiment="infinite", test_examples=50, more=kernels, **subsets)
        fake(tmp_path, 60, 50 + 10 * subset, learning_rate=0.1, **subsets)
    fake(tmp_path, 60, 65, learning_rate=0.01, subset_seed=2, **chosen)
    records = collect.read(tmp_path)
    table = infinite.table("pictures", "", records.of("infinite"), records.of("train"))
    (found,) = [row for row in table.rows if row["model"] == "network"]
    assert (found["runs"], found["test"]) == (3, 60.0)


def test_as_many_pictures(tmp_path):
    """Runs of digits, with max pooling and with average pooling."""
    folder, digits = tmp_path / "runs", {"dataset": "digits", "train_examples": 100}
    for subset, test in ((0, 80), (1, 84)):
        kinds = {"ntk": test, "ntk_paper_widening": test + 1, "nngp": test + 2}
        kernels = {kind: kernel(value, 0.01 + subset / 100) for kind, value in kinds.items()}
        chosen = {"experiment": "infinite", "subset_seed": subset, "test_examples": 50}
        fake(folder, 100, test, **digits, **chosen, more=kernels)
    exact = {kind: kernel(70, None) for kind in ("ntk", "ntk_paper_widening", "nngp")}
    average = {"arch_args": "pooling=average"}
    single = {"experiment": "infinite", "recursion": "float32"}
    fake(folder, 100, 70, **digits, **average, **single, more=exact)
    fake(folder, 95, 88, **digits, subset_seed=0)
    fake(folder, 95, 90, **digits, subset_seed=1)
    fake(folder, 10, 20, **digits, subset_seed=1, learning_rate=1e-5)  # not the best
    fake(folder, 96, 60, **digits, width=5, linearized=True)
    fake(folder, 97, 65, **digits, **average)
    fake(folder, 97, 30, **digits, subset_seed=1, epochs=1)  # trained in another way
    fake(folder, 97, 30, **digits, **average, loss="cross_entropy")
    fake(folder, 99, 99, **digits, pretrain_steps=9, linearized=True)
    for apart in ({"train_examples": 200}, {"padding": 2}, {"arch_args": "kernel_size=3"}):
        fake(folder, 99, 99, **(digits | apart))
    records = collect.read(folder)
    table = infinite.table("pictures", "", records.of("infinite"), records.of("train"))
    table.write(tmp_path)
    infinite.draw(table, tmp_path / "figure")
    assert (tmp_path / "figure.svg").stat().st_size > 5000
    found = rows(tmp_path / "pictures.csv")
    names = ("model", "width", "pictures", "runs", "test", "test_std", "plain_test", "train")
    cells = [tuple(row[name] for name in names) for row in found]
    spread = f"{(2 * 2.0**2) ** 0.5:.4f}"
    assert cells == [
        ("infinite, NTK", "", "100", "2", "82.0", spread, "79.0", "100.0"),
        ("infinite, NTK of the paper's widening", "", "100", "2", "83.0", spread, "80.0", "100.0"),
        ("infinite, NNGP", "", "100", "2", "84.0", spread, "81.0", "100.0"),
        ("network", "1", "100", "2", "89.0", "1.4142", "", "95.0"),
        ("linearization", "5", "100", "1", "60.0", "", "", "96.0"),
        ("infinite, NTK", "", "100", "1", "70.0", "", "67.0", "100.0"),
        ("infinite, NTK of the paper's widening", "", "100", "1", "70.0", "", "67.0", "100.0"),
        ("infinite, NNGP", "", "100", "1", "70.0", "", "67.0", "100.0"),
        ("network", "1", "100", "1", "65.0", "", "", "97.0"),
    ]
    of_network = "arch args pooling=average"
    of_kernels = f"{of_network}, recursion float32"
    assert [row["settings"] for row in found] == [""] * 5 + [of_kernels] * 3 + [of_network]
    assert [row["panel"] for row in table.rows] == [""] * 5 + [of_kernels] * 4
    assert [row["error"] for row in found] == ["2.0"] * 3 + [""] * 6
    assert [row["test_pictures"] for row in found] == ["50"] * 3 + ["360"] * 6


def test_section(tmp_path):
    kernels = {kind: kernel(70, None) for kind in ("ntk", "ntk_paper_widening", "nngp")}
    fake(tmp_path / "runs", 100, 70, dataset="digits", experiment="infinite", more=kernels)
    write.write(tmp_path / "runs", tmp_path / "out")
    page = (tmp_path / "out/index.html").read_text()
    assert "Infinite width: LeNet on digits" in page
    assert "infinite, NNGP" in page
    found = rows(tmp_path / "out/tables/infinite_lenet_digits_pictures.csv")
    assert [row["pictures"] for row in found] == ["1437"] * 3
    assert len(rows(tmp_path / "out/tables/infinite_lenet_digits.csv")) == 1


def test_pictures_of_a_users_data_are_those_of_the_result(tmp_path):
    """Its card tells none, as the file may be elsewhere."""
    kinds = {kind: kernel(80, None) for kind in ("ntk", "ntk_paper_widening", "nngp")}
    more = kinds | {"train_examples": 240, "test_examples": 80}
    fake(tmp_path / "runs", 100, 80, experiment="infinite", dataset="digits", more=more)
    found = collect.read(tmp_path / "runs").of("infinite")
    with mock.patch.object(infinite.costs, "examples", return_value=(0, 0)):
        table = infinite.table("pictures", "", found, [])
    assert {(row["pictures"], row["test_pictures"]) for row in table.rows} == {(240, 80)}
