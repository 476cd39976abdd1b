"""Signals that ask this process to end: they are raised in the main thread, and remembered.

They are remembered because DuckDB raises an error of its own in place of what a handler of signals raises.
"""

import signal
import threading
from types import FrameType


class Terminated(BaseException):
    """SIGTERM was sent to this process. As `KeyboardInterrupt`, it is no `Exception`: no handler of errors stops it."""


_received: list[signal.Signals] = []
"""Signals, in the order in which they arrived."""


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


def first_received() -> signal.Signals | None:
    """Return the first signal that asked this process to end; None if there was none."""
    return _received[0] if _received else None


def raise_received(error: Exception) -> None:
    """Raise what the handler of a signal raised, if a signal was received; a library raised `error` in its place."""
    received = first_received()
    if received is not None:
        raise (KeyboardInterrupt if received == signal.SIGINT else Terminated) from error


def _terminate(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: what ends the process must not be interrupted
    _received.append(signal.SIGTERM)
    raise Terminated


def _interrupt(number: int, frame: FrameType | None) -> None:
    _received.append(signal.SIGINT)
    raise KeyboardInterrupt
