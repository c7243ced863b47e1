r"""Time, arithmetic and memory of a training step in ntk_tf, PyTorch and JAX.

    python scripts/benchmark.py [--quick] [--cases=lenet-1,alexnet-1-8,...] [--load=N] [--cores=N] \
        [--torch_python=VENV/bin/python] [--jax_python=VENV/bin/python] [--json=FILE]

Each framework works in a process of its own, in another environment if its interpreter is given.
Only one works at a time. A case is a network at a width; the network and its linearization, each in
every framework, take turns through all rounds, so that other load on the machine meets all of them,
and ratios are medians of the ratios within a round. ntk_tf's time is that of the training command's
own graph and includes its input pipeline; the others find their batches in memory. Of every way
that PyTorch's and JAX's users have to write the step, the fastest counts; a first process finds it.

GFLOP are those that the step needs (`ntk_tf/models/shapes.py`), GB what it must read and write of
main memory (`moved`). The least time that a step can take, the roofline's, is the larger one of
both over the machine's rates: the best that any of the frameworks reaches, in the same round, at
the product of two square float32 matrices, and the bandwidth of copies and sums of arrays. Memory
is the most that the process ever held, libraries and data included; on a GPU, the most that the
framework had allocated there.

A second table shows what outputs cost: a linearized step of AlexNet x1 with 1,000 outputs against
10, and of LeNet x1 with a growing number of them, beside the paper's method, which takes a backward
pass for each output.
"""

import argparse
import contextlib
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
import time
from concurrent import futures
from typing import Any

import numpy as np
import psutil
from rich import box
from rich.console import Console
from rich.table import Table

from ntk_tf.process import devices, signals, startup

startup.import_tensorflow()

import tensorflow as tf  # noqa: E402

from ntk_tf.catalogue import architectures  # noqa: E402
from ntk_tf.experiments.resolving import resolve  # noqa: E402
from ntk_tf.models import shapes  # noqa: E402

WORKERS = pathlib.Path(__file__).parent / "benchmark_workers"
INPUTS = {
    "lenet": (28, 28, 1),
    "alexnet": (224, 224, 3),
    "vgg11": (32, 32, 3),
    "resnet18": (32, 32, 3),
}
CASES = "lenet-1,lenet-4,lenet-16,alexnet-1,alexnet-1-8,vgg11-1,resnet18-1"
QUICK_CASES = "lenet-1,lenet-4,alexnet-1-8"
OURS = "ntk_tf"
#: The digits that ntk_tf's pictures are made of.
LARGEST_BATCH = 1437
#: Sides of the matrices whose product gives the machine's rate.
SIZES = (512, 1024, 2048)
#: Bytes of each array that is copied or summed for the bandwidth, more than caches hold.
ARRAY = 2**28
#: Times that a step must read or write each parameter: w in the forward pass and in the backward
#: pass, where it is written too, and its velocity; a linearization also reads w0 in both.
PASSES = {"standard": 5, "linearized": 7, "double_vjp": 7}


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


def bandwidth() -> float:
    """Bytes a second of main memory, the better of STREAM's copy and sum on all cores at once.

    Counted are the bytes that are named, as STREAM does (McCalpin 1995), not those of a line that
    is fetched before it is overwritten.
    """
    cores = devices.cores()
    a, b, c = (np.ones((cores, ARRAY // cores // 4), np.float32) for _ in range(3))
    ways = {2: lambda i: np.copyto(a[i], b[i]), 3: lambda i: np.add(b[i], c[i], out=a[i])}
    best = 0.0
    with futures.ThreadPoolExecutor(cores) as pool:
        for arrays, way in ways.items():
            for _ in range(3):
                started = time.perf_counter()
                list(pool.map(way, range(cores)))
                best = max(best, arrays * ARRAY / (time.perf_counter() - started))
    return best


@contextlib.contextmanager
def busy(processes: int):
    """So many processes that do nothing but compute, beside every framework alike."""
    command = [sys.executable, "-c", "while True: pass"]
    running = [
        subprocess.Popen(command, preexec_fn=signals.die_with_parent()) for _ in range(processes)
    ]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


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
        if not seconds:
            raise SystemExit(f"{title(problem)}: {name} cannot do it; leave out one of them")
        return min(seconds, key=seconds.get)

    def measure(self, problems: dict[str, tuple[str, dict[str, Any]]]) -> dict[str, Any]:
        """Give every (framework, problem) its turn in every round.

        Returns:
            `rates` and `bandwidths`, of each round, and by key the raw numbers of each problem.
        """
        result = {"rates": [], "bandwidths": []}
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
            result["bandwidths"].append(None if devices.gpus() else bandwidth())  # the host's
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


def counts(problem: dict[str, Any]) -> shapes.Counts:
    """How large the problem's network is."""
    arch = problem["arch"]
    return shapes.count(arch, problem["width"], problem["outputs"], problem["input"])


def gflop(problem: dict[str, Any]) -> float:
    """What a step of the problem needs, in billions of operations."""
    linearized = problem["model"] != "standard"
    return problem["batch"] * counts(problem).step_flops(linearized) / 1e9


def moved(problem: dict[str, Any]) -> float:
    """Billions of bytes that a step must read from main memory or write there.

    Those of the parameters, see `PASSES`, unless caches hold all of them; activations may stay in
    caches from layer to layer, so the bound leaves them out.
    """
    parameters = 4 * counts(problem).parameters
    kept = (2 if problem["model"] == "standard" else 3) * parameters
    return 0.0 if kept <= cache() else PASSES[problem["model"]] * parameters / 1e9


def cache() -> int:
    """Bytes of the largest cache; 0 where the system does not tell."""
    folder = pathlib.Path("/sys/devices/system/cpu/cpu0/cache")
    sizes = [path.read_text().strip() for path in folder.glob("index*/size")]
    return max((1024 * int(size.removesuffix("K")) for size in sizes), default=0)


def problem(arch, width, model, batch, outputs=10, compiled=False) -> dict[str, Any]:
    """What a worker is to time; see `benchmark_workers/protocol.py`."""
    return {
        "arch": arch,
        "width": width,
        "model": model,
        "batch": batch,
        "input": INPUTS[arch],
        "outputs": outputs,
        "compile": compiled,
    }


def title(problem: dict[str, Any]) -> str:
    """The model's name, such as `LinLeNet x4`."""
    linear = "" if problem["model"] == "standard" else "Lin"
    return f"{linear}{architectures.find(problem['arch']).title} x{problem['width']}"


def compare(benchmark: Benchmark, arch, width, batch, compiled) -> dict[str, Any]:
    """The network and its linearization in every framework; keys such as `jax linearized`.

    LeNet's linearization also in ntk_tf's second way, J u as the VJP of a VJP.
    """
    problems = {
        f"{name} {model}": (name, problem(arch, width, model, batch, compiled=compiled))
        for model in ("standard", "linearized")
        for name in benchmark.frameworks
    }
    if arch == "lenet":
        problems[f"{OURS} double_vjp"] = OURS, problem(arch, width, "double_vjp", batch)
    return benchmark.measure(problems)


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
        "2nd\n/lin",
        "GFLOP",
        "GB",
        "share\nof bound",
    ]
    for column in [*columns, *(f"{name}\nMiB" for name in names)]:
        table.add_column(column, justify="right", no_wrap=True)
    for case in cases:
        rates = [max(rates.values()) for rates in case["rates"]]
        limits = list(zip(rates, case["bandwidths"], strict=True))
        for model in ("standard", "linearized"):
            found = {name: case[f"{name} {model}"] for name in names}
            seconds = {name: own["seconds"] for name, own in found.items()}
            median = {name: statistics.median(values) for name, values in seconds.items()}
            ours, what = seconds[OURS], found[OURS]["problem"]
            others = [name for name in names if name != OURS]
            against = min(others, key=median.get) if others else None
            billions, gigabytes = gflop(what), moved(what)
            needed = [
                1e9 * max(billions / rate, gigabytes / width if width else 0)
                for rate, width in limits
            ]
            second = case.get(f"{OURS} double_vjp") if model == "linearized" else None
            standard = case[f"{OURS} standard"]["seconds"]
            table.add_row(
                title(what),
                str(what["batch"]),
                *(f"{1e3 * median[name]:.2f}" for name in names),
                f"{ratio(ours, seconds[against]):.2f}" if against else "",
                f"{ratio(ours, standard):.2f}" if model == "linearized" else "",
                f"{ratio(second['seconds'], ours):.2f}" if second else "",
                f"{billions:.3g}",
                f"{gigabytes:.2g}",
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
        "cores": devices.cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": [gpu.name for gpu in tf.config.list_physical_devices("GPU")],
        "python": platform.python_version(),
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", help="architecture-width or architecture-width-batch, ...")
    parser.add_argument("--outputs", help="numbers of outputs for LeNet, comma-separated")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--load", type=int, default=0, help="busy processes beside (default: 0)")
    parser.add_argument("--cores", type=int, help="cores of every process (default: all)")
    parser.add_argument("--rounds", type=int, help="7; 3 with --quick")
    parser.add_argument("--quick", action="store_true", help="less of everything: five minutes")
    parser.add_argument("--torch_python", default=sys.executable, help="interpreter with PyTorch")
    parser.add_argument("--jax_python", default=sys.executable, help="interpreter with JAX")
    parser.add_argument("--compile", action="store_true", help="try torch.compile too")
    parser.add_argument("--json", type=pathlib.Path, help="file for every raw number")
    args = parser.parse_args()
    quick = args.quick
    if args.cases is None:
        args.cases = QUICK_CASES if quick else CASES
    if args.outputs is None:
        args.outputs = "10,100" if quick else "10,20,50,100"
    try:
        args.cases = [case_of(name, args.batch) for name in args.cases.split(",") if name]
    except ValueError as error:
        parser.error(str(error))
    args.outputs = [int(count) for count in args.outputs.split(",") if count]
    args.rounds = args.rounds or (3 if quick else 7)
    return args


def case_of(name: str, batch: int) -> tuple[str, int, int]:
    """Architecture, width and batch of a case such as `lenet-4` or `alexnet-1-8`.

    Raises:
        ValueError: for anything else.
    """
    arch, *numbers = name.split("-")
    if arch not in INPUTS or len(numbers) not in (1, 2) or not all(map(str.isdecimal, numbers)):
        known = ", ".join(INPUTS)
        raise ValueError(f"--cases={name}: must be one of {known}, -WIDTH, and -PICTURES or not")
    width, batch = map(int, (*numbers, batch)[:2])
    if not (width and 0 < batch <= LARGEST_BATCH):
        raise ValueError(f"{name}: width must be at least 1, a batch 1 to {LARGEST_BATCH} pictures")
    return arch, width, batch


def main():
    args = arguments()
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # JAX: others use the GPU too
    if args.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.cores])
    with busy(args.load):
        run(args)


def run(args: argparse.Namespace):
    tf.config.set_visible_devices([], "GPU")  # which are the workers'
    console = Console(width=160 if not sys.stdout.isatty() else None)
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
    conditions = machine() | {"load": args.load}
    record = {"machine": conditions, "versions": benchmark.versions, "cases": {}, "outputs": {}}
    console.print(record["machine"], record["versions"])

    def keep():
        if args.json:
            args.json.write_text(json.dumps(record, indent=1) + "\n")

    for arch, width, batch in args.cases:
        case = compare(benchmark, arch, width, batch, args.compile)
        record["cases"][f"{arch}-{width}-{batch}"] = case
        keep()
    if record["cases"]:
        console.print(steps_table(list(record["cases"].values()), names))
    for case in record["cases"].values():
        for key, own in case.items():
            if key not in ("rates", "bandwidths") and own["framework"] != OURS:
                console.print(f"{own['framework']}, {title(own['problem'])}: {own['variant']}")
    if args.outputs:
        studies = {"alexnet": ([10, 1000], 8 if args.quick else args.batch, False)}
        studies["lenet"] = (args.outputs, args.batch, "pytorch" in names)
        for arch, (counts, batch, paper) in studies.items():
            study = record["outputs"][arch] = outputs_study(benchmark, arch, batch, counts, paper)
            keep()
            console.print(outputs_table(study, counts))
    everything = [*record["cases"].values(), *record["outputs"].values()]
    for name in names:
        rates = [rates[name] for part in everything for rates in part["rates"]]
        console.print(f"matrix product in {name}: {statistics.median(rates) / 1e9:.0f} GFLOP/s")
    widths = [width for part in everything for width in part["bandwidths"] if width]
    if widths:
        console.print(f"memory: {statistics.median(widths) / 1e9:.0f} GB/s")
    benchmark.close()


if __name__ == "__main__":
    main()
