"""What computes: the GPUs that a process may use, and what TensorFlow took, in words."""

import os
import pathlib
import platform
import re
import subprocess
from collections.abc import Mapping

from ntk_tf.process import cgroup

#: There where a driver is: of NVIDIA on Linux, and of Windows under its Linux subsystem.
_DRIVERS = (pathlib.Path("/proc/driver/nvidia"), pathlib.Path("/dev/dxg"))


def has_driver() -> bool:
    """Whether there may be a GPU that TensorFlow can use."""
    return any(path.exists() for path in _DRIVERS)


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


def gpu_memory() -> int | None:
    """Bytes of the machine's smallest GPU; None where the driver does not tell."""
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        listed = subprocess.run(query, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = [int(line) for line in listed.stdout.splitlines() if line.strip().isdigit()]
    return 2**20 * min(found) if found and not listed.returncode else None


def cores() -> int:
    """The number of cores that this process may use, by affinity and by its control group."""
    number = _cores_seen()
    return max(1, min(number, round(cgroup.cores() or number)))


def has_quota() -> bool:
    """Whether a control group allows fewer cores than the process sees."""
    return cores() < _cores_seen()


def _cores_seen() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


def describe() -> str:
    """What TensorFlow computes on, such as `GPU NVIDIA H100` or `CPU AMD EPYC, 2 cores`."""
    import tensorflow as tf

    found = tf.config.list_physical_devices("GPU")
    names = [tf.config.experimental.get_device_details(gpu).get("device_name") for gpu in found]
    if found:
        return ", ".join(f"GPU {name or gpu.name}" for name, gpu in zip(names, found, strict=True))
    number = cores()
    return f"CPU {_processor()}, {number} core{'' if number == 1 else 's'}"


def idle_gpus() -> str:
    """A line about GPUs of this machine that TensorFlow cannot use; empty where there are none."""
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU") or not (has_driver() and gpus()):
        return ""
    if tf.test.is_built_with_cuda():
        reason = "CUDA's libraries are missing: make install CUDA=1, or pip install 'ntk_tf[cuda]'"
    else:
        reason = "this TensorFlow is built without CUDA"
    return f"warning: there is a GPU and TensorFlow does not use it ({reason})"


def _processor() -> str:
    """The CPU's name; the architecture's where the system does not tell."""
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    found = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return " ".join(found[1].split()) if found else platform.machine()
