"""Retry an operation after a transient error, and wait for a store that does not answer."""

import dataclasses
import random
import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

TRIES = 4
FIRST_PAUSE_S = 0.5
"""Pause before the second try; each later pause is twice as long."""
MAX_PAUSE_S = 15.0
"""Longest pause while a store is waited for."""


def retry(fn: Callable[[], Result], is_transient: Callable[[Exception], bool]) -> Result:
    """Call `fn`, retrying transient errors; re-raise the last one, or any permanent one."""
    for attempt in range(TRIES - 1):
        try:
            return fn()
        except Exception as error:
            if not is_transient(error):
                raise
        _sleep(FIRST_PAUSE_S * 2**attempt)
    return fn()


@dataclasses.dataclass
class Outage:
    """Since when a store has not answered. All threads of a process that ask the store share it."""

    since: float | None = None
    """Time of the first request without an answer, on the monotonic clock, s; None if the store answers."""
    last_failure: float = 0.0
    """Time of the last request without an answer."""
    error: Exception | None = None
    """The error of that request."""
    n_given_up: int = 0
    """Number of operations that failed after the full wait, since the store answered."""


def wait_for_store(
    fn: Callable[[], Result], is_gone: Callable[[Exception], bool], timeout_s: float, outage: Outage | None = None
) -> Result:
    """Call `fn`, which asks a store, again and again while the store does not answer.

    The pauses grow to `MAX_PAUSE_S`. When the store has not answered for `timeout_s`, the last error is re-raised.
    Later calls with the same `outage` then fail at once, and ask the store every `MAX_PAUSE_S` only, until it answers.
    If the store answers others and not this call, the error is re-raised after `TRIES` tries.

    Args:
        fn: the operation.
        is_gone: whether an error of `fn` means that the store does not answer. Other errors are raised as they are.
        timeout_s: time to wait in all, s.
        outage: what is known of the store; by default, nothing.

    """
    outage = outage or Outage()
    pause, n_failed_while_answering = FIRST_PAUSE_S, 0
    while True:
        # The first operation that is given up may have failed for a reason of its own: the next one asks.
        last = outage.error
        if last and outage.n_given_up > 1 and time.monotonic() < outage.last_failure + MAX_PAUSE_S:
            raise last.with_traceback(None)
        try:
            result = fn()
        except Exception as error:
            if not is_gone(error):
                _answered(outage)
                raise
            n_failed_while_answering += outage.since is None
            left_s = _not_answered(outage, error) + timeout_s - time.monotonic()
            if left_s <= 0:
                outage.n_given_up += 1
                raise
            if n_failed_while_answering >= TRIES:
                raise
        else:
            _answered(outage)
            return result
        _sleep(min(pause, left_s))
        pause = min(2 * pause, MAX_PAUSE_S)


def _answered(outage: Outage) -> None:
    outage.since = outage.error = None
    outage.n_given_up = 0


def _not_answered(outage: Outage, error: Exception) -> float:
    """Note an error; return the time of the first request without an answer."""
    outage.error, outage.last_failure = error, time.monotonic()
    since = outage.last_failure if outage.since is None else outage.since
    outage.since = since
    return since


def _sleep(pause_s: float) -> None:
    """Sleep for half to all of a pause, so that workers do not retry at the same moment."""
    time.sleep(random.uniform(pause_s / 2, pause_s))  # noqa: S311
