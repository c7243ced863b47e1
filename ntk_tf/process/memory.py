"""Memory: what is free, what the process has taken, and the errors of too little."""

import pathlib
import re
import sys

import psutil

from ntk_tf.process import cgroup, devices


def free_memory() -> float:
    """GiB of main memory that this process can take, by the machine and its control group."""
    free = [psutil.virtual_memory().available, cgroup.free_memory()]
    return min(size for size in free if size is not None) / 2**30


def budget(result: int) -> float:
    """GiB that a computation takes where not told: half of what is free.

    On a GPU, of whose memory half may be taken, the result is in main memory.

    Args:
        result: bytes of it.
    """
    gpu = _free_on_gpus()
    main = free_memory() / 2
    return main if gpu is None else min(main, (result + gpu / 2) / 2**30)


def _free_on_gpus() -> int | None:
    """Bytes that this process's tensors can still take on the smallest GPU; None without one."""
    if not devices.has_driver():
        return None
    import tensorflow as tf

    found, total = tf.config.list_logical_devices("GPU"), devices.gpu_memory()
    if not found or total is None:
        return None
    info = tf.config.experimental.get_memory_info
    return total - max(info(gpu.name)["current"] for gpu in found)


def peak_memory() -> int:
    """The most bytes that this process has held, on the GPUs where there are any."""
    import tensorflow as tf

    gpus = tf.config.list_logical_devices("GPU")
    if gpus:
        return max(tf.config.experimental.get_memory_info(gpu.name)["peak"] for gpu in gpus)
    return _peak_of_linux() or _peak_elsewhere()


def _peak_of_linux() -> int | None:
    """The high-water mark of the process's memory; `getrusage` takes over that of its parent."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", pathlib.Path("/proc/self/status").read_text())
    except OSError:
        return None
    return 1024 * int(found[1]) if found else None


def _peak_elsewhere() -> int:
    """The same on macOS and on Windows."""
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource  # absent on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error, of Python, NumPy or TensorFlow, says that memory does not suffice.

    TensorFlow calls a full disk by the same name, and what CUDA's libraries meet by others.
    """
    if isinstance(error, MemoryError):
        return True
    if "tensorflow" not in sys.modules:
        return False
    import tensorflow as tf

    text = str(error)
    if isinstance(error, tf.errors.ResourceExhaustedError):
        return "No space left" not in text
    names = ("OUT_OF_MEMORY", "out of memory", "CUDNN_STATUS_ALLOC_FAILED", "OOM when allocating")
    return isinstance(error, tf.errors.OpError) and any(name in text for name in names)
