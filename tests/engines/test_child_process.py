import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from musictag.engines import child_process
from processes import is_running

WAIT_S = 20.0
SLEEPER = "import pathlib, sys, os, time; pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(600)"
# A process that has a sleeper watched. What ignores a signal, as featurize does in the end, has its children ignore it.
PARENT = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGUSR1, signal.SIG_DFL)
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


@pytest.fixture
def signals():
    """The numbers of those that came."""
    came = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: came.append(number))
    yield came
    signal.signal(signal.SIGUSR1, before)


def test_command_ends_with_its_parent(parent, tmp_path):
    command = sleeper(tmp_path / "pid")
    watcher = command.parent()
    parent.kill()
    wait_for(lambda: not is_running(command) and not is_running(watcher))


def test_killed_command_is_reported(parent, tmp_path):
    sleeper(tmp_path / "pid").kill()
    assert parent.wait(WAIT_S) == -signal.SIGUSR1


@pytest.mark.parametrize("code", [0, 3])
def test_only_a_failed_command_is_reported(signals, code, capfd):
    command = [sys.executable, "-c", f"import sys; print('out'); sys.exit({code} or None)"]
    ended = subprocess.run(
        [sys.executable, "-m", "musictag.engines.child_process", str(os.getpid()), *command], check=False
    )
    assert ended.returncode == code
    assert signals == [signal.SIGUSR1] * (code != 0)
    assert capfd.readouterr() == ("out\n", "")


def test_only_the_parent_is_signalled(signals):
    """As where the parent has ended, and another process has its number."""
    assert child_process.run(os.getpid(), [sys.executable, "-c", "import time; time.sleep(600)"]) == -signal.SIGKILL
    assert signals == []
