"""How a worker of the kernel benchmark talks to its parent: a JSON object a line.

    python ntk_in_jax.py PROBLEM.npz IMPLEMENTATION MEMORY_GIB

PROBLEM.npz holds x `[n, ...]`, the network's name, what is kept of the kernel, and the weights as
LAYER/kernel and LAYER/bias. The first answer comes after the first call, whose kernel is written
to IMPLEMENTATION.npy beside the problem; then a call is timed for each line that comes.
"""

import json
import os
import pathlib
import resource
import sys
import time

import numpy as np
from ntk_networks import NETWORKS
from protocol import peak_memory


def serve(prepare):
    """Answer until the parent closes the pipe.

    Args:
        prepare: maps (network, weights by layer, x, outputs, implementation) to a function that
            computes the kernel: `[n, L, n, L]` for full, else `[n, n]`.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer

    def answer(**content):
        print(json.dumps(content), file=answers, flush=True)

    path, implementation, gib = pathlib.Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_DATA, (int(gib * 2**30),) * 2)
    with np.load(path) as file:
        arrays = dict(file)
    layers = {name.partition("/")[0] for name in arrays if "/" in name}
    weights = {name: (arrays[f"{name}/kernel"], arrays[f"{name}/bias"]) for name in layers}
    network, outputs = NETWORKS[str(arrays["network"])], str(arrays["outputs"])
    try:
        kernel = prepare(network, weights, arrays["x"], outputs, implementation)
        started = time.perf_counter()
        found = kernel()
        first = time.perf_counter() - started
        np.save(path.with_name(f"{implementation}.npy"), found)
        answer(first=first)
        for _ in sys.stdin:
            started = time.perf_counter()
            kernel()
            answer(seconds=time.perf_counter() - started, peak=peak_memory())
    except Exception as error:
        answer(error=f"{type(error).__name__}: {error}".splitlines()[0][:100])
