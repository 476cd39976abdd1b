"""The process that a job runs in: its exit code and its cores."""

import os
import sys
from collections.abc import Callable

from musictag.errors import MusictagError
from musictag.storage.urls import redacted


def run_main(main: Callable[[list[str]], None], argv: list[str] | None = None) -> int:
    """Call `main` with the arguments and return the exit code.

    An error of `musictag.errors` is printed as one sentence, without a traceback. Every other error is raised.
    """
    try:
        main(sys.argv[1:] if argv is None else argv)
    except MusictagError as error:
        sys.stderr.write(f"error: {redacted(str(error))}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("stopped; what is committed stays, and the next run goes on from there\n")
        return 130
    return 0


def n_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
