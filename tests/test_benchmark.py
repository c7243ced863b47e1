import importlib.util
import pathlib

import psutil
import pytest

SCRIPT = pathlib.Path(__file__).parent.parent / "scripts" / "benchmark.py"
spec = importlib.util.spec_from_file_location("benchmark", SCRIPT)
benchmark = importlib.util.module_from_spec(spec)
spec.loader.exec_module(benchmark)


def timed(framework, model, seconds):
    problem = benchmark.problem("lenet", 1, model, batch=32)
    return {"framework": framework, "problem": problem, "seconds": seconds, "peak_bytes": 2**30}


def cells(table):
    return [list(row) for row in zip(*(column.cells for column in table.columns), strict=True)]


def test_ratio_is_taken_within_rounds():
    # Every round is twice as slow as the one before; b always takes half of a's time.
    assert benchmark.ratio([1, 2, 4], [0.5, 1, 2]) == 2


def test_steps_table(monkeypatch):
    monkeypatch.setattr(benchmark, "cache", lambda: 2**25)
    lenet = 24 * 24 * 25 * 6, 8 * 8 * 150 * 16, 256 * 120, 120 * 84, 84 * 10
    needed = 32 * 2 * (3 * sum(lenet) - lenet[0])  # at 1e9 a second: just over 40 ms
    case = {
        "rates": [{"ntk_tf": 1e9, "jax": 0.5e9}] * 3,
        "bandwidths": [1e9] * 3,
        "ntk_tf double_vjp": timed("ntk_tf", "double_vjp", [0.2, 0.3, 0.3]),
        "ntk_tf standard": timed("ntk_tf", "standard", [0.08, 0.1, 0.12]),
        "ntk_tf linearized": timed("ntk_tf", "linearized", [0.16, 0.2, 0.24]),
        "jax standard": timed("jax", "standard", [0.16, 0.2, 0.24]),
        "jax linearized": timed("jax", "linearized", [0.08, 0.1, 0.12]),
    }
    standard, linearized = cells(benchmark.steps_table([case], ["ntk_tf", "jax"]))
    gflop, share = f"{needed / 1e9:.3g}", f"{needed / 1e9 / 0.1:.0%}"
    memory = ["1,024", "1,024"]
    expected = ["LeNet x1", "32", "100.00", "200.00", "0.50", "", "", gflop, "0", share, *memory]
    assert standard == expected
    assert linearized[:7] == ["LinLeNet x1", "32", "200.00", "100.00", "2.00", "2.00", "1.25"]


def test_the_bound_is_that_of_memory_where_more_time_goes_there():
    problem = benchmark.problem("alexnet", 1, "standard", batch=8)
    gigabytes = 5 * 4 * 57_044_810 / 1e9
    assert benchmark.moved(problem) == pytest.approx(gigabytes)
    case = {
        "rates": [{"ntk_tf": 1e18}],
        "bandwidths": [10e9],
        **{
            f"ntk_tf {model}": {
                "framework": "ntk_tf",
                "problem": problem | {"model": model},
                "seconds": [gigabytes / 5],
                "peak_bytes": 2**30,
            }
            for model in ("standard", "linearized")
        },
    }
    standard, linearized = cells(benchmark.steps_table([case], ["ntk_tf"]))
    assert standard[7:9] == ["1.1", "50%"]
    assert linearized[7:9] == ["1.6", "70%"]


def test_cases_and_conditions():
    assert benchmark.case_of("lenet-4", 32) == ("lenet", 4, 32)
    assert benchmark.case_of("alexnet-1-8", 32) == ("alexnet", 1, 8)
    for name in ("lenet", "wrn-1", "lenet-x1", "lenet-1-8-8", "lenet-0", "lenet-1-2000"):
        with pytest.raises(ValueError, match=name):
            benchmark.case_of(name, 32)
    before = set(psutil.Process().children())
    with benchmark.busy(1):
        (child,) = set(psutil.Process().children()) - before
    assert not child.is_running()
    assert 1e8 < benchmark.bandwidth() < 1e13


def test_outputs_table():
    study = {
        "linearized 10": timed("ntk_tf", "linearized", [0.01, 0.02]),
        "linearized 100": timed("ntk_tf", "linearized", [0.01, 0.02]),
        "per_output 10": timed("pytorch", "per_output", [0.1, 0.2]),
        "per_output 100": timed("pytorch", "per_output", [1, 2]),
    }
    ten, hundred = cells(benchmark.outputs_table(study, [10, 100]))
    assert ten == ["10", "15.00", "1.00", "150.00", "1.00"]
    assert hundred == ["100", "15.00", "1.00", "1500.00", "10.00"]
