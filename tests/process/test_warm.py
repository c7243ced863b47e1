"""Commands that are forked from a process which has imported TensorFlow, beside cold ones."""

import os
import signal
import subprocess
import sys
import time

import commands
import crash_test
import pytest

from ntk_tf import runs
from ntk_tf.process import warm

pytestmark = pytest.mark.skipif(not warm.is_possible(), reason="warm starts are Linux's")

FLAGS = ["--dataset=digits", "--train_examples=64", "--test_examples=20", "--epochs=2"]
LONG = [*crash_test.TRAIN, "--epochs=500"]


@pytest.fixture
def start(tmp_path):
    """A function that starts a long run warm, and waits until it has saved."""

    def call(name):
        arguments = commands.command(*LONG, f"--workdir={tmp_path / name}")
        process = commands.start(arguments)
        assert isinstance(process, warm.Process)
        crash_test._wait_for(lambda: list(tmp_path.glob(f"{name}/checkpoint/*.npz")), process)
        return process

    return call


def test_same_bits_as_a_cold_process(tmp_path):
    """The weights, with the threads that the environment of each command asks for."""
    environment = os.environ | {"TF_NUM_INTRAOP_THREADS": "2"}
    for name, run in (("warm", commands.run), ("cold", subprocess.run)):
        arguments = commands.command(*FLAGS, "--linearized", f"--workdir={tmp_path / name}")
        assert run(arguments, env=environment).returncode == 0
    assert crash_test.outcome(tmp_path / "warm") == crash_test.outcome(tmp_path / "cold")


def test_it_is_a_process_of_its_own(start, tmp_path):
    """Killing one hurts neither another one nor the server."""
    one, two = start("one"), start("two")
    assert os.getsid(one.pid) == os.getpgid(one.pid) == one.pid != two.pid
    assert runs.is_owned(tmp_path / "one")
    with pytest.raises(subprocess.TimeoutExpired):
        one.wait(0.01)
    one.kill()
    assert one.wait(20) == one.returncode == -signal.SIGKILL
    assert not runs.is_owned(tmp_path / "one")
    assert two.poll() is None
    two.terminate()
    assert two.wait(60) == 75


def test_environment_folder_and_arguments_are_the_command_s(tmp_path, monkeypatch):
    (tmp_path / "told.py").write_text(
        "import os, sys\nprint(os.getcwd(), os.environ['A'], 'HOME' in os.environ, sys.argv[1:])\n"
        "print(sys.orig_argv[1:])\n"
        "sys.exit('no')"
    )
    monkeypatch.chdir(tmp_path)
    environment = {name: value for name, value in os.environ.items() if name != "HOME"}
    done = commands.run([sys.executable, "-m", "told", "b c"], env=environment | {"A": "d"})
    assert (done.returncode, done.stderr) == (1, "no\n")
    assert done.stdout == f"{tmp_path} d False ['b c']\n['-m', 'told', 'b c']\n"


def test_what_cannot_be_forked_is_refused():
    server = commands._server()
    for command, more in (
        ([sys.executable, "-c", "0"], {}),
        (commands.command("--help"), {"OMP_NUM_THREADS": "3"}),
        (commands.command("--help"), {"PYTHONPATH": "/elsewhere"}),
    ):
        with pytest.raises(warm.ColdError):
            server.start(command, 1, 2, os.environ | more)
    assert commands.run(commands.command("--help"), env=os.environ | more).returncode == 0


def test_server_that_is_killed_takes_its_processes_along():
    server = warm.Server(os.environ)
    process = server.start([sys.executable, "-m", "http.server", "0"], 1, 2, os.environ)
    server.close()
    assert process.wait(20) == -signal.SIGKILL
    deadline = time.monotonic() + 10
    while os.path.exists(f"/proc/{process.pid}") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not os.path.exists(f"/proc/{process.pid}")
    with pytest.raises(warm.ColdError):
        server.start(commands.command("--help"), 1, 2, os.environ)
