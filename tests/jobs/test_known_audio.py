"""Rows of audio that is known under another uri, time or id are copied; all others are decoded."""

import datetime

import pyarrow as pa
import pytest

from musictag.jobs import known_audio
from musictag.jobs.plan import ExistingRow, KnownAudio, Plan, Task, make_plan
from musictag.storage import parts, tables

SCHEMA = pa.schema([("track_id", pa.string()), ("audio_sha256", pa.string())])


@pytest.fixture
def uri(tmp_path):
    """A table with the digests of four tracks; that of `unknown` is null."""
    uri = str(tmp_path / "rows")
    tables.create_table(uri, SCHEMA)
    rows = [("a", "da"), ("b", "db"), ("gone", "dg"), ("unknown", None)]
    parts.write_rows(uri, "p", SCHEMA, [{"track_id": name, "audio_sha256": digest} for name, digest in rows])
    return uri


def recognized(uri: str, listed, existing: dict[str, ExistingRow]) -> Plan:
    return known_audio.recognize(make_plan(listed, existing, "p", {}, 3), existing, "p", uri)


def known(plan: Plan) -> dict[str, str]:
    return {task.track_id: task.known.audio_sha256 for task in plan.tasks if task.known}


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
    assert known(plan) == ({"a": "da"} if is_known else {})
    assert (plan.stale, plan.recognizable) == ((set(), {"a"}) if is_known else ({"a"}, set()))


def test_row_of_other_settings_or_without_a_digest_is_not_known(uri):
    existing = {"a": ExistingRow("old.mp3", "5-1.0", "other"), "unknown": ExistingRow("old.mp3", "6-1.0", "p")}
    plan = recognized(uri, [("a", "a.mp3", "5-1.0"), ("unknown", "u.mp3", "6-1.0")], existing)
    assert known(plan) == {}
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
    assert known(plan) == ({"new": "dg"} if is_known else {})
    assert plan.orphaned == {"gone"}
    assert plan.recognizable == set()  # the row of the other track stays, unless it is pruned


def test_row_is_copied_only_for_the_same_digest(uri):
    (file,) = tables.files(tables.open_table(uri))
    task = Task("new", "uri", "e", known=KnownAudio("gone", "dg", file))
    assert known_audio.find_row(task, "dg", uri, SCHEMA) == {"track_id": "gone", "audio_sha256": "dg"}
    assert known_audio.find_row(task, "other", uri, SCHEMA) is None
    assert known_audio.find_row(Task("new", "uri", "e"), "dg", uri, SCHEMA) is None


def test_audio_is_decoded_if_the_file_of_the_row_was_vacuumed(uri):
    task = Task("new", "uri", "e", known=KnownAudio("gone", "dg", "part-vacuumed.parquet"))
    assert known_audio.find_row(task, "dg", uri, SCHEMA) is None


def test_earlier_rows_are_deleted_at_the_end(tmp_path):
    started = datetime.datetime.now(datetime.UTC)
    schema = pa.schema([("track_id", pa.string()), ("at", pa.timestamp("us", "UTC"))])
    uri = str(tmp_path / "rows")
    tables.create_table(uri, schema)
    old = started - datetime.timedelta(days=1)
    parts.write_rows(uri, "1", schema, [{"track_id": name, "at": old} for name in ("written", "failed", "other")])
    parts.write_rows(uri, "2", schema, [{"track_id": "written", "at": started + datetime.timedelta(seconds=1)}])
    tables.delete_tracks(uri, {"written", "failed"}, f"at < {tables.timestamp(started)}")
    assert sorted(tables.read_columns(uri, ("track_id",))["track_id"].to_pylist()) == ["other", "written"]
