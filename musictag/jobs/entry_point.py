"""Run the main function of a job: exit codes, signals and missing standard streams."""

import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

from musictag.errors import MusictagError
from musictag.storage.text import printable
from musictag.storage.urls import redacted

STOPPED = "what is committed stays, and the same command continues from there"


class Terminated(BaseException):
    """SIGTERM was sent to this process. As `KeyboardInterrupt`, it is no `Exception`: no handler of errors stops it."""


_received: list[signal.Signals] = []
"""The signals that asked this process to end, in the order in which they arrived."""


def run_main(main: Callable[[list[str]], int | None], argv: list[str] | None = None) -> int:
    """Call `main` with `argv`, or the arguments of the command line if it is None, and return the exit code.

    It is the one that `main` returns; None is 0. An error of `musictag.errors` is printed as one line, without a
    traceback. Other errors are raised. After Ctrl-C the code is 130, after SIGTERM 143.
    """
    open_missing_streams()
    handle_signals()
    try:
        code = main(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
    except (KeyboardInterrupt, Terminated):
        # A query that SIGTERM interrupts raises KeyboardInterrupt, too.
        return _end_after(_received[0] if _received else signal.SIGINT)
    except MusictagError as error:
        message = printable(redacted(str(error)), "\n\t")
        sys.stderr.write(f"error: {message}\n")
        return _end_after(_received[0]) if _received else error.exit_code
    except BrokenPipeError:
        if not _is_reader_gone():
            raise
        _drop_output()
        return 128 + signal.SIGPIPE
    return code or 0


def _end_after(received: signal.Signals) -> int:
    cause = "stopped" if received == signal.SIGINT else f"stopped by {received.name}"
    sys.stderr.write(f"{cause}; {STOPPED}\n")
    if _is_reader_gone():
        _drop_output()
    return 128 + received


def _drop_output() -> None:
    """Let what Python writes at exit go nowhere, because the program that read our output has ended."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _is_reader_gone() -> bool:
    """Return whether the program that read our standard output, such as `head`, has ended."""
    poll = select.poll()
    poll.register(1, 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))


def handle_signals() -> None:
    """Raise `Terminated` in the main thread after SIGTERM, so that files, runs and child processes are ended.

    As process 1 of a container, this process would otherwise ignore the signal. SIGINT raises `KeyboardInterrupt`, as
    with Python's own handler, unless it is ignored, as in the background of a shell. Other threads cannot set a
    handler.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _interrupt)


def _terminate(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: what ends the process must not be interrupted
    _received.append(signal.SIGTERM)
    raise Terminated


def _interrupt(number: int, frame: FrameType | None) -> None:
    _received.append(signal.SIGINT)
    raise KeyboardInterrupt


def open_missing_streams() -> None:
    """Open `/dev/null` in place of standard streams that are closed: the next file would get their descriptors.

    C libraries write messages to descriptor 2, whatever file it is.
    """
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, mode, closefd=False))  # noqa: SIM115 # for the process
