r"""Time, arithmetic and memory of a training step in ntk_tf, PyTorch and JAX.

    python scripts/benchmark.py [--quick] [--cases=lenet-1,lenet-4,lenet-16,alexnet-1] \
        [--torch_python=VENV/bin/python] [--jax_python=VENV/bin/python] [--json=FILE]

Each framework works in a process of its own, in another environment if its interpreter is given.
Only one works at a time. A case is a network at a width; the network and its linearization, each in
every framework, take turns through all rounds, so that other load on the machine meets all of them,
and ratios are medians of the ratios within a round. ntk_tf's time is that of the training command's
own graph and includes its input pipeline; the others find their batches in memory. Of every way
that PyTorch's and JAX's users have to write the step, the fastest counts; a first process finds it.

GFLOP are those that the step needs (`ntk_tf/models/size.py`); the rate they are compared with is
the best that any of the frameworks reaches, in the same round, at the product of two square float32
matrices. Memory is the most that the process ever held, libraries and data included; on a GPU, the
most that the framework had allocated there.

A second table shows what outputs cost: a linearized step of AlexNet x1 with 1,000 outputs against
10, and of LeNet x1 with a growing number of them, beside the paper's method, which takes a backward
pass for each output.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from typing import Any

import psutil
from rich import box
from rich.console import Console
from rich.table import Table

from ntk_tf.process import startup

startup.import_tensorflow()

import tensorflow as tf  # noqa: E402

from ntk_tf import models  # noqa: E402
from ntk_tf.experiments.resolving import resolve  # noqa: E402
from ntk_tf.models.size import step_flops  # noqa: E402

WORKERS = pathlib.Path(__file__).parent / "benchmark_workers"
NAMES = {"lenet": "LeNet", "alexnet": "AlexNet"}
INPUTS = {"lenet": (28, 28, 1), "alexnet": (224, 224, 3)}
OURS = "ntk_tf"
#: Sides of the matrices whose product gives the machine's rate.
SIZES = (512, 1024, 2048)


@dataclasses.dataclass(frozen=True)
class Framework:
    """A worker's script and the interpreter that runs it."""

    name: str
    module: str
    python: str

    def missing(self) -> bool:
        """Whether there is no such interpreter, or it cannot import the framework."""
        if shutil.which(self.python) is None:
            return True
        command = [self.python, "-c", f"import {self.module}"]
        return subprocess.run(command, capture_output=True, check=False).returncode != 0


class Worker:
    """A process of one framework, which times what it is asked to."""

    def __init__(self, framework: Framework, environment: dict[str, str] | None = None):
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [framework.python, WORKERS / f"in_{framework.name}.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
        )
        self._steps = {}
        self.versions = None

    def close(self):
        """End the process."""
        self._process.stdin.close()
        self._process.wait()
        self._log.close()

    def ready(self) -> "Worker":
        """Wait until the framework is imported."""
        self.versions = self._answer()["versions"]
        return self

    def variants(self, problem: dict[str, Any]) -> list[str]:
        """The ways in which this framework can do the problem's step."""
        return self._ask(problem=problem)["variants"]

    def turn(self, problem: dict[str, Any], variant: str, seconds: float) -> dict[str, float]:
        """Do as many steps as fill so many seconds.

        Returns:
            `seconds` a step, and the process's `peak` memory in bytes.
        """
        key = json.dumps([problem, variant])
        if key not in self._steps:
            steps, took = 1, self._time(problem, variant, 1)["seconds"]
            while took < seconds / 4:
                steps = min(10 * steps, max(2 * steps, int(steps * seconds / took)))
                took = self._time(problem, variant, steps)["seconds"]
            self._steps[key] = max(1, round(steps * seconds / took))
        steps = self._steps[key]
        answer = self._time(problem, variant, steps)
        return answer | {"seconds": answer["seconds"] / steps}

    def _time(self, problem, variant, steps):
        return self._ask(problem=problem, variant=variant, steps=steps)

    def _ask(self, **request):
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def _answer(self):
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            tail = self._log.read()[-2000:]
            raise RuntimeError(f"{self._process.args[1]} has ended:\n{tail}")
        return json.loads(line)


class Benchmark:
    """The frameworks at hand, each with one process for what memory does not matter to."""

    def __init__(self, frameworks: list[Framework], rounds: int, seconds: float, console: Console):
        self.frameworks = {framework.name: framework for framework in frameworks}
        self.rounds, self.seconds, self.console = rounds, seconds, console
        self._status = console.status("starting")
        self._status.start()
        self._scouts = {framework.name: Worker(framework) for framework in frameworks}
        self.versions = {}
        for scout in self._scouts.values():
            self.versions |= scout.ready().versions

    def rates(self) -> dict[str, float]:
        """Operations a second of each framework's matrix product, the best of several sizes."""
        result = {}
        for name, scout in self._scouts.items():
            problems = [{"model": "product", "size": size} for size in SIZES]
            result[name] = max(
                2 * p["size"] ** 3 / scout.turn(p, scout.variants(p)[0], 0.1)["seconds"]
                for p in problems
            )
        return result

    def fastest(self, name: str, problem: dict[str, Any]) -> str:
        """The best variant of a framework; the time of one is the least of three turns."""
        scout, seconds = self._scouts[name], {}
        variants = scout.variants(problem)
        if len(variants) == 1:
            return variants[0]
        for variant in variants:
            self._status.update(f"{title(problem)}: trying {name}, {variant}")
            try:
                turns = [scout.turn(problem, variant, self.seconds / 3) for _ in range(3)]
                seconds[variant] = min(turn["seconds"] for turn in turns)
            except RuntimeError as error:
                self.console.print(f"left out {name} {variant}: {error}")
        self.rates()  # lets go of the last variant's memory
        return min(seconds, key=seconds.get)

    def measure(self, problems: dict[str, tuple[str, dict[str, Any]]]) -> dict[str, Any]:
        """Give every (framework, problem) its turn in every round.

        Returns:
            `rates`, a dictionary for each round, and by key the raw numbers of each problem.
        """
        result = {"rates": []}
        for key, (name, problem) in problems.items():
            variant = self.fastest(name, problem)
            result[key] = {"framework": name, "problem": problem, "variant": variant, "seconds": []}
        workers = {
            key: Worker(self.frameworks[name], environment(name, problem))
            for key, (name, problem) in problems.items()
        }
        for key, worker in workers.items():
            own = result[key]
            worker.ready().turn(own["problem"], own["variant"], self.seconds)  # warms up
        for number in range(self.rounds):
            self._status.update(f"round {number + 1} of {self.rounds}")
            result["rates"].append(self.rates())
            for key, worker in workers.items():
                own = result[key]
                turn = worker.turn(own["problem"], own["variant"], self.seconds)
                own["seconds"].append(turn["seconds"])
                own["peak_bytes"] = turn["peak"]
        for worker in workers.values():
            worker.close()
        return result

    def close(self):
        """End the remaining processes."""
        self._status.stop()
        for scout in self._scouts.values():
            scout.close()


def environment(name: str, problem: dict[str, Any]) -> dict[str, str]:
    """A worker's environment; ntk_tf's training command gives small operations one thread each."""
    settings = {key: problem[key] for key in ("arch", "width")}
    config = resolve(dataset="digits", batch_size=problem["batch"], **settings)
    own = {"TF_NUM_INTRAOP_THREADS": "1"} if name == OURS and config.small else {}
    return dict(os.environ) | own


def ratio(a: list[float], b: list[float]) -> float:
    """Median over rounds of the ratio within a round."""
    return statistics.median(x / y for x, y in zip(a, b, strict=True))


def gflop(problem: dict[str, Any]) -> float:
    """What a step of the problem needs, in billions of operations."""
    with models.shapes_only():
        network = models.build(
            problem["arch"], problem["width"], problem["outputs"], INPUTS[problem["arch"]]
        )
    return problem["batch"] * step_flops(network, problem["model"] == "linearized") / 1e9


def problem(arch, width, model, batch, outputs=10, compiled=False) -> dict[str, Any]:
    """What a worker is to time; see `benchmark_workers/protocol.py`."""
    return {
        "arch": arch,
        "width": width,
        "model": model,
        "batch": batch,
        "outputs": outputs,
        "compile": compiled,
    }


def title(problem: dict[str, Any]) -> str:
    """The model's name, such as `LinLeNet x4`."""
    linear = "" if problem["model"] == "standard" else "Lin"
    return f"{linear}{NAMES[problem['arch']]} x{problem['width']}"


def compare(benchmark: Benchmark, arch, width, batch, compiled) -> dict[str, Any]:
    """The network and its linearization in every framework; keys such as `jax linearized`."""
    return benchmark.measure(
        {
            f"{name} {model}": (name, problem(arch, width, model, batch, compiled=compiled))
            for model in ("standard", "linearized")
            for name in benchmark.frameworks
        }
    )


def steps_table(cases: list[dict[str, Any]], names: list[str]) -> Table:
    """A row for each model: times, ours over the best other, arithmetic, memory."""
    table = Table(title="a training step", box=box.SIMPLE, pad_edge=False)
    table.add_column("model", no_wrap=True)
    best = "ours\n/best" if len(names) > 1 else ""
    columns = [
        "batch",
        *(f"{name}\nms" for name in names),
        best,
        "lin\n/std",
        "GFLOP",
        "share\nof rate",
    ]
    for column in [*columns, *(f"{name}\nMiB" for name in names)]:
        table.add_column(column, justify="right", no_wrap=True)
    for case in cases:
        rates = [max(rates.values()) for rates in case["rates"]]
        for model in ("standard", "linearized"):
            found = {name: case[f"{name} {model}"] for name in names}
            seconds = {name: own["seconds"] for name, own in found.items()}
            median = {name: statistics.median(values) for name, values in seconds.items()}
            ours, what = seconds[OURS], found[OURS]["problem"]
            others = [name for name in names if name != OURS]
            against = min(others, key=median.get) if others else None
            billions = gflop(what)
            needed = [billions * 1e9 / rate for rate in rates]
            standard = case[f"{OURS} standard"]["seconds"]
            table.add_row(
                title(what),
                str(what["batch"]),
                *(f"{1e3 * median[name]:.2f}" for name in names),
                f"{ratio(ours, seconds[against]):.2f}" if against else "",
                f"{ratio(ours, standard):.2f}" if model == "linearized" else "",
                f"{billions:.3g}",
                f"{ratio(needed, ours):.0%}",
                *(f"{own['peak_bytes'] / 2**20:,.0f}" for own in found.values()),
            )
    return table


def outputs_study(benchmark: Benchmark, arch, batch, counts, paper: bool) -> dict[str, Any]:
    """A linearized step with each number of outputs, and on request the paper's way beside it."""
    ways = {"linearized": OURS} | ({"per_output": "pytorch"} if paper else {})
    return benchmark.measure(
        {
            f"{model} {count}": (name, problem(arch, 1, model, batch, count))
            for model, name in ways.items()
            for count in counts
        }
    )


def outputs_table(study: dict[str, Any], counts: list[int]) -> Table:
    """A row for each number of outputs, and how much its step takes more than the first's."""
    first = study[f"linearized {counts[0]}"]["problem"]
    table = Table(
        "outputs", f"{OURS} ms", "growth", title=f"{title(first)}, batch {first['batch']}"
    )
    ways = ["linearized"]
    if f"per_output {counts[0]}" in study:
        table.add_column("a pass per output ms")
        table.add_column("growth")
        ways.append("per_output")
    for count in counts:
        cells = []
        for way in ways:
            seconds = study[f"{way} {count}"]["seconds"]
            growth = ratio(seconds, study[f"{way} {counts[0]}"]["seconds"])
            cells += [f"{1e3 * statistics.median(seconds):.2f}", f"{growth:.2f}"]
        table.add_row(f"{count:,}", *cells)
    return table


def machine() -> dict[str, Any]:
    """What the numbers depend on besides the programs."""
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.split(": ")[1] for line in lines if line.startswith("model name")), "")
    return {
        "processor": model or platform.processor(),
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": [gpu.name for gpu in tf.config.list_physical_devices("GPU")],
        "python": platform.python_version(),
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", help="architecture-width, comma-separated")
    parser.add_argument("--outputs", help="numbers of outputs for LeNet, comma-separated")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--alexnet_batch", type=int, help="8 where memory asks; --batch")
    parser.add_argument("--rounds", type=int, help="7; 3 with --quick")
    parser.add_argument("--quick", action="store_true", help="less of everything: five minutes")
    parser.add_argument("--torch_python", default=sys.executable, help="interpreter with PyTorch")
    parser.add_argument("--jax_python", default=sys.executable, help="interpreter with JAX")
    parser.add_argument("--compile", action="store_true", help="try torch.compile too")
    parser.add_argument("--json", type=pathlib.Path, help="file for every raw number")
    args = parser.parse_args()
    quick = args.quick
    if args.cases is None:
        args.cases = "lenet-1,lenet-4,alexnet-1" if quick else "lenet-1,lenet-4,lenet-16,alexnet-1"
    if args.outputs is None:
        args.outputs = "10,100" if quick else "10,20,50,100"
    args.cases = [case.rsplit("-", 1) for case in args.cases.split(",") if case]
    args.outputs = [int(count) for count in args.outputs.split(",") if count]
    args.rounds = args.rounds or (3 if quick else 7)
    args.alexnet_batch = args.alexnet_batch or (8 if quick else args.batch)
    return args


def main():
    args = arguments()
    tf.config.set_visible_devices([], "GPU")  # which are the workers'
    console = Console()
    console.width = max(110, console.width)
    frameworks = [
        Framework(OURS, "ntk_tf", sys.executable),
        Framework("pytorch", "torch", args.torch_python),
        Framework("jax", "jax", args.jax_python),
    ]
    for framework in frameworks[1:]:
        if framework.missing():
            frameworks.remove(framework)
            option = f"--{framework.module}_python"
            console.print(
                f"without {framework.module}, which {framework.python} cannot import: "
                f"pip install {framework.module}, or name another interpreter with {option}"
            )
    names = [framework.name for framework in frameworks]
    benchmark = Benchmark(frameworks, args.rounds, 0.3 if args.quick else 1.0, console)
    record = {"machine": machine(), "versions": benchmark.versions, "cases": {}, "outputs": {}}
    console.print(record["machine"], record["versions"])

    def keep():
        if args.json:
            args.json.write_text(json.dumps(record, indent=1) + "\n")

    for arch, width in args.cases:
        batch = args.alexnet_batch if arch == "alexnet" else args.batch
        case = compare(benchmark, arch, int(width), batch, args.compile)
        record["cases"][f"{arch}-{width}"] = case
        keep()
    if record["cases"]:
        console.print(steps_table(list(record["cases"].values()), names))
    for case in record["cases"].values():
        for key, own in case.items():
            if key != "rates" and own["framework"] != OURS:
                console.print(f"{own['framework']}, {title(own['problem'])}: {own['variant']}")
    if args.outputs:
        studies = {"alexnet": ([10, 1000], args.alexnet_batch, False)}
        studies["lenet"] = (args.outputs, args.batch, "pytorch" in names)
        for arch, (counts, batch, paper) in studies.items():
            study = record["outputs"][arch] = outputs_study(benchmark, arch, batch, counts, paper)
            keep()
            console.print(outputs_table(study, counts))
    everything = [*record["cases"].values(), *record["outputs"].values()]
    for name in names:
        rates = [rates[name] for part in everything for rates in part["rates"]]
        console.print(f"matrix product in {name}: {statistics.median(rates) / 1e9:.0f} GFLOP/s")
    benchmark.close()


if __name__ == "__main__":
    main()
