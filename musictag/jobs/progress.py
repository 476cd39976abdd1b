"""Messages and progress bars of a job."""

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

from musictag.errors import MusictagError
from musictag.storage.repeating import repeating
from musictag.storage.text import printable
from musictag.storage.urls import redacted

Item = TypeVar("Item")

POLL_S = 1.0
"""Interval between updates of a bar on a terminal, s."""
LOG_S = 10.0
"""Interval between lines of a bar without a terminal, s."""


def echo(text: str) -> None:
    """Print a line to standard output; secrets in URLs are redacted, and control characters are escaped."""
    sys.stdout.write(printable(redacted(text), "\n\t") + "\n")
    sys.stdout.flush()


def counted(n: int, noun: str) -> str:
    """Return the number with its noun: `1 file`, `2 files`."""
    return f"{n:,} {noun}{'s' * (n != 1)}"


def bar(items: Iterable[Item], description: str, total: int, unit: str) -> "tqdm[Item]":
    """Return a progress bar over `items`; without a terminal, where each update is a line, it is updated less often."""
    interval = POLL_S if sys.stderr.isatty() else LOG_S
    return tqdm(
        items, desc=description, total=total, unit=unit, mininterval=interval, maxinterval=interval, dynamic_ncols=True
    )


@contextlib.contextmanager
def polling_bar(description: str, total: int, n_done: Callable[[], int], unit: str = "track") -> Iterator[None]:
    """Show a progress bar while the body runs; a thread calls `n_done` once a second.

    Workers may be on other machines, so `n_done` counts the results that have arrived (`Committer.n_tracks`).
    """
    if total == 0:
        yield
        return
    with bar((), description, total, unit) as shown:

        def update() -> float:
            shown.update(min(n_done(), total) - shown.n)
            return POLL_S

        with repeating(update, POLL_S, "progress bar"):
            yield
        with contextlib.suppress(MusictagError):  # the work is done, also if a store does not answer
            update()
