"""Rows whose audio has another uri, time or id are copied; all other audio is decoded."""

import datetime
import time
from typing import NamedTuple

import pyarrow as pa
import pytest

from musictag.catalog.validation import Problem
from musictag.features.limits import Limits
from musictag.jobs import copy_sources
from musictag.jobs.output import Output
from musictag.jobs.plan_files import CopySource, Task
from musictag.storage import commits, tables
from plans import ExistingRow, planned
from sample_tables import delete_tracks

SCHEMA = pa.schema(
    [
        ("track_id", pa.string()),
        ("audio_sha256", pa.string()),
        ("duration_s", pa.float64()),
        ("damaged_s", pa.float64()),
        ("made_at", pa.timestamp("us", "UTC")),
    ]
)
LIMITS = Limits(max_damage=0.05)
MOMENT = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


@pytest.fixture
def uri(tmp_path):
    """A table of four tracks: `b` is damaged, the damage of `a` and the digest of `unknown` are not known."""
    uri = str(tmp_path / "rows")
    tables.create_table(uri, SCHEMA)
    rows = [("a", "da", None), ("b", "db", 0.3), ("gone", "dg", 0.0), ("unknown", None, 0.0)]
    commits.append_rows(
        uri, SCHEMA, [dict(zip(SCHEMA.names, (*row[:2], 10.0, row[2], MOMENT), strict=True)) for row in rows]
    )
    return uri


class Recognized(NamedTuple):
    known: dict[str, str]
    """The digest of the row to copy, by track."""
    stale: set[str]
    orphaned: set[str]
    hidden: set[str]


def recognized(uri, listed, existing, problems=()) -> Recognized:
    (file,) = tables.files(uri)
    with planned(listed, existing, problems=problems, producer="p", file=file.path, copied_from=uri) as made:
        found = made.connection.sql("SELECT track_id, source_sha256 FROM copy_sources").fetchall()
        return Recognized(dict(found), made.stale, made.orphaned, made.hidden)


@pytest.mark.parametrize(
    ("row", "listed", "is_known"),
    [
        (("a.mp3", "5-1.0"), ("a.mp3", "5-2.0"), True),  # touched
        (("old/a.mp3", "5-1.0"), ("new/a.mp3", "5-1.0"), True),  # moved
        (("a.mp3", "5-1.0"), ("s3://b/a.mp3", "0123abcd"), True),  # the new store tells no size
        (("a.mp3", "5-1.0"), ("a.mp3", "6-2.0"), False),  # another size
        (("a.mp3", "5-1.0"), ("b.mp3", "6-1.0"), False),
    ],
)
def test_row_of_the_same_track_is_known_unless_the_size_differs(uri, row, listed, is_known):
    plan = recognized(uri, [("a", *listed)], {"a": ExistingRow(*row, "p")})
    assert plan.known == ({"a": "da"} if is_known else {})
    assert plan.stale == {"a"}


def test_row_of_other_settings_or_without_a_digest_is_not_known(uri):
    existing = {"a": ExistingRow("old.mp3", "5-1.0", "other"), "unknown": ExistingRow("old.mp3", "6-1.0", "p")}
    plan = recognized(uri, [("a", "a.mp3", "5-1.0"), ("unknown", "u.mp3", "6-1.0")], existing)
    assert plan.known == {}
    assert plan.stale == {"a", "unknown"}


@pytest.mark.parametrize(
    ("listed", "is_known"),
    [
        (("new/gone.mp3", "5-1.0"), True),
        (("new/other name.mp3", "5-1.0"), True),  # the same size and time
        (("new/gone.mp3", "5-2.0"), True),  # the same name and size
        (("new/gone.mp3", "6-2.0"), False),
        (("new/other name.mp3", "5-2.0"), False),
    ],
)
def test_new_track_may_have_the_audio_of_one_that_is_not_listed_any_more(uri, listed, is_known):
    existing = {"gone": ExistingRow("old/gone.mp3", "5-1.0", "p"), "b": ExistingRow("b.mp3", "5-1.0", "p")}
    plan = recognized(uri, [("new", *listed), ("b", "b.mp3", "5-1.0")], existing)
    assert plan.known == ({"new": "dg"} if is_known else {})
    assert plan.orphaned == {"gone"}


def test_unreadable_catalog_row_does_not_keep_moved_audio_from_being_recognized(uri):
    existing = {"gone": ExistingRow("old/gone.mp3", "5-1.0", "p")}
    broken = Problem(7, "row 7", "", "not JSON", hides_any_track=True)
    plan = recognized(uri, [("new", "new/gone.mp3", "5-1.0")], existing, [broken])
    assert plan.known == {"new": "dg"}
    assert (plan.hidden, plan.orphaned) == ({"gone"}, set())


def copied(task: Task, sha256: str, uri: str, limits: Limits = LIMITS):
    row = copy_sources.find_row(task, sha256, Output(uri, SCHEMA, "made_at", "p"), limits)
    assert row is None or row.pop("made_at") <= datetime.datetime.now(datetime.UTC)
    return row


def task_with_source(uri: str, track_id: str = "gone", sha256: str = "dg") -> Task:
    (file,) = tables.files(uri)
    return Task("new", "uri", "e", copy_source=CopySource(track_id, sha256, file.path))


def test_row_is_copied_only_for_the_same_digest(uri):
    task = task_with_source(uri)
    expected = {"track_id": "gone", "audio_sha256": "dg", "duration_s": 10.0, "damaged_s": 0.0}
    assert copied(task, "dg", uri) == expected
    assert copied(task, "other", uri) is None
    assert copied(Task("new", "uri", "e"), "dg", uri) is None


def test_row_is_copied_after_it_was_deleted(uri):
    task = task_with_source(uri)
    delete_tracks(uri, {"gone"})
    assert copied(task, "dg", uri)["audio_sha256"] == "dg"


def test_row_with_more_damage_than_allowed_or_with_unknown_damage_is_not_copied(uri):
    damaged = task_with_source(uri, "b", "db")
    assert copied(damaged, "db", uri, Limits(max_damage=0.02)) is None
    assert copied(damaged, "db", uri) is not None
    old = task_with_source(uri, "a", "da")
    assert copied(old, "da", uri) is None


def test_row_in_a_file_of_many_rows_is_not_copied(uri, monkeypatch):
    existing = {"a": ExistingRow("old.mp3", "5-1.0", "p")}
    monkeypatch.setattr(copy_sources, "_MAX_FILE_ROWS", 0)
    assert recognized(uri, [("a", "a.mp3", "5-1.0")], existing).known == {}


def test_tracks_of_a_store_without_sizes_have_no_source_by_name(uri):
    existing = {"gone": ExistingRow("s3://b/old.mp3", "0123", "p")}
    assert recognized(uri, [("new", "s3://b/new.mp3", "4567")], existing).known == {}
    assert recognized(uri, [("new", "s3://b/new.mp3", "0123")], existing).known == {"new": "dg"}


def test_audio_is_decoded_if_the_file_of_the_row_was_vacuumed(uri):
    task = Task("new", "uri", "e", copy_source=CopySource("gone", "dg", "part-vacuumed.parquet"))
    assert copied(task, "dg", uri) is None


def test_of_two_rows_of_a_track_in_one_file_that_with_the_digest_is_copied(tmp_path):
    uri = str(tmp_path / "joined")
    tables.create_table(uri, SCHEMA)
    rows = [("gone", "old", 10.0, 0.0), ("gone", "dg", 10.0, 0.0)]
    commits.append_rows(uri, SCHEMA, [dict(zip(SCHEMA.names, (*row, MOMENT), strict=True)) for row in rows])
    assert copied(task_with_source(uri), "dg", uri)["audio_sha256"] == "dg"


def test_of_two_rows_with_the_digest_in_one_file_the_newer_one_is_copied(tmp_path):
    uri = str(tmp_path / "joined")
    tables.create_table(uri, SCHEMA)
    rows = [("gone", "dg", seconds, 0.0, MOMENT + datetime.timedelta(seconds)) for seconds in (10.0, 30.0, 20.0)]
    commits.append_rows(uri, SCHEMA, [dict(zip(SCHEMA.names, row, strict=True)) for row in rows])
    assert copied(task_with_source(uri), "dg", uri)["duration_s"] == 30.0


def test_many_tracks_of_one_name_and_size_are_matched_in_linear_time(uri):
    n = 20_000
    existing = {f"gone {number}": ExistingRow(f"old/{number}/audio.wav", "5-1.0", "p") for number in range(n)}
    listed = [(f"new {number}", f"new/{number}/audio.wav", "5-2.0") for number in range(n)]
    started = time.perf_counter()
    with planned(listed, existing, producer="p", copied_from=uri) as made:
        assert made.connection.sql("SELECT count(*) FROM candidates").fetchall() == [(n,)]
    assert time.perf_counter() - started < 10  # all pairs would take minutes
