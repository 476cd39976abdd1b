"""Retry an operation after a transient error, with growing pauses."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

TRIES = 4
FIRST_PAUSE_S = 0.5
"""Pause before the second try; each later pause is twice as long."""


def retry(fn: Callable[[], Result], is_transient: Callable[[Exception], bool]) -> Result:
    """Call `fn`, retrying transient errors; re-raise the last one, or any permanent one."""
    for attempt in range(TRIES - 1):
        try:
            return fn()
        except Exception as error:
            if not is_transient(error):
                raise
        pause = FIRST_PAUSE_S * 2**attempt
        time.sleep(random.uniform(pause / 2, pause))  # noqa: S311 # so that workers do not retry at the same moment
    return fn()
