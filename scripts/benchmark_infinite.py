"""Kernels at infinite width against NumPy's and neural-tangents': the same numbers, and the time.

    python scripts/benchmark_infinite.py [--jax_python=VENV/bin/python] [--quick]

neural-tangents 0.6.5 needs an environment of its own, and is left out without:

    python3.11 -m venv VENV
    VENV/bin/pip install neural-tangents==0.6.5 jax==0.4.30 jaxlib==0.4.30 'numpy<2.2' 'scipy<1.14'

The kernels are those of Arora et al. (2019), CNTK-V and CNTK-GAP, at depths 3 and 21, of random
pictures, in float64. All run on one core, the same; rounds alternate, since other load moves all
numbers, and ratios are medians over rounds. A first call of each does not count: it compiles.
"""

import argparse
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

CHILD = "--child"
#: Architecture, depth, side, channels and pictures along a side of the block that is timed.
CASES = (
    ("cnn_v", 3, 32, 3, 32),
    ("cnn_v", 21, 32, 3, 16),
    ("cnn_gap", 3, 8, 1, 12),
    ("cnn_gap", 21, 8, 1, 8),
)
TOLERANCE = 1e-6


def name_of(case):
    arch, depth, side, channels, _ = case
    return f"{arch}, depth {depth}, {side}x{side}x{channels}"


def pictures(case):
    """Two sets of random pictures `[n, side, side, channels]`."""
    _, depth, side, channels, count = case
    return np.random.default_rng(depth).standard_normal((2, count, side, side, channels))


def numpy_kernel(case, x, z):
    """The kernel of one pair of pictures `[side, side, channels]`, with loops over layers alone."""
    arch, depth, side, channels, _ = case
    crossed = arch == "cnn_gap"
    at = "ijc,klc->ijkl" if crossed else "ijc,ijc->ij"

    def convolved(s):
        padded = np.pad(s, 1)
        sums = 0
        for a in range(3):
            for b in range(3):
                places = (slice(a, a + side), slice(b, b + side))
                sums = sums + padded[places * (2 if crossed else 1)]
        return sums

    def variances(u):
        """Of each layer before its ReLU, by position."""
        s, own = np.einsum("ijc,ijc->ij", u, u), []
        for layer in range(depth - 1):
            padded = np.pad(s if layer == 0 else s / 9, 1)
            s = sum(padded[a : a + side, b : b + side] for a in range(3) for b in range(3))
            own.append(s)
        return own

    s = convolved(np.einsum(at, x, z))
    t = s
    for layer, (u, v) in enumerate(zip(variances(x), variances(z), strict=True)):
        scale = np.sqrt(u[:, :, None, None] * v if crossed else u * v)
        c = np.clip(s / scale, -1, 1)
        angle = math.pi - np.arccos(c)
        s, t = scale * (c * angle + np.sqrt(1 - c * c)) / math.pi, t * angle / math.pi
        t = s + t
        if layer < depth - 2:
            s, t = convolved(s) / 9, convolved(t) / 9
    return float(t.mean())


def serve(path):
    """In neural-tangents' environment: compute each kernel when asked to; its seconds."""
    import jax
    from jax._src import source_info_util
    from jax.interpreters import ad

    # neural-tangents 0.6.5 looks for these where JAX 0.4.30 no longer shows them.
    ad.source_info_util, ad.config = source_info_util, jax.config
    jax.config.update("jax_enable_x64", True)
    from neural_tangents import stax

    def function(arch, depth, channels):
        conv = [stax.Conv(1, (3, 3), padding="SAME", W_std=(9 * channels) ** 0.5)]
        inner = [stax.Relu(), stax.Conv(1, (3, 3), padding="SAME", W_std=2**0.5)]
        pool = stax.GlobalAvgPool() if arch == "cnn_gap" else stax.Flatten()
        layers = [*conv, *inner * (depth - 2), stax.Relu(), pool, stax.Dense(1, W_std=2**0.5)]
        return jax.jit(lambda x, z: stax.serial(*layers)[2](x, z, "ntk"))

    functions = {case: function(*case[:2], case[3]) for case in CASES}
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        case = CASES[json.loads(line)]
        started = time.monotonic()
        kernel = np.asarray(functions[case](*pictures(case)))
        seconds = time.monotonic() - started
        np.save(path, kernel)
        print(json.dumps(seconds), flush=True)


class Other:
    """neural-tangents in a process of its own."""

    def __init__(self, python, folder):
        self.path = pathlib.Path(folder) / "kernel.npy"
        command = [python, __file__, CHILD, str(self.path)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.answer()

    def answer(self):
        """What the process says next."""
        for line in self.process.stdout:
            if line.startswith(('"', *"0123456789")):
                return json.loads(line)
        raise SystemExit("neural-tangents' process ended")

    def __call__(self, case):
        """A kernel and its seconds."""
        self.process.stdin.write(json.dumps(CASES.index(case)) + "\n")
        self.process.stdin.flush()
        seconds = self.answer()
        return np.load(self.path), seconds


def timed(function, *arguments):
    started = time.monotonic()
    return function(*arguments), time.monotonic() - started


def compare(case, other, rounds):
    """Kernels of a case by all, their differences and times; whether they agree."""
    from ntk_tf.ntk import infinite

    arch, depth, side, channels, _ = case
    x, z = pictures(case)
    ours = infinite.KernelFunction(arch, (side, side, channels), arch_args={"depth": depth})
    few = [(i, j) for i in range(2) for j in range(2)]

    def numpy_entries():
        return np.array([numpy_kernel(case, x[i], z[j]) for i, j in few])

    kernel = ours(x, z).ntk
    others = {"NumPy": numpy_entries()}
    if other:
        others["neural-tangents"] = other(case)[0]
    times = {name: [] for name in ("ours", *others)}
    for _ in range(rounds):
        times["ours"].append(timed(ours, x, z)[1] / kernel.size)
        times["NumPy"].append(timed(numpy_entries)[1] / len(few))
        if other:
            times["neural-tangents"].append(other(case)[1] / kernel.size)
    print(f"\n{name_of(case)}")
    print(f"  {'ours':16}{1e3 * statistics.median(times['ours']):10.4f} ms an entry")
    agree = True
    for name, theirs in others.items():
        mine = np.array([kernel[pair] for pair in few]) if theirs.ndim == 1 else kernel
        difference = np.max(np.abs(mine - theirs) / np.abs(theirs))
        ratios = [b / a for a, b in zip(times["ours"], times[name], strict=True)]
        agree = agree and difference < TOLERANCE
        print(
            f"  {name:16}{1e3 * statistics.median(times[name]):10.4f} ms an entry,"
            f" {statistics.median(ratios):.1f} times as long; largest difference {difference:.1e}"
        )
    return agree


def main():
    if sys.argv[1:2] == [CHILD]:
        serve(sys.argv[2])
        return 0
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jax_python", help="Python of neural-tangents' environment")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one round")
    given = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):  # on Linux; processes started from here inherit it
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    from ntk_tf.process import startup

    startup.import_tensorflow(one_thread_an_operation=True)
    with tempfile.TemporaryDirectory() as folder:
        other = Other(given.jax_python, folder) if given.jax_python else None
        rounds = 1 if given.quick else given.rounds
        agree = [compare(case, other, rounds) for case in CASES]
        if other:
            other.process.stdin.close()
            other.process.wait()
    return 0 if all(agree) else 1


if __name__ == "__main__":
    sys.exit(main())
