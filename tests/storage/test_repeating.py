import threading

import pytest

from musictag.errors import StoreError
from musictag.storage.repeating import repeating


def test_action_is_repeated_after_errors_of_a_store_with_the_pause_that_it_returns():
    calls, done = [], threading.Event()

    def action():
        calls.append(len(calls))
        if len(calls) == 2:
            raise StoreError("no answer")
        if len(calls) == 4:
            done.set()
        return 0.01

    with repeating(action, 0.01, "action"):
        assert done.wait(5)
    n_calls = len(calls)
    assert n_calls >= 4
    assert [thread for thread in threading.enumerate() if thread.name == "action"] == []


def test_another_error_is_raised_when_the_body_has_ended():
    failed, again = threading.Event(), threading.Event()

    def action():
        (again if failed.is_set() else failed).set()
        raise ZeroDivisionError

    def work():
        with repeating(action, 0.01, "action"):
            assert again.wait(5)  # it is repeated

    with pytest.raises(ZeroDivisionError):
        work()


def test_error_of_the_body_comes_first():
    def action():
        raise ZeroDivisionError

    def work():
        with repeating(action, 0.0, "action"):
            raise KeyError("work")

    with pytest.raises(KeyError, match="work"):
        work()
