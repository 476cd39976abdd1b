"""Waiting for a store that does not answer, by a clock that only pauses move."""

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musictag.storage import retry
from musictag.storage.retry import MAX_PAUSE_S, TRIES, Outage, wait_for_store

LIMIT_S = 600.0


class Clock:
    """Time in seconds, which passes in `sleep` alone."""

    def __init__(self) -> None:
        self.now, self.pauses = 0.0, list[float]()

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(retry, "time", clock)
    return clock


def is_gone(error: Exception) -> bool:
    return isinstance(error, ConnectionError)


def until(clock: Clock, back_s: float) -> Callable[[], str]:
    """Return an operation of a store that answers again at the time `back_s`."""

    def ask() -> str:
        if clock.now < back_s:
            raise ConnectionError(f"refused at {clock.now}")
        return "an answer"

    return ask


def test_answer_of_a_store_that_is_back_is_returned(clock: Clock) -> None:
    outage = Outage()
    assert wait_for_store(until(clock, 300), is_gone, LIMIT_S, outage) == "an answer"
    assert 300 <= clock.now <= 300 + MAX_PAUSE_S
    assert outage == Outage(last_failure=outage.last_failure)
    assert max(clock.pauses) <= MAX_PAUSE_S
    assert len(clock.pauses) < 60


@given(back_s=st.floats(0, 2_000), limit_s=st.floats(1, 1_000))
def test_wait_ends_at_the_limit_and_no_answer_before_it_is_lost(back_s: float, limit_s: float) -> None:
    clock = Clock()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(retry, "time", clock)
        try:
            wait_for_store(until(clock, back_s), is_gone, limit_s)
        except ConnectionError:
            assert back_s > limit_s - MAX_PAUSE_S
            assert limit_s - 1e-6 <= clock.now or back_s > clock.now
        else:
            assert clock.now <= limit_s + 1e-6
        assert clock.now <= limit_s + 1e-6


def test_last_error_is_raised_after_the_limit(clock: Clock) -> None:
    with pytest.raises(ConnectionError, match="refused at 600"):
        wait_for_store(until(clock, 10_000), is_gone, LIMIT_S)
    assert clock.now == pytest.approx(LIMIT_S)


def test_other_errors_are_raised_at_once(clock: Clock) -> None:
    def ask() -> str:
        raise FileNotFoundError("no such file")

    outage = Outage(since=0.0)
    with pytest.raises(FileNotFoundError):
        wait_for_store(ask, is_gone, LIMIT_S, outage)
    assert clock.pauses == []
    assert outage.since is None  # it is an answer


def test_later_operations_fail_at_once_and_ask_seldom_until_the_store_answers(clock: Clock) -> None:
    outage, asked = Outage(), []

    def ask() -> str:
        asked.append(clock.now)
        return until(clock, 700)()

    with pytest.raises(ConnectionError):
        wait_for_store(ask, is_gone, LIMIT_S, outage)
    asked.clear()
    clock.pauses.clear()
    while clock.now < 700:
        with pytest.raises(ConnectionError):
            wait_for_store(ask, is_gone, LIMIT_S, outage)
        clock.now += 0.5
    assert clock.pauses == []
    assert len(asked) <= 2 + 100 / MAX_PAUSE_S
    clock.now += MAX_PAUSE_S
    assert wait_for_store(ask, is_gone, LIMIT_S, outage) == "an answer"
    with pytest.raises(ConnectionError):  # the next outage is waited for again
        wait_for_store(until(clock, 1e9), is_gone, LIMIT_S, outage)
    assert sum(clock.pauses) == pytest.approx(LIMIT_S)


def test_all_threads_wait_until_the_same_time(clock: Clock) -> None:
    outage = Outage(since=-400.0)
    with pytest.raises(ConnectionError):
        wait_for_store(until(clock, 1e9), is_gone, LIMIT_S, outage)
    assert clock.now == pytest.approx(200)


def test_operation_that_fails_while_others_succeed_is_given_up_after_a_few_tries(clock: Clock) -> None:
    outage, tries = Outage(), itertools.count(1)

    def ask() -> str:
        n_tries = next(tries)
        wait_for_store(lambda: "an answer", is_gone, LIMIT_S, outage)  # of another thread
        raise ConnectionResetError(f"reset {n_tries}")

    with pytest.raises(ConnectionResetError, match=f"reset {TRIES}"):
        wait_for_store(ask, is_gone, LIMIT_S, outage)
    assert clock.now < 10


def test_an_operation_that_alone_was_given_up_does_not_fail_the_next(clock: Clock) -> None:
    outage = Outage()
    with pytest.raises(ConnectionError):
        wait_for_store(until(clock, 1e9), is_gone, LIMIT_S, outage)
    assert wait_for_store(until(clock, 0), is_gone, LIMIT_S, outage) == "an answer"
