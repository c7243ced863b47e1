"""Memory: what is free, what the process has taken, and the errors of too little."""

import sys

import psutil


def free_memory() -> float:
    """GiB that the machine has available."""
    return psutil.virtual_memory().available / 2**30


def peak_memory() -> int:
    """The most bytes that this process has held, on the GPUs where there are any."""
    import tensorflow as tf

    gpus = tf.config.list_logical_devices("GPU")
    if gpus:
        return max(tf.config.experimental.get_memory_info(gpu.name)["peak"] for gpu in gpus)
    import resource  # absent on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error, of Python, NumPy or TensorFlow, says that memory does not suffice.

    TensorFlow calls a full disk by the same name, and what CUDA's libraries meet by others.
    """
    if isinstance(error, MemoryError):
        return True
    import tensorflow as tf

    text = str(error)
    if isinstance(error, tf.errors.ResourceExhaustedError):
        return "No space left" not in text
    names = ("OUT_OF_MEMORY", "out of memory", "CUDNN_STATUS_ALLOC_FAILED", "OOM when allocating")
    return isinstance(error, tf.errors.OpError) and any(name in text for name in names)
