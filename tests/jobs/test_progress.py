import datetime
import threading
import time

import pytest

from musictag.errors import StoreError
from musictag.jobs import ledger, progress
from musictag.jobs.ledger import Account
from musictag.jobs.plan import ExistingRow, FailedTrack, echo_plan, make_plan


def test_progress_follows_what_is_done_and_ends_there(capsys, monkeypatch):
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


def test_progress_never_exceeds_its_total(capsys, monkeypatch):
    monkeypatch.setattr(progress, "POLL_S", 0.01)
    with progress.polling_bar("tag", 3, lambda: 7):
        pass
    assert "3/3" in capsys.readouterr().err


def test_a_store_that_does_not_answer_stops_the_bar_and_not_the_work(capsys, monkeypatch):
    monkeypatch.setattr(progress, "POLL_S", 0.01)

    def done():
        raise StoreError("no answer")

    with progress.polling_bar("tag", 3, done):
        time.sleep(0.03)
    assert "0/3" in capsys.readouterr().err


def test_nothing_to_do_shows_no_bar(capsys):
    with progress.polling_bar("tag", 0, lambda: 0):
        pass
    assert capsys.readouterr().err == ""


def test_progress_stops_watching_when_the_work_fails(capsys, monkeypatch):
    monkeypatch.setattr(progress, "POLL_S", 0.01)
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError), progress.polling_bar("tag", 3, lambda: 1):
        raise ZeroDivisionError
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("unlisted", "prune", "second"),
    [
        ((), False, ""),
        (("x",), False, "not listed any more: 1 track, kept (--prune removes them)\n"),
        (("x", "y"), False, "not listed any more: 2 tracks, kept (--prune removes them)\n"),
        (("x", "y"), True, "not listed any more: 2 tracks, removed\n"),
    ],
)
def test_a_plan_is_said_with_what_is_not_listed_any_more(capsys, unlisted, prune, second):
    held = {name: ExistingRow("", "", "") for name in ("a", *unlisted)}
    plan = make_plan([("a", "a", "e"), ("b", "b", "e")], held, "m", {}, 3)
    echo_plan("my/catalog.csv", plan, "to do", prune=prune)
    assert capsys.readouterr().out == "my/catalog.csv: 2 tracks listed, 2 to do\n" + second


def test_a_plan_is_said_with_what_is_given_up(capsys):
    failed = {"a": FailedTrack("a", "e", "AudioCorruptError", 3)}
    echo_plan("c.csv", make_plan([("a", "a", "e"), ("b", "b", "e")], {}, "m", failed, 3), "to do", prune=False)
    first, second = capsys.readouterr().out.splitlines()
    assert first == "c.csv: 2 tracks listed, 1 to do"
    assert second.startswith("1 of them are not tried again: they failed --max-attempts times")


def test_the_account_is_said_with_its_speed_and_places(capsys):
    started = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=10)
    ledger.echo_account(Account(12_000, 6_000, 5_990, 10), "data/features", "data/features-failures", started)
    failures, equation = capsys.readouterr().out.splitlines()
    assert failures == "10 failed: the reasons are in data/features-failures"
    assert equation.startswith("12,000 listed = 6,000 written + 5,990 unchanged + 10 failed (10.")
    assert "s, 2,1" in equation  # 6,000 tracks in 10 s: 2.16 million an hour
    assert equation.endswith("; data/features")


def test_an_account_without_work_tells_no_speed_and_no_failures(capsys):
    ledger.echo_account(Account(3, 0, 3, 0), "data/tags", "data/tags-failures", datetime.datetime.now(datetime.UTC))
    text = capsys.readouterr().out
    assert "per hour" not in text
    assert "failures" not in text
