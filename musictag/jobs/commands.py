"""Run another program until it ends, or this one is stopped."""

import subprocess
from collections.abc import Sequence

from musictag.jobs.progress import echo

NOT_STARTED = 127
"""Exit code, as of a shell, for a program that cannot be started."""


def run_command(command: Sequence[str]) -> int:
    """Run a command; return its exit code, or 128 and the number of the signal that ended it.

    If this process gets SIGTERM or Ctrl-C, the command gets SIGTERM, and is waited for.
    """
    try:
        process = subprocess.Popen(command)
    except OSError as error:
        echo(f"{command[0]}: cannot be started: {error.strerror or error}")
        return NOT_STARTED
    with process:
        try:
            code = process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
    return code if code >= 0 else 128 - code
