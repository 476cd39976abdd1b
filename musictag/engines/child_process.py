"""Run a command that ends with its parent.

python -m musictag.engines.child_process PARENT COMMAND...

PARENT is the process id of the process that starts this.
"""

import os
import subprocess
import sys
from collections.abc import Sequence

POLL_S = 1.0


def run(parent: int, command: Sequence[str]) -> int:
    """Run `command` without its stderr; return its exit code, or 128 and the number of the signal that ended it."""
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            while process.poll() is None:
                try:
                    process.wait(POLL_S)
                except subprocess.TimeoutExpired:
                    if os.getppid() != parent:
                        process.kill()
        except KeyboardInterrupt:  # Ctrl-C in a terminal reaches all processes
            process.kill()
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1]), sys.argv[2:]))
