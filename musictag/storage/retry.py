"""Trying again what may pass, such as a store that is busy: a few times, each time after a longer pause."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

TRIES = 4
FIRST_PAUSE_S = 0.5
"""Before the second try; each later one is twice as long."""


def retry(do: Callable[[], Result], may_pass: Callable[[Exception], bool]) -> Result:
    """What `do` gives, which may be called several times; raises what it raises last, or what will not pass."""
    for attempt in range(TRIES - 1):
        try:
            return do()
        except Exception as error:
            if not may_pass(error):
                raise
        pause = FIRST_PAUSE_S * 2**attempt
        time.sleep(random.uniform(pause / 2, pause))  # noqa: S311 # not all workers at once
    return do()
