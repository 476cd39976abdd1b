"""Repeat an action in a thread, beside the work of a run."""

import contextlib
import threading
from collections.abc import Callable, Iterator

from musictag.errors import MusictagError


@contextlib.contextmanager
def repeating(action: Callable[[], float], pause_s: float, name: str) -> Iterator[None]:
    """Call `action` in a thread named `name` while the body runs; the body's end waits for the call in progress.

    The first call is after `pause_s`, each further one after the pause, s, that the call before has returned. After an
    error, the pause stays the same. A `MusictagError` is ignored: a store that does not answer may answer later. The
    first other error is raised at the body's end.
    """
    finished = threading.Event()
    errors: list[BaseException] = []

    def repeat() -> None:
        pause = pause_s
        while not finished.wait(pause):
            try:
                pause = action()
            except MusictagError:
                continue
            except BaseException as error:  # noqa: BLE001 # a panic of deltalake is a `BaseException`
                if not errors:
                    errors.append(error)

    thread = threading.Thread(target=repeat, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()
    if errors:
        raise errors[0]
