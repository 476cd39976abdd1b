import subprocess
import sys
import time
import types
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from musictag.errors import ConflictError, StoreError
from musictag.storage import checksums, commits, data_files, folders, retry, tables
from sample_tables import SCHEMA, make_table, rows


@pytest.fixture
def uri(tmp_path):
    return make_table(tmp_path)


def test_rows_are_appended_in_one_commit(uri):
    assert commits.append_rows(uri, SCHEMA, rows("a", "b")) == 2
    assert tables.version(uri) == 1
    assert tables.read_columns(uri, ("track_id", "n")).to_pylist() == rows("a", "b")


def test_files_have_about_the_usual_size_and_a_checksum(uri, monkeypatch):
    monkeypatch.setattr(data_files, "ROW_GROUP_BYTES", 100)
    monkeypatch.setattr(data_files, "FILE_BYTES", 400)
    files = data_files.write_rows(uri, SCHEMA, rows(*(f"t{n:03}" for n in range(100))))
    assert len(files) > 2
    assert sum(file.n_rows for file in files) == 100
    recorded = checksums.read_checksums(folders.open_folder(uri))
    for file in files:
        assert file.size == (Path(uri) / file.path).stat().st_size
        assert recorded[file.path] == checksums.file_sha256(Path(uri) / file.path)
    assert tables.track_ids(uri) == set()
    commits.add_files(uri, SCHEMA, files)
    assert tables.read_columns(uri, ("track_id",))["track_id"].to_pylist() != []
    assert sorted(tables.files(uri), key=str) == sorted(files, key=str)


@pytest.fixture
def silent_store(monkeypatch):
    """A store whose next answers to commits are lost, after it did what it was asked for or before."""
    pauses, lost = [], []
    monkeypatch.setattr(retry, "time", types.SimpleNamespace(sleep=pauses.append))
    ask = tables.DeltaTable.create_write_transaction

    def asked(table, *arguments, **options):
        is_done = lost.pop(0) if lost else None
        if is_done is not False:
            ask(table, *arguments, **options)
        if is_done is not None:
            raise OSError("operation timed out")

    monkeypatch.setattr(tables.DeltaTable, "create_write_transaction", asked)
    return lost, pauses


@pytest.mark.parametrize("is_done", [False, True])
def test_commit_without_response_is_there_once(uri, silent_store, is_done):
    lost, pauses = silent_store
    lost += [is_done]
    commits.append_rows(uri, SCHEMA, rows("a", "b"))
    assert tables.read_columns(uri, ("track_id", "n")).to_pylist() == rows("a", "b")
    assert len(pauses) == 1


@pytest.mark.parametrize("is_done", [False, True])
def test_removal_without_response_is_done_or_a_conflict(uri, silent_store, is_done):
    commits.append_rows(uri, SCHEMA, rows("a", "b"))
    lost, _ = silent_store
    lost += [is_done]
    if is_done:  # whether it was this commit is not known: the caller looks again
        with pytest.raises(ConflictError):
            commits.replace_files(uri, SCHEMA, tables.files(uri), [])
    else:
        commits.replace_files(uri, SCHEMA, tables.files(uri), [])
    assert tables.track_ids(uri) == set()


def test_store_that_never_answers_is_an_error(uri, silent_store):
    lost, pauses = silent_store
    lost += [False] * retry.TRIES
    with pytest.raises(StoreError, match="operation timed out"):
        commits.append_rows(uri, SCHEMA, rows("a"))
    assert len(pauses) == retry.TRIES - 1
    assert tables.track_ids(uri) == set()


def record(uri, name, number):
    commits.add_files(uri, SCHEMA, [], {name: number})


def test_recorded_numbers_are_forgotten_after_a_month(uri, monkeypatch):
    now = time.time()
    for name, days_ago in (("old", 31), ("recent", 29)):
        monkeypatch.setattr(commits, "time", types.SimpleNamespace(time=lambda days=days_ago: now - days * 86_400))
        record(uri, name, 7)
    assert commits.recorded_numbers(uri, ["old", "recent"]) == {"recent": 7}
    monkeypatch.undo()
    DeltaTable(uri).create_checkpoint()
    (checkpoint,) = Path(uri, "_delta_log").glob("*.parquet")
    assert [each["appId"] for each in pq.read_table(checkpoint)["txn"].to_pylist() if each] == ["recent"]


def test_number_that_is_recorded_already_is_a_conflict(uri):
    record(uri, "r1/0", 7)
    with pytest.raises(ConflictError, match="another run committed r1/0 meanwhile"):
        record(uri, "r1/0", 7)


def test_nothing_is_committed_without_rows(uri):
    assert commits.append_rows(uri, SCHEMA, []) == 0
    assert tables.version(uri) == 0


def test_interrupted_rows_are_not_committed(uri):
    def breaking():
        yield from rows("a", "b")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        commits.append_rows(uri, SCHEMA, breaking())
    assert tables.version(uri) == 0


def test_uncommitted_file_is_not_in_the_table(uri, tmp_path):
    commits.append_rows(uri, SCHEMA, rows("a"))
    pq.write_table(pa.Table.from_pylist(rows("z"), SCHEMA), tmp_path / "table" / "part-z.parquet")
    assert tables.track_ids(uri) == {"a"}


def test_files_committed_twice_count_once(uri):
    files = data_files.write_rows(uri, SCHEMA, rows("a", "b"))
    for _ in range(2):
        commits.add_files(uri, SCHEMA, files)
    assert tables.read_columns(uri, ("track_id",))["track_id"].to_pylist() == ["a", "b"]


def test_numbers_are_recorded_with_the_files_and_never_fall(uri):
    assert commits.recorded_numbers(uri, ["run/0", "run/1"]) == {}
    commits.add_files(uri, SCHEMA, data_files.write_rows(uri, SCHEMA, rows("a")), {"run/0": 3})
    commits.add_files(uri, SCHEMA, [], {"run/1": 0})  # a part in which every track failed
    assert commits.recorded_numbers(uri, ["run/0", "run/1", "run/2"]) == {"run/0": 3, "run/1": 0}
    again = data_files.write_rows(uri, SCHEMA, rows("b"))
    with pytest.raises(ConflictError, match="another run committed run/0 meanwhile: run again"):
        commits.add_files(uri, SCHEMA, again, {"run/0": 3})
    assert tables.track_ids(uri) == {"a"}


WRITER = """
import sys
import pyarrow as pa
from musictag.storage import commits
uri, name = sys.argv[1:]
schema = pa.schema([("track_id", pa.string()), ("n", pa.int32())])
for number in range(8):
    commits.append_rows(uri, schema, [{"track_id": f"{name}-{number}", "n": number}])
"""


@pytest.mark.slow
def test_files_are_removed_during_concurrent_writes(uri):
    for track_id in "abcdefgh":
        commits.append_rows(uri, SCHEMA, rows(track_id))
    old = tables.files(uri)
    writer = subprocess.Popen([sys.executable, "-c", WRITER, uri, "w"])
    for file in old:
        commits.replace_files(uri, SCHEMA, [file], [])
    assert writer.wait(timeout=600) == 0
    assert tables.track_ids(uri) == {f"w-{number}" for number in range(8)}


@pytest.mark.slow
def test_concurrent_writers_lose_no_row(uri):
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, uri, name]) for name in "abc"]
    assert [writer.wait(timeout=600) for writer in writers] == [0, 0, 0]
    expected = sorted(f"{name}-{number}" for name in "abc" for number in range(8))
    assert sorted(tables.read_columns(uri, ("track_id",))["track_id"].to_pylist()) == expected
    assert tables.version(uri) == 24
