"""What each of several jobs on one machine may use: a GPU, or its share of the cores."""

import os
import subprocess
from collections.abc import Mapping, Sequence

THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")


def gpus(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them.

    Args:
        environment: where CUDA_VISIBLE_DEVICES is looked up before the driver is asked.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = (name.strip() for name in visible.split(","))
        return tuple(name for name in names if name and name != "-1")
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    lines = listed.stdout.splitlines() if listed.returncode == 0 else []
    return tuple(str(i) for i, _ in enumerate(line for line in lines if line.startswith("GPU ")))


def environments(
    jobs: int, devices: Sequence[str], environment: Mapping[str, str] = os.environ
) -> list[dict[str, str]]:
    """The environment of each of `jobs` processes at once.

    Jobs take turns with the GPUs. Without GPUs and with several jobs, each gets its share of the
    cores' threads, whether or not the others are busy: sums in floating point may depend on the
    number of threads, and results shall not depend on what else runs. What the user has set stays.

    Args:
        jobs: how many at once.
        devices: the GPUs; may be empty.
        environment: what the jobs inherit.

    Returns:
        One environment a job.
    """
    shared = dict(environment)
    if jobs > 1:
        threads = str(max(1, cores() // jobs))
        shared = dict.fromkeys(THREADS, threads) | shared if not devices else shared
    if not devices:
        return [dict(shared) for _ in range(jobs)]
    return [shared | {"CUDA_VISIBLE_DEVICES": devices[i % len(devices)]} for i in range(jobs)]


def cores() -> int:
    """The number of cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1
