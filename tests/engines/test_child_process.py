import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from processes import is_running

WAIT_S = 20.0
SLEEPER = "import pathlib, sys, os, time; pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(600)"
# A process that has a sleeper watched.
PARENT = """
import os, subprocess, sys, time
subprocess.Popen([sys.executable, "-m", "musictag.engines.child_process", str(os.getpid()), *sys.argv[1:]])
time.sleep(600)
"""


def wait_for(condition):
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def sleeper(path):
    wait_for(lambda: path.exists() and path.read_text())
    return psutil.Process(int(path.read_text()))


@pytest.fixture
def parent(tmp_path):
    command = [sys.executable, "-c", PARENT, sys.executable, "-c", SLEEPER, str(tmp_path / "pid")]
    with subprocess.Popen(command) as process:
        yield process
        process.kill()


def test_command_ends_with_its_parent(parent, tmp_path):
    command = sleeper(tmp_path / "pid")
    watcher = command.parent()
    parent.kill()
    wait_for(lambda: not is_running(command) and not is_running(watcher))


def heed_ctrl_c():
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_ends_the_command_without_a_traceback(tmp_path, capfd):
    command = [sys.executable, "-c", SLEEPER, str(tmp_path / "pid")]
    supervisor = [sys.executable, "-m", "musictag.engines.child_process", str(os.getpid())]
    # A shell lets commands in the background ignore Ctrl-C, and their children as well.
    with subprocess.Popen([*supervisor, *command], preexec_fn=heed_ctrl_c) as process:
        running = sleeper(tmp_path / "pid")
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_S) == 128 + signal.SIGKILL
    assert not is_running(running)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("ending", "code"), [("sys.exit()", 0), ("sys.exit(3)", 3), ("os.kill(os.getpid(), 9)", 137)])
def test_exit_code_is_that_of_the_command(ending, code, capfd):
    command = [
        sys.executable,
        "-c",
        f"import os, sys; print('out', flush=True); print('err', file=sys.stderr); {ending}",
    ]
    ended = subprocess.run(
        [sys.executable, "-m", "musictag.engines.child_process", str(os.getpid()), *command], check=False
    )
    assert ended.returncode == code
    assert capfd.readouterr() == ("out\n", "")
