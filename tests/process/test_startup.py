"""What a process loads first."""

import subprocess
import sys

LOADED = """
import gc, sys
from ntk_tf.process import startup
startup.load_tensorflow()
print(sorted({"matplotlib", "pandas", "scipy", "sklearn", "tensorflow"} & set(sys.modules)))
print(gc.isenabled(), gc.get_freeze_count() > len(sys.modules))
import matplotlib, scipy.linalg, sklearn, tensorflow as tf
print(scipy.linalg.norm(tf.ones(4)))
"""


def test_packages_that_tensorflow_does_not_need_are_left_for_later():
    """They can be loaded afterwards, and objects that are made then are looked after."""
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "['tensorflow']\nTrue True\n2.0\n"), done.stderr
