import datetime

import pyarrow as pa
import pytest

from musictag.catalog.validation import Problem
from musictag.errors import AudioCorruptError, AudioUnreachableError, LedgerError
from musictag.jobs import ledger
from musictag.jobs.ledger import Account
from musictag.jobs.plan_files import Task
from musictag.storage import commits, queries, tables
from plans import BEFORE, ExistingRow, FailedTrack, planned

SCHEMA = pa.schema([("track_id", pa.string()), ("time", pa.timestamp("us", "UTC"))])
NOW = datetime.datetime.now(datetime.UTC)
EARLIER = NOW - datetime.timedelta(hours=1)
SIGNED = "https://me:pw@host/a.mp3?id=1&sig={}"
REDACTED = "https://***@host/a.mp3?id=1&sig=***"


@pytest.mark.parametrize(("error", "stage"), [(AudioUnreachableError, "fetch"), (AudioCorruptError, "decode")])
def test_failure_row_names_stage_error_and_attempt(error, stage):
    row = ledger.failure_row(Task("a", "a.mp3", "e1", 2), error("a.mp3: why"))
    assert [*row, "failed_at"] == ledger.FAILURES_SCHEMA.names
    assert tuple(row.values()) == (
        "a",
        "a.mp3",
        "e1",
        stage,
        error.__name__,
        "a.mp3: why",
        3,
    )


def test_failures_hold_no_secret(output):
    uri = SIGNED.format("secret")
    row = ledger.failure_row(Task("a", uri, None), AudioUnreachableError(f"{uri}: cannot be read: 403, url={uri!r}"))
    record_problems(output.failures, [Problem(1, "b", uri, f"uri {uri} is bad")])
    written = str([row, *tables.read_columns(output.failures, ledger.FAILURES_SCHEMA.names).to_pylist()])
    assert REDACTED in written
    assert "secret" not in written
    assert "pw" not in written


class Output:
    """A table of tracks and its failures."""

    def __init__(self, folder):
        self.uri, self.failures = str(folder / "tracks"), str(folder / "tracks-failures")
        tables.create_table(self.uri, SCHEMA)
        tables.create_table(self.failures, ledger.FAILURES_SCHEMA)

    def write(self, *track_ids, time=NOW):
        commits.append_rows(self.uri, SCHEMA, [{"track_id": track_id, "time": time} for track_id in track_ids])

    def fail(self, failed_at, *track_ids, stage="decode", attempts=1):
        rows = [
            {
                "track_id": track_id,
                "uri": f"{track_id}.mp3",
                "audio_etag": "e",
                "stage": stage,
                "error": "AudioCorruptError",
                "attempts": attempts,
                "failed_at": failed_at,
            }
            for track_id in track_ids
        ]
        commits.append_rows(self.failures, ledger.FAILURES_SCHEMA, rows)

    def failed(self):
        with queries.connect() as connection:
            ledger.load_earlier_failures(connection, self.failures)
            rows = connection.sql("SELECT track_id, uri, audio_etag, error, attempts FROM failed").fetchall()
        return {track_id: FailedTrack(*failure) for track_id, *failure in rows}

    def attempts(self):
        return {track_id: failed.attempts for track_id, failed in self.failed().items()}

    def account(self, listed, existing=None, problems=(), failed=None, *, prune=False):
        with planned(listed, existing, self.failed() if failed is None else failed, problems) as made:
            queries.load(made.connection, "rows_now", tables.scan(self.uri, ("track_id", "time")))
            ledger.load_present_failures(made.connection, self.failures)
            account = ledger.make_account(made.connection, made.plan, self.failures, NOW)
            ledger.delete_resolved_failures(made.connection, self.failures, NOW, prune=prune)
        return account


def record_problems(failures_uri, problems, failed=None):
    with planned([], failed=failed, problems=problems) as made:
        ledger.record_problems(made.connection, failures_uri)


@pytest.fixture
def output(tmp_path):
    return Output(tmp_path)


def listed(*track_ids):
    return [(track_id, f"{track_id}.mp3", "e") for track_id in track_ids]


def test_account_adds_up(output):
    output.write("new 1", "new 2")
    output.write("kept", time=BEFORE)
    output.fail(NOW, "bad")
    problem = Problem(9, "broken", "", "why")
    record_problems(output.failures, [problem], {"broken": FailedTrack("", None, "CatalogError", 1)})
    existing = {"kept": ExistingRow("kept.mp3", "e", "producer")}
    account = output.account(listed("new 1", "new 2", "bad", "kept"), existing, [problem])
    assert account == Account(listed=5, written=2, unchanged=1, failed=2)
    assert account.listed == account.written + account.unchanged + account.failed
    assert str(account) == "5 listed = 2 written + 1 unchanged + 2 failed"
    assert output.attempts() == {"bad": 1, "broken": 2}


def test_missing_track_is_named(output):
    output.write("a")
    with pytest.raises(LedgerError, match="1 of 2 tracks are neither written nor failed, such as lost"):
        output.account(listed("a", "lost"))


def test_failure_of_an_earlier_run_does_not_count(output):
    output.fail(EARLIER, "a")
    with pytest.raises(LedgerError, match="such as a"):
        output.account(listed("a"))


def test_failed_track_with_an_old_row_counts_as_failed(output):
    output.write("a", time=BEFORE)
    output.fail(NOW, "a")
    account = output.account([("a", "a.mp3", None)], {"a": ExistingRow("a.mp3", "e", "producer")})
    assert account == Account(listed=1, written=0, unchanged=0, failed=1)


def test_resolved_failures_are_deleted(output):
    output.write("resolved")
    output.write("unchanged again", time=BEFORE)
    output.fail(EARLIER, "resolved", "still bad", "unchanged again", "of another catalog")
    output.fail(EARLIER, "row 7", stage="catalog")
    output.fail(NOW, "still bad", attempts=2)
    existing = {"unchanged again": ExistingRow("unchanged again.mp3", "e", "producer")}
    output.account(listed("resolved", "still bad", "unchanged again"), existing)
    assert output.attempts() == {"still bad": 2, "of another catalog": 1}
    assert tables.read_columns(output.failures, ("track_id",)).num_rows == 2


def test_prune_deletes_failures_of_unlisted_tracks(output):
    output.write("a")
    output.fail(EARLIER, "a", "gone")
    output.fail(NOW, "bad")
    output.account(listed("a", "bad"), prune=True)
    assert output.attempts() == {"bad": 1}


def test_with_prune_failures_stay_that_may_be_listed_in_a_folder_that_cannot_be_read(output):
    output.fail(EARLIER, "CD1/1", "CD2/1")
    closed = Problem(None, "CD1/", "/music/CD1", "the folder cannot be listed")
    output.account([], problems=[closed], prune=True)
    assert output.attempts() == {"CD1/1": 1}


def test_track_with_an_unknown_etag_is_missing_if_it_has_only_its_earlier_row(output):
    output.write("a", time=BEFORE)
    with pytest.raises(LedgerError, match="such as a"):
        output.account([("a", "a.mp3", None)], {"a": ExistingRow("a.mp3", "e", "producer")})


@pytest.mark.parametrize("prune", [False, True])
def test_exhausted_track_counts_as_failed_and_keeps_its_failure(output, prune):
    output.write("a")
    output.fail(EARLIER, "bad", attempts=3)
    account = output.account(listed("a", "bad"), prune=prune)
    assert account == Account(listed=2, written=1, unchanged=0, failed=1)
    assert output.attempts() == {"bad": 3}


def test_exhausted_track_without_failure_is_missing(output):
    failed = {"bad": FailedTrack("bad.mp3", "e", "AudioCorruptError", 3)}
    with pytest.raises(LedgerError, match="such as bad"):
        output.account(listed("bad"), failed=failed)


def test_failure_with_most_attempts_counts(output):
    output.fail(EARLIER, "a", attempts=3)
    output.fail(EARLIER, "a", "b", attempts=1)
    assert output.failed() == {
        "a": FailedTrack("a.mp3", "e", "AudioCorruptError", 3),
        "b": FailedTrack("b.mp3", "e", "AudioCorruptError", 1),
    }


def test_a_job_that_tries_all_tracks_again_has_no_failed_track(output):
    output.fail(EARLIER, "a", attempts=3)
    with queries.connect() as connection:
        ledger.load_earlier_failures(connection, None)
        assert connection.sql("SELECT * FROM failed").fetchall() == []


def test_catalog_problem_is_recorded_with_its_row(output):
    record_problems(output.failures, [Problem(4, "a", "a.mp3", "unknown split")])
    [row] = tables.read_columns(output.failures, ledger.FAILURES_SCHEMA.names).to_pylist()
    assert (row["stage"], row["error"], row["message"]) == ("catalog", "CatalogError", "row 4: unknown split")


@pytest.mark.parametrize(("failed", "allowed"), [(0, 0.0), (10, 0.1), (100, 1.0)])
def test_as_many_failures_as_allowed_pass(failed, allowed):
    ledger.check_failures(Account(100, 100 - failed, 0, failed), allowed, "failures")


@pytest.mark.parametrize(("failed", "allowed"), [(1, 0.0), (11, 0.1)])
def test_more_failures_than_allowed_are_refused(failed, allowed):
    with pytest.raises(
        LedgerError, match=f"{failed} of 100 tracks failed, more than --max-failures {allowed}.*t-failures"
    ):
        ledger.check_failures(Account(100, 100 - failed, 0, failed), allowed, "t-failures")


def test_empty_catalog_has_no_failure():
    ledger.check_failures(Account(0, 0, 0, 0), 0.0, "failures")


def test_account_is_printed_with_speed_and_uris(capsys):
    started = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=10)
    ledger.echo_account(Account(12_000, 6_000, 5_990, 10), "data/features", "data/features-failures", started)
    failures, equation = capsys.readouterr().out.splitlines()
    assert failures == "10 failed: the reasons are in data/features-failures"
    assert equation.startswith("12,000 listed = 6,000 written + 5,990 unchanged + 10 failed (10.")
    assert "s, 2,1" in equation  # 6,000 tracks in 10 s: 2.16 million an hour
    assert equation.endswith("; data/features")


def test_cost_is_printed_for_a_million_tracks(capsys):
    cost = ledger.Cost(n_tracks=6_010, core_seconds=3_005.0, gpu_seconds=60.1)
    now = datetime.datetime.now(datetime.UTC)
    ledger.echo_account(Account(12_000, 6_000, 5_990, 10), "data/tags", "data/tags-failures", now, cost)
    _, equation = capsys.readouterr().out.splitlines()
    expected = "0.5 core-seconds a track (139 core-hours for a million), 0.01 GPU-seconds a track (3 GPU-hours for a"
    assert expected in equation


def test_account_without_work_is_printed_without_speed(capsys):
    ledger.echo_account(Account(3, 0, 3, 0), "data/tags", "data/tags-failures", datetime.datetime.now(datetime.UTC))
    text = capsys.readouterr().out
    assert "per hour" not in text
    assert "failures" not in text
