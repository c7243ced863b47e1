"""What there is not on every system: signals, the process's memory in /proc."""

import importlib.util
import signal

from ntk_tf.process import memory, signals


def test_windows_has_fewer_signals(monkeypatch):
    monkeypatch.delattr(signal, "SIGUSR2")
    monkeypatch.delattr(signal, "SIGHUP")
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    spec = importlib.util.spec_from_file_location("signals_there", signals.__file__)
    there = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(there)
        there.listen()
        assert there._EXIT_CODES == {signal.SIGTERM: 75, signal.SIGINT: 130}
        assert signal.getsignal(signal.SIGTERM) is there._handle
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_peak_memory_without_proc_is_nearly_the_same(monkeypatch):
    exact = memory.peak_memory()
    monkeypatch.setattr(memory, "_peak_of_linux", lambda: None)
    assert memory.peak_memory() >= 0.99 * exact  # getrusage takes over that of the parent
