"""What a process does first: standard streams that break nothing, TensorFlow without its noise."""

import contextlib
import gc
import io
import logging
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from typing import IO, Any

from ntk_tf.process import devices

_NOISE = re.compile(
    r"^(WARNING: All log messages before absl::InitializeLog"
    r"|I0000 "
    r"|E0000 .*(cuInit|Unable to register cu|computation placer)"
    r"|To enable the following instructions)"
)
#: What Keras and TensorFlow load where it is installed, for parts of them that no network needs
#: (`keras.wrappers`, galleries of pictures): a third of the time that they take.
_UNUSED = ("matplotlib", "pandas", "scipy", "sklearn")


class _Forgiving(io.FileIO):
    """A file descriptor that loses what it cannot write: a log on a full disk, a closed pipe."""

    def write(self, content) -> int:
        """Write, or pretend to."""
        try:
            return super().write(content)
        except OSError:
            return memoryview(content).nbytes


def prepare_streams() -> None:
    """Let no line of output end a run that it only describes, and warnings be one line each."""
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass  # one that was closed: the next file would get what libraries write there
    os.close(descriptor)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and stream is getattr(sys, f"__{name}__"):  # not replaced
            if sys.platform == "win32" and stream.isatty():  # it writes what a console understands
                continue
            stream.flush()
            raw = io.BufferedWriter(_Forgiving(stream.fileno(), "w", closefd=False))
            text = io.TextIOWrapper(raw, stream.encoding, "backslashreplace", line_buffering=True)
            setattr(sys, name, text)


def load_tensorflow() -> None:
    """Load TensorFlow's modules and Keras', which uses no device and starts no thread yet.

    Its libraries write to the process's standard error while they load, past Python and before any
    log level counts; what is not known to be noise is passed on.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if not devices.has_driver():
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    os.environ["KERAS_BACKEND"] = "tensorflow"  # before a user's environment or keras.json
    if {"keras", "tensorflow"} <= sys.modules.keys():
        return
    with _filtered_stderr(), _no_garbage(), _hidden(_UNUSED):
        import keras  # noqa: F401
        import tensorflow  # noqa: F401


def import_tensorflow(one_thread_an_operation: bool = False) -> None:
    """Import TensorFlow and what goes with it, ready for work, without informational messages.

    Args:
        one_thread_an_operation: do not split operations over threads, unless the environment's
            TF_NUM_INTRAOP_THREADS says so; they still run side by side.
    """
    if one_thread_an_operation:
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    if devices.has_quota():  # or there would be a thread for each core of the machine
        for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
            os.environ.setdefault(name, str(devices.cores()))
    load_tensorflow()
    import tensorflow as tf

    with _filtered_stderr():
        for gpu in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, True)
    tf.config.experimental.enable_tensor_float_32_execution(False)  # float32 is float32
    _pin_keras()
    tf.get_logger().setLevel("ERROR")
    logging.getLogger("absl").setLevel(logging.ERROR)


def _pin_keras() -> None:
    """Undo what a user's keras.json says: it is in no config.json, and numbers depend on it."""
    import keras

    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
    keras.config.set_image_data_format("channels_last")
    keras.config.set_dtype_policy("float32")


@contextlib.contextmanager
def _no_garbage() -> Iterator[None]:
    """Do not look for garbage among what is made here, now or later: modules live to the end.

    The search, which goes through all that there is again and again, took a quarter of the time to
    a run's first update.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
        gc.freeze()


@contextlib.contextmanager
def _hidden(packages: Iterable[str]) -> Iterator[None]:
    """Let packages that are not loaded yet seem not to be installed."""
    hidden = [name for name in packages if name not in sys.modules]
    absent: Any = None  # which fails an import
    sys.modules |= dict.fromkeys(hidden, absent)
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


@contextlib.contextmanager
def _filtered_stderr() -> Iterator[None]:
    """Hold back what is written to file descriptor 2, and pass on what is not noise.

    Where it is closed, or nothing can be held, all goes its way.
    """
    held = _temporary_file() if sys.stderr else None
    if held is None:
        yield
        return
    with held:
        sys.stderr.flush()
        saved = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
            held.seek(0)
            sys.stderr.writelines(line for line in held if not _NOISE.match(line))


def _temporary_file() -> IO[str] | None:
    """A file for text; None where there is no folder for such."""
    try:
        return tempfile.TemporaryFile("w+", errors="replace")
    except OSError:
        return None
