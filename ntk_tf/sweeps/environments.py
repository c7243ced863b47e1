"""What each of several jobs on one machine may use: a GPU, or its share of the cores."""

import os
from collections.abc import Mapping, Sequence

from ntk_tf.process.devices import cores

THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")


def of_jobs(
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
