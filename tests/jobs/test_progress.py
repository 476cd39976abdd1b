import threading
import time

import pytest

from musictag.errors import StoreError
from musictag.jobs import progress


def test_bar_follows_the_number_of_done_items(capsys, monkeypatch):
    monkeypatch.setattr(progress, "POLL_S", 0.01)
    done, asked = [0], threading.Event()

    def count():
        asked.set()
        return done[0]

    with progress.polling_bar("featurize", 40, count):
        assert asked.wait(5)
        done[0] = 25
        time.sleep(0.05)
        done[0] = 40
    text = capsys.readouterr().err
    assert "featurize:   0%" in text
    assert "featurize: 100%" in text
    assert "40/40" in text
    assert "track" in text


def test_bar_never_exceeds_its_total(capsys, monkeypatch):
    monkeypatch.setattr(progress, "POLL_S", 0.01)
    with progress.polling_bar("tag", 3, lambda: 7):
        pass
    assert "3/3" in capsys.readouterr().err


def test_store_error_stops_the_bar_only(capsys, monkeypatch):
    monkeypatch.setattr(progress, "POLL_S", 0.01)

    def done():
        raise StoreError("no answer")

    with progress.polling_bar("tag", 3, done):
        time.sleep(0.03)
    assert "0/3" in capsys.readouterr().err


def test_no_bar_without_items(capsys):
    with progress.polling_bar("tag", 0, lambda: 0):
        pass
    assert capsys.readouterr().err == ""


def is_of_tqdm(thread):
    return type(thread).__module__.startswith("tqdm")


def test_polling_stops_when_the_work_fails(capsys, monkeypatch):
    monkeypatch.setattr(progress, "POLL_S", 0.01)
    before = {*threading.enumerate()}
    with pytest.raises(ZeroDivisionError), progress.polling_bar("tag", 3, lambda: 1):
        raise ZeroDivisionError
    # tqdm starts a thread of its own with the first bar of a process.
    assert [thread for thread in threading.enumerate() if thread not in before and not is_of_tqdm(thread)] == []
