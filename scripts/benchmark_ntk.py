"""Time and memory of kernels: beside neural-tangents and torch.func, and for many pictures.

    python scripts/benchmark_ntk.py [--jax_python=NT/bin/python] [--torch_python=TORCH/bin/python]
    python scripts/benchmark_ntk.py --studies=sum,trace,operator --manual_dir=MNIST

neural-tangents 0.6.5 needs an environment of its own, as may PyTorch; without their interpreters
they are left out:

    python3.11 -m venv NT
    NT/bin/pip install neural-tangents==0.6.5 jax==0.4.30 jaxlib==0.4.30 'numpy<2.2' 'scipy<1.14'
    python3.11 -m venv TORCH
    TORCH/bin/pip install torch==2.13.0 numpy

Studies:

* `beside`: kernels of every kind with the same weights and inputs in each tool, their values
  compared. Rounds alternate, with matrix products in between, since other load moves all numbers;
  every implementation of the others is timed, after a first call that compiles and does not count.
  One that takes longer than --limit seconds, or more than --memory_gib, is given up.
* `sum`: of 600 pictures, the sum of the outputs beside the full kernel.
* `trace`: of 10,000 pictures; its rate beside that of matrix products.
* `operator`: the kernel of all outputs at 10,000 pictures, which no Gram holds: top eigenvalues
  and effective rank. At 600 pictures it is compared with the Gram.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import select
import statistics
import subprocess
import sys
import tempfile
import time
from typing import IO, Any

import numpy as np
import psutil
from rich import box
from rich.console import Console
from rich.table import Table

from ntk_tf.process import startup

startup.import_tensorflow()

import tensorflow as tf  # noqa: E402

from ntk_tf import data, models, ntk  # noqa: E402
from ntk_tf.data import pipeline  # noqa: E402
from ntk_tf.models import size  # noqa: E402
from ntk_tf.process.memory import free_memory, peak_memory  # noqa: E402

WORKERS = pathlib.Path(__file__).parent / "benchmark_workers"
#: Of each case: pictures, their shape, and arguments of the architecture.
CASES: dict[str, tuple[int, tuple[int, ...], dict[str, int]]] = {
    "lenet": (100, (28, 28, 1), {}),
    "resnet18": (50, (32, 32, 3), {}),
    "mlp": (100, (28, 28, 1), {"units": 1024}),
}
#: The others' implementations, and whether each holds all outputs' Jacobians.
JAX = {"jacobian_contraction": True, "ntk_vector_products": False, "structured_derivatives": False}
TORCH = {"torch.func": True}


@dataclasses.dataclass
class Other:
    """An implementation of another tool, in a process of its own."""

    name: str
    child: subprocess.Popen
    errors: IO[str]
    limit: float
    seconds: list[float] = dataclasses.field(default_factory=list)
    first: float = 0.0
    peak: float = 0.0
    failed: str = ""

    def turn(self, ask: bool = True) -> None:
        """One call, or only wait for the first one's answer."""
        if self.failed:
            return
        if ask:
            print(file=self.child.stdin, flush=True)
        ready, _, _ = select.select([self.child.stdout], [], [], self.limit)
        line = self.child.stdout.readline() if ready else ""
        answer = json.loads(line) if line else {}
        self.failed = answer.get("error", "")
        if not answer:
            self.failed = self._last_words() if ready else f"more than {self.limit:.0f} s"
            self.child.kill()
        elif ask and not self.failed:
            self.seconds.append(answer["seconds"])
            self.peak = answer["peak"]
        else:
            self.first = answer.get("first", 0.0)

    def _last_words(self) -> str:
        """Of a process that has ended."""
        self.errors.seek(0)
        return (self.errors.read().splitlines() or ["ended"])[-1][:60]

    def close(self) -> None:
        """End the process."""
        self.child.stdin.close()
        self.child.wait()
        self.errors.close()


class Benchmark:
    """What the studies share."""

    def __init__(self, arguments: argparse.Namespace, console: Console):
        self.arguments, self.console = arguments, console
        self.limit_gib = arguments.memory_gib or 0.8 * free_memory()

    def pictures(self, count: int) -> np.ndarray:
        """MNIST's first training pictures, or embedded digits at MNIST's size."""
        folder = self.arguments.manual_dir
        source = data.load("mnist", manual_dir=folder) if folder else data.load("digits")
        if count > len(source.train):
            raise SystemExit(f"{count} pictures: needs --manual_dir with MNIST's files")
        preprocess = pipeline.preprocessing(source, 28, 0, 1)
        return preprocess(source.train.images[:count]).numpy()

    def beside(self) -> None:
        """Kernels of every kind in every tool."""
        table = Table(
            *("network", "outputs", "tool", "seconds", "times ours", "peak GiB", "difference"),
            box=box.SIMPLE_HEAD,
        )
        for case in self.arguments.cases.split(","):
            for outputs in self.arguments.outputs.split(","):
                for row in self.case(case, outputs):
                    table.add_row(*row)
        self.console.print(table)

    def case(self, name: str, outputs: str) -> list[tuple[str, ...]]:
        """A row of the table for each tool."""
        count, shape, more = CASES[name]
        count = self.arguments.examples or count
        model = models.build(name, 1, 10, shape, **more)
        random = np.random.default_rng(0)
        of_mnist = shape == (28, 28, 1)
        x = self.pictures(count) if of_mnist else random.standard_normal((count, *shape), "float32")
        kernel = ntk.GramFunction(model, outputs=outputs)
        gram, mine, rates = kernel(x), [], []
        title = f"{name} x1, {count} pictures"
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "problem.npz"
            weights = {w.path.removeprefix(f"{model.name}/"): w for w in model.trainable_weights}
            np.savez(path, x=x, network=name, outputs=outputs, **weights)
            others = self.others(path, model, outputs, count)
            for other in others:
                other.turn(ask=False)
            for _ in range(self.arguments.rounds):
                rates.append(product_rate())
                mine.append(timed(lambda: kernel(x)))
                for other in others:
                    other.turn()
            rows = [(title, outputs, "ntk_tf", f"{statistics.median(mine):.3f}", "1.0", "", "")]
            for other in others:
                other.close()
                rows.append(("", "", *cells(other, mine, gram, path)))
        note = f"{title}, {outputs}: products at {statistics.median(rates):.0f} Gflop/s"
        self.console.print(note, highlight=False)
        return rows

    def others(self, path, model, outputs: str, count: int) -> list[Other]:
        """The processes of the other tools that are there."""
        found = []
        tools = {
            "ntk_in_jax.py": (self.arguments.jax_python, JAX),
            "ntk_in_torch.py": (self.arguments.torch_python, TORCH),
        }
        functions = 1 if outputs == "sum" else 10
        jacobian = 2 * 4 * count * functions * size.parameters(model) / 2**30
        for script, (python, implementations) in tools.items():
            for name, holds_jacobian in implementations.items() if python else ():
                command = [python, str(WORKERS / script), str(path), name, str(self.limit_gib)]
                pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
                errors = open(path.with_name(f"{name}.err"), "w+")  # noqa: SIM115, see `close`
                child = subprocess.Popen(command, stderr=errors, text=True, **pipes)
                other = Other(name, child, errors, self.arguments.limit)
                if holds_jacobian and jacobian > self.limit_gib:
                    other.failed = f"needs {jacobian:.0f} GiB"
                    child.kill()
                found.append(other)
        return found

    def sum(self) -> None:
        """The pseudo-NTK beside the full kernel, which has 100 times as many entries."""
        model, x = lenet(), self.pictures(600)
        kernels = {kind: ntk.GramFunction(model, outputs=kind) for kind in ("full", "sum")}
        seconds: dict[str, list[float]] = {kind: [] for kind in kernels}
        for kernel in kernels.values():
            kernel(x)
        for _ in range(self.arguments.rounds):
            for kind, kernel in kernels.items():
                seconds[kind].append(timed(lambda kernel=kernel: kernel(x)))
        full, alone = (statistics.median(seconds[kind]) for kind in ("full", "sum"))
        self.console.print(
            f"LeNet x1, 600 pictures: full {full:.3f} s, sum {alone:.3f} s, 1/{full / alone:.1f}"
        )

    def trace(self) -> None:
        """The mean over outputs, for many pictures."""
        model, x, steps = lenet(), self.pictures(self.arguments.many), []
        ntk.gram(model, x[:100], outputs="trace")
        before, budget = product_rate(), self.arguments.memory_gib or 1.0
        total = timed(
            lambda: ntk.gram(
                model,
                x,
                outputs="trace",
                memory_gib=budget,
                after_step=lambda s: steps.append((s.operations, s.seconds)),
            )
        )
        rate = statistics.median((before, product_rate(), product_rate()))
        products = [(operations, seconds) for operations, seconds in steps if operations]
        operations, seconds = (sum(column) for column in zip(*products, strict=True))
        table = Table("trace of LeNet x1", "", box=box.SIMPLE_HEAD)
        for name, value in {
            "pictures": f"{len(x):,}",
            "seconds": f"{total:.1f}",
            "of which products": f"{seconds:.1f}",
            "Gflop": f"{operations / 1e9:,.0f}",
            "Gflop/s, of products": f"{operations / seconds / 1e9:.0f}",
            "Gflop/s, of all": f"{operations / total / 1e9:.0f}",
            "Gflop/s of the machine": f"{rate:.0f}",
            "budget, GiB": f"{budget:g}",
            "peak of the process, GiB": f"{peak_memory() / 2**30:.2f}",
        }.items():
            table.add_row(name, value)
        self.console.print(table)

    def operator(self) -> None:
        """Eigenvalues and effective rank of the kernel of all outputs, without it."""
        table = Table(
            *("pictures", "rows", "", "value", "error", "products", "seconds", "peak GiB"),
            box=box.SIMPLE_HEAD,
        )
        few = min(600, self.arguments.many)
        for count in dict.fromkeys((few, self.arguments.many)):
            dense = None
            if count == few:
                dense = ntk.decompose(ntk.gram(lenet(), self.pictures(few)), overwrite=True)
            for row in self.spectrum(count, dense):
                table.add_row(*row)
        self.console.print(table)

    def spectrum(self, count: int, dense: ntk.Spectrum | None) -> list[tuple[str, ...]]:
        """Rows of `operator`: largest and 20th eigenvalue, trace, effective rank."""
        operator = ntk.KernelOperator(lenet(), self.pictures(count))
        products: list[None] = []
        started = time.perf_counter()
        top, _ = ntk.top_eigenvalues(operator, 20, after_product=lambda: products.append(None))
        first = len(products), time.perf_counter() - started
        started = time.perf_counter()
        arguments = self.arguments.probes, self.arguments.lanczos_steps
        found = ntk.estimate_spectrum(operator, *arguments)
        second = found.products, time.perf_counter() - started
        place = f"{count:,}", f"{operator.shape[0]:,}"

        def row(name: str, value: float, error: str, work: tuple[int, float]) -> tuple[str, ...]:
            peak = f"{peak_memory() / 2**30:.2f}"
            return *place, name, f"{value:.6g}", error, str(work[0]), f"{work[1]:.1f}", peak

        rows = [row(f"eigenvalue {k}", top[k - 1], "", first) for k in (1, 20)]
        rows.append(row("trace", found.trace, f"{found.trace_error:.2g}", second))
        rank = found.effective_rank
        rows.append(row("effective rank", rank, f"{found.effective_rank_error:.2g}", second))
        if dense is not None:
            miss = np.abs(top / dense.singular_values[:20] ** 2 - 1).max()
            said = f"top 20 within {miss:.1e}, rank within {rank / dense.effective_rank - 1:+.2%}"
            rows.append((*place, "of the Gram", f"{dense.effective_rank:.6g}", said, "", "", ""))
        return rows


def cells(other: Other, mine: list[float], gram: np.ndarray, path: pathlib.Path) -> tuple[str, ...]:
    """What the table says of another tool's implementation."""
    if other.failed:
        return other.name, other.failed, "", "", ""
    found = np.load(path.with_name(f"{other.name}.npy"))
    difference = np.linalg.norm(found - gram) / np.linalg.norm(gram)
    times = statistics.median(b / a for a, b in zip(mine, other.seconds, strict=True))
    seconds, peak = statistics.median(other.seconds), other.peak / 2**30
    return other.name, f"{seconds:.3f}", f"{times:.1f}", f"{peak:.2f}", f"{difference:.0e}"


def lenet() -> Any:
    """LeNet x1 for MNIST."""
    return models.build("lenet", 1, 10, (28, 28, 1))


def timed(call) -> float:
    """Seconds of a call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def product_rate() -> float:
    """Billions of operations a second in a product of matrices of a Gram's sizes."""
    a = tf.ones((1000, 4096))
    return 2 * 1000 * 1000 * 4096 / timed(lambda: tf.matmul(a, a, transpose_b=True).numpy()) / 1e9


def main() -> None:
    """Carry out the studies."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", default="beside", help="of beside, sum, trace, operator")
    parser.add_argument("--jax_python", help="interpreter with neural-tangents")
    parser.add_argument("--torch_python", help="interpreter with PyTorch")
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--outputs", default="full,trace,sum")
    parser.add_argument("--examples", type=int, help="pictures in place of the cases' own")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--limit", type=float, default=600, help="seconds that a call may take")
    parser.add_argument("--memory_gib", type=float, help="of another tool; of the trace (1)")
    parser.add_argument("--manual_dir", help="folder with MNIST's four files")
    parser.add_argument("--many", type=int, default=10_000, help="pictures of trace and operator")
    parser.add_argument("--probes", type=int, default=8)
    parser.add_argument("--lanczos_steps", type=int, default=30)
    arguments = parser.parse_args()
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # JAX: others use the GPU too
    console = Console(width=160 if not sys.stdout.isatty() else None)
    console.print(f"{psutil.cpu_count(logical=False)} cores, TensorFlow {tf.__version__}")
    for name in ("jax", "torch"):
        if "beside" in arguments.studies and not getattr(arguments, f"{name}_python"):
            console.print(f"without {name}: no --{name}_python is given")
    benchmark = Benchmark(arguments, console)
    for study in arguments.studies.split(","):
        getattr(benchmark, study)()


if __name__ == "__main__":
    main()
