"""What a running job says: its progress, and at the end what was done, in numbers, and where it lies."""

import contextlib
import datetime
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

from musictag.errors import MusictagError
from musictag.jobs.ledger import Account, Plan
from musictag.storage.urls import redacted

Item = TypeVar("Item")

POLL_S = 1.0
LOG_S = 10.0


def say(text: str) -> None:
    """A line for the person or the log."""
    sys.stdout.write(redacted(text) + "\n")
    sys.stdout.flush()


def bar(items: Iterable[Item], what: str, total: int, unit: str) -> "tqdm[Item]":
    """A progress bar over `items`; in a log, where each of its states is a line of its own, fewer of them."""
    interval = POLL_S if sys.stderr.isatty() else LOG_S
    return tqdm(
        items, desc=what, total=total, unit=unit, mininterval=interval, maxinterval=interval, dynamic_ncols=True
    )


def counted(n: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{n:,} {noun}{'s' * (n != 1)}"


@contextlib.contextmanager
def progress(what: str, total: int, done: Callable[[], int], unit: str = "track") -> Iterator[None]:
    """A progress bar while the body runs, moved by asking `done` once a second.

    The work may be anywhere, on workers that cannot be asked: what their tables hold is the progress there is.
    """
    if total == 0:
        yield
        return
    finished = threading.Event()
    with bar((), what, total, unit) as shown:

        def move() -> None:
            with contextlib.suppress(MusictagError):  # a store that does not answer now: the bar waits, not the work
                shown.update(min(done(), total) - shown.n)

        def watch() -> None:
            while not finished.wait(POLL_S):
                move()

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            finished.set()
            watcher.join()
        move()


def say_plan(listing: str, plan: Plan, what: str, *, prune: bool) -> None:
    """What a job over tracks is about to do."""
    say(f"{listing}: {counted(plan.listed, 'track')} listed, {len(plan.works):,} {what}")
    if plan.given_up:
        say(
            f"{len(plan.given_up):,} of them will not be tried again: failed as often as --max-attempts allows, "
            "and the audio is the same"
        )
    if plan.unlisted:
        end = "removed" if prune else "kept (--prune removes them)"
        say(f"not listed any more: {counted(len(plan.unlisted), 'track')}, {end}")


def say_account(account: Account, uri: str, failures_uri: str, started: datetime.datetime) -> None:
    """The last lines of a job over tracks: the equation, what it cost, and where its tables lie."""
    seconds = (datetime.datetime.now(datetime.UTC) - started).total_seconds()
    cost = f"{seconds:.1f} s"
    if account.written:
        cost += f", {account.written / seconds * 3600:,.0f} tracks per hour"
    if account.failed:
        say(f"{account.failed:,} failed: the reasons are in {failures_uri}")
    say(f"{account} ({cost}); {uri}")
