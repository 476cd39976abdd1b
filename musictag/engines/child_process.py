"""Run a command that exits with its parent; report its failure by SIGUSR1.

python -m musictag.engines.child_process PARENT COMMAND...

PARENT is the process id of the process that starts this.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

POLL_S = 1.0


def run(parent: int, command: Sequence[str]) -> int:
    """Run `command` without its stderr, and return its exit code, negative if a signal ended it."""
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(POLL_S)
            if os.getppid() != parent:
                process.kill()
    # Only if the parent still runs: afterwards its id may belong to another process.
    if process.returncode and os.getppid() == parent:
        os.kill(parent, signal.SIGUSR1)
    return process.returncode


if __name__ == "__main__":
    sys.exit(abs(run(int(sys.argv[1]), sys.argv[2:])))
