"""Repeat an action in a thread, beside the work of a run."""

import contextlib
import threading
from collections.abc import Callable, Iterator

from musictag.errors import MusictagError


@contextlib.contextmanager
def repeating(action: Callable[[], float], pause_s: float, name: str) -> Iterator[None]:
    """Call `action` in a thread named `name` while the body runs; the body's end waits for the call in progress.

    The first call is after `pause_s`, each further one after the pause, s, that the call before has returned. After a
    `MusictagError`, the pause stays the same: a store that does not answer may answer later.
    """
    finished = threading.Event()

    def repeat() -> None:
        pause = pause_s
        while not finished.wait(pause):
            with contextlib.suppress(MusictagError):
                pause = action()

    thread = threading.Thread(target=repeat, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()
