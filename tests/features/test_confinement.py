"""The process that decodes opens no connection and starts no program; all else it may do."""

import json
import subprocess
import sys

import pytest

from musictag.features.confinement import confine

PROGRAM = """
import json, os, socket, subprocess, sys, threading, urllib.request
from musictag.features.confinement import confine

ours, theirs = socket.socketpair()
started, go = threading.Event(), threading.Event()
outcomes = {}

def attempt(name, action):
    try:
        action()
        outcomes[name] = "done"
    except PermissionError:
        outcomes[name] = "refused"
    except Exception as error:
        outcomes[name] = f"{type(error).__name__}: {error}"

def earlier_thread():
    started.set()
    go.wait()
    attempt("socket of an earlier thread", lambda: socket.socket())

thread = threading.Thread(target=earlier_thread)
thread.start()
started.wait()
assert confine()
go.set()
thread.join()
attempt("socket", lambda: socket.socket())
attempt("unix socket", lambda: socket.socket(socket.AF_UNIX))
attempt("program", lambda: subprocess.run(["/bin/true"]))
attempt("exec", lambda: os.execv("/bin/true", ["true"]))
attempt("inherited connection", lambda: (os.write(theirs.fileno(), b"x"), os.read(ours.fileno(), 1)))
attempt("file", lambda: open(sys.argv[1], "w").write("x"))
attempt("thread", lambda: threading.Thread(target=lambda: None).start())
print(json.dumps(outcomes))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="seccomp is Linux's")
def test_confined_process_opens_no_connection_and_starts_no_program(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "file")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    refused = ("socket of an earlier thread", "socket", "unix socket", "program", "exec")
    allowed = ("inherited connection", "file", "thread")
    assert json.loads(done.stdout) == {**dict.fromkeys(refused, "refused"), **dict.fromkeys(allowed, "done")}


def test_other_systems_are_left_as_they_are(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert confine() is False
