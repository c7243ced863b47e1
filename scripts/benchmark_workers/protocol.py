"""How a worker of the benchmark talks to its parent: a JSON object a line, on stdin and stdout.

A problem is what is timed: {"model": "standard", "linearized", "double_vjp" or "per_output",
"arch", "width", "batch", "input", "outputs"}, or {"model": "product", "size"} for the product of
two square matrices.
"""

import gc
import json
import os
import pathlib
import sys
import time


def peak_memory():
    """Most memory that the process ever held, in bytes; `getrusage` would count its parent's."""
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def serve(versions, variants, peak=peak_memory):
    """Time what the parent asks for, until it closes the pipe.

    Args:
        versions: {library: version}.
        variants: maps a problem to {name: prepare}; `prepare()` gives a function of a number of
            steps that returns when these are done. Only the latest is kept.
        peak: peak memory in bytes.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer

    def answer(**content):
        print(json.dumps(content), file=answers, flush=True)

    answer(versions=versions)
    latest, run = None, None
    for line in sys.stdin:
        request = json.loads(line)
        problem, name = request["problem"], request.get("variant")
        if name is None:
            answer(variants=list(variants(problem)))
            continue
        try:
            if (problem, name) != latest:
                latest = run = None
                gc.collect()
                run = variants(problem)[name]()
                latest = problem, name
                run(2)  # torch.compile compiles again once there are gradients
            started = time.perf_counter()
            run(request["steps"])
            answer(seconds=time.perf_counter() - started, peak=peak())
        except Exception as error:
            answer(error=f"{type(error).__name__}: {error}".splitlines()[0])
