"""The exit code of a job's process, and the number of its cores."""

import os
import sys
from collections.abc import Callable

from musictag.errors import MusictagError
from musictag.storage.text import printable
from musictag.storage.urls import redacted


def run_main(main: Callable[[list[str]], None], argv: list[str] | None = None) -> int:
    """Call `main` with `argv`, or the arguments of the command line if it is None, and return the exit code.

    An error of `musictag.errors` is printed as one line, without a traceback. Other errors are raised.
    """
    try:
        main(sys.argv[1:] if argv is None else argv)
    except MusictagError as error:
        message = printable(redacted(str(error)), "\n\t")
        sys.stderr.write(f"error: {message}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("stopped; committed rows are kept, and the next run continues from there\n")
        return 130
    return 0


def n_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
