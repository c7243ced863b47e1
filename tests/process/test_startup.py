"""What a process loads first."""

import subprocess
import sys
import tempfile

from ntk_tf.process import startup

LOADED = """
import gc, sys
from ntk_tf.process import startup
startup.load_tensorflow()
print(sorted({"matplotlib", "pandas", "scipy", "sklearn", "tensorflow"} & set(sys.modules)))
frozen = gc.get_freeze_count()
startup.load_tensorflow()
print(gc.isenabled(), frozen > len(sys.modules), gc.get_freeze_count() == frozen)
import matplotlib, scipy.linalg, sklearn, tensorflow as tf
print(scipy.linalg.norm(tf.ones(4)))
"""


def test_packages_that_tensorflow_does_not_need_are_left_for_later():
    """They can be loaded afterwards; what is made after the first load can become garbage."""
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "['tensorflow']\nTrue True True\n2.0\n"


def test_without_standard_error_or_temporary_files_nothing_is_held_back(monkeypatch, capfd):
    def refuse(*_, **__):
        raise FileNotFoundError("No usable temporary directory found")

    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "TemporaryFile", refuse)
        with startup._filtered_stderr():
            print("told", file=sys.stderr)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", None)
        with startup._filtered_stderr():
            pass
    assert capfd.readouterr().err == "told\n"
