"""Run a command for a process, and no longer than that is there; it is told, by SIGUSR1, if the command fails.

python -m musictag.engines.child_process PARENT COMMAND...

PARENT is the number of the process that starts this.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

POLL_S = 1.0


def run(parent: int, command: Sequence[str]) -> int:
    """Run `command`, whose stderr is dropped, as a child process; its exit code, below 0 where a signal ended it."""
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(POLL_S)
            if os.getppid() != parent:
                process.kill()
    # Only the parent itself: once it has ended, its number may be another process's.
    if process.returncode and os.getppid() == parent:
        os.kill(parent, signal.SIGUSR1)
    return process.returncode


if __name__ == "__main__":
    sys.exit(abs(run(int(sys.argv[1]), sys.argv[2:])))
