"""The notebook docs/tour.ipynb runs, and what it shows is so."""

import json
import pathlib
import re
import time

import matplotlib
import numpy as np
import pytest
from references import dense_jacobian

TOUR = pathlib.Path(__file__).resolve().parent.parent / "docs/tour.ipynb"
CELLS = [cell for cell in json.loads(TOUR.read_text())["cells"] if cell["cell_type"] == "code"]


def test_it_runs_and_shows_what_it_says():
    """In one test, so that one process takes it; in less than three minutes of the processor's.

    About 20 seconds on a fast machine.
    """
    matplotlib.use("Agg")
    names, before, began = {}, dict(matplotlib.rcParams), time.process_time()
    for cell in CELLS:
        exec("".join(cell["source"]), names)
    matplotlib.pyplot.close("all")
    matplotlib.rcParams.update(before)
    assert time.process_time() - began < 180
    check_kernel_and_spectrum(names)
    check_that_the_wider_network_is_nearer_to_its_linearization(names)
    check_that_it_is_stored_as_it_runs(names)


def check_kernel_and_spectrum(names):
    theta, few = names["theta"][2], names["x_train"][names["chosen"]][:5]
    jacobian = dense_jacobian(names["network"](2), few).astype("float64")
    found = theta[:5, :, :5].reshape(50, 50)
    np.testing.assert_allclose(found, jacobian @ jacobian.T, atol=1e-5 * theta.max())
    values = np.sqrt(np.maximum(np.linalg.eigvalsh(theta.reshape(1000, 1000)), 0))
    p = values[values > 0] / values.sum()
    rank = names["spectra"][2].effective_rank
    assert rank == pytest.approx(np.exp(-p @ np.log(p)), rel=1e-6)


def check_that_the_wider_network_is_nearer_to_its_linearization(names):
    narrow, wide = names["WIDTHS"]
    for measured in ("gaps", "movement"):
        assert names[measured][wide] < names[measured][narrow] / 2
    for width, (standard, linearized) in names["outputs"].items():
        np.testing.assert_allclose(standard[0], linearized[0], atol=1e-6, err_msg=str(width))
        assert len(standard) == len(linearized) == 1 + -(-1437 // 32)


def check_that_it_is_stored_as_it_runs(names):
    """Every cell that shows something has it, in order, and no error or warning."""
    assert [cell["execution_count"] for cell in CELLS] == list(range(1, len(CELLS) + 1))
    outputs = [output for cell in CELLS for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"stream", "display_data"}
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    shows = sum("plt.show()" in "".join(cell["source"]) for cell in CELLS)
    assert len(pictures) == shows == 3
    printed = "".join(t for o in outputs if o["output_type"] == "stream" for t in o["text"])
    stored = float(re.search(r"over the data, test accuracy ([\d.]+)%", printed)[1])
    assert 100 * names["accuracy"] == pytest.approx(stored, abs=1)
