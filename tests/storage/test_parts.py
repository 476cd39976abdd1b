import subprocess
import sys
import types

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from musictag.errors import StoreError
from musictag.storage import checksums, parts, retry, tables
from sample_tables import SCHEMA, make_table, rows


@pytest.fixture
def uri(tmp_path):
    return make_table(tmp_path)


def test_part_is_written_in_one_commit(uri):
    assert parts.write_rows(uri, "p", SCHEMA, rows("a", "b")) == 2
    assert tables.version(uri) == 1
    assert tables.read_columns(uri, ("track_id", "n")).to_pylist() == rows("a", "b")
    assert parts.write_table(uri, "q", SCHEMA, pa.Table.from_pylist(rows("c"), SCHEMA)) == 1
    assert tables.track_ids(uri) == {"a", "b", "c"}


@pytest.fixture
def silent_store(monkeypatch):
    """A store whose next answers to commits are lost, after it did what it was asked for or before."""
    pauses, lost = [], []
    monkeypatch.setattr(retry, "time", types.SimpleNamespace(sleep=pauses.append))
    for name in ("create_write_transaction", "delete"):
        ask = getattr(tables.DeltaTable, name)

        def asked(table, *arguments, ask=ask, **options):
            is_done = lost.pop(0) if lost else None
            if is_done is not False:
                ask(table, *arguments, **options)
            if is_done is not None:
                raise OSError("operation timed out")

        monkeypatch.setattr(tables.DeltaTable, name, asked)
    return lost, pauses


@pytest.mark.parametrize("is_done", [False, True])
def test_commit_without_response_is_there_once(uri, silent_store, is_done):
    lost, pauses = silent_store
    lost += [is_done]
    parts.write_rows(uri, "p", SCHEMA, rows("a", "b"))
    assert tables.read_columns(uri, ("track_id", "n")).to_pylist() == rows("a", "b")
    assert len(pauses) == 1
    lost += [is_done]
    tables.delete_tracks(uri, ["a"])
    assert tables.track_ids(uri) == {"b"}
    assert checksums.read_checksums(tables.folder(uri)).keys() >= tables.files(tables.open_table(uri)).keys()


def test_store_that_never_answers_is_an_error(uri, silent_store):
    lost, pauses = silent_store
    lost += [False] * retry.TRIES
    with pytest.raises(StoreError, match="operation timed out"):
        parts.write_rows(uri, "p", SCHEMA, rows("a"))
    assert len(pauses) == retry.TRIES - 1
    assert tables.track_ids(uri) == set()


def test_part_without_rows_commits_nothing(uri):
    assert parts.write_rows(uri, "p", SCHEMA, []) == 0
    assert parts.write_table(uri, "q", SCHEMA, SCHEMA.empty_table()) == 0
    assert tables.version(uri) == 0


def test_interrupted_part_is_not_committed(uri):
    def breaking():
        yield from rows("a", "b")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        parts.write_rows(uri, "p", SCHEMA, breaking())
    assert tables.version(uri) == 0
    assert tables.track_ids(uri) == set()
    assert not parts.is_done(uri, "p", 0)
    assert parts.write_rows(uri, "p", SCHEMA, rows("a", "b")) == 2
    assert tables.track_ids(uri) == {"a", "b"}


def test_uncommitted_file_is_not_in_the_table(uri, tmp_path):
    parts.write_rows(uri, "p", SCHEMA, rows("a"))
    pq.write_table(pa.Table.from_pylist(rows("z"), SCHEMA), tmp_path / "table" / "part-z.parquet")
    assert tables.track_ids(uri) == {"a"}


def test_repeated_part_is_found_committed(uri):
    assert not parts.is_done(uri, "p", 0)
    parts.write_rows(uri, "p", SCHEMA, rows("a"))
    assert parts.is_done(uri, "p", 0)
    assert not parts.is_done(uri, "q", 0)


def test_part_committed_twice_counts_once(uri):
    for _ in range(2):
        parts.write_rows(uri, "p", SCHEMA, rows("a", "b"))
    assert tables.read_columns(uri, ("track_id",))["track_id"].to_pylist() == ["a", "b"]


def test_part_of_an_earlier_version_does_not_count(uri):
    parts.write_rows(uri, "p", SCHEMA, rows("a"))
    tables.delete_tracks(uri, ["a"])
    since = tables.version(uri)
    assert not parts.is_done(uri, "p", since)
    assert parts.write_rows(uri, "p", SCHEMA, rows("a"), since) == 1
    assert parts.is_done(uri, "p", since)
    assert parts.write_rows(uri, "p", SCHEMA, rows("a"), since) == 0
    assert tables.track_ids(uri) == {"a"}


WRITER = """
import sys
import pyarrow as pa
from musictag.storage import parts
uri, name = sys.argv[1:]
schema = pa.schema([("track_id", pa.string()), ("n", pa.int32())])
for number in range(8):
    parts.write_rows(uri, f"{name}-{number}", schema, [{"track_id": f"{name}-{number}", "n": number}])
"""


@pytest.mark.slow
def test_concurrent_writers_of_the_same_parts_write_each_once(uri):
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, uri, "same"]) for _ in range(3)]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0, 0]
    expected = [f"same-{number}" for number in range(8)]
    assert sorted(tables.read_columns(uri, ("track_id",))["track_id"].to_pylist()) == expected


@pytest.mark.slow
def test_rows_are_deleted_during_concurrent_writes(uri):
    parts.write_rows(uri, "p", SCHEMA, rows(*"abcdefgh"))
    writer = subprocess.Popen([sys.executable, "-c", WRITER, uri, "w"])
    for track_id in "abcdefg":
        tables.delete_tracks(uri, [track_id])
    assert writer.wait(timeout=120) == 0
    assert tables.track_ids(uri) == {"h", *(f"w-{number}" for number in range(8))}


@pytest.mark.slow
def test_concurrent_writers_lose_no_row(uri):
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, uri, name]) for name in "abc"]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0, 0]
    expected = sorted(f"{name}-{number}" for name in "abc" for number in range(8))
    assert sorted(tables.read_columns(uri, ("track_id",))["track_id"].to_pylist()) == expected
    assert tables.version(uri) == 24
