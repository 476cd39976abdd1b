"""Obsolete rows are removed file by file, and small files are joined."""

import datetime
import threading
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musictag.errors import ConflictError, StoreError
from musictag.storage import checksums, commits, data_files, folders, queries, rewrite, tables

SCHEMA = pa.schema([("track_id", pa.string()), ("clips", pa.binary()), ("made_at", pa.timestamp("us", "UTC"))])
MOMENT = datetime.datetime(2026, 11, 29, tzinfo=datetime.UTC)


def row(track_id, second=0):
    return {"track_id": track_id, "clips": track_id.encode(), "made_at": MOMENT + datetime.timedelta(seconds=second)}


def make_table(folder, files):
    uri = str(folder / "table")
    tables.create_table(uri, SCHEMA)
    for rows in files:
        commits.append_rows(uri, SCHEMA, rows)
    return uri


def contents(uri, version=None):
    rows = tables.read_columns(uri, ("track_id", "made_at"), version).to_pylist()
    return sorted((row["track_id"], (row["made_at"] - MOMENT).seconds) for row in rows)


def remove(uri, where):
    """Remove the rows for which an SQL condition on `file`, `track_id` and `time` holds."""
    with queries.connect() as connection:
        found = tables.scan(uri, ("file", "track_id", "made_at")).read_all()
        connection.register("found", found.rename_columns(["file", "track_id", "time"]))
        connection.execute(f"CREATE TABLE gone AS SELECT * FROM found WHERE {where}")
        return rewrite.remove_rows(connection, "gone", uri, "made_at")


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abcde"), min_size=1, max_size=6), min_size=1, max_size=4),
    st.sets(st.sampled_from("abcde")),
)
def test_exactly_the_obsolete_rows_are_removed(tmp_path_factory, files, obsolete):
    uri = make_table(tmp_path_factory.mktemp("t"), [[row(name) for name in names] for names in files])
    before = contents(uri)
    removed = remove(uri, f"track_id IN ({', '.join(repr(name) for name in sorted(obsolete)) or 'NULL'})")
    assert contents(uri) == [each for each in before if each[0] not in obsolete]
    assert removed == len(before) - len(contents(uri))


def test_a_file_without_obsolete_rows_stays_and_a_whole_file_is_removed_unread(tmp_path):
    uri = make_table(tmp_path, [[row("a")], [row("b"), row("c")], [row("d")]])
    before = tables.files(uri)
    gone = next(file for file in before if file.n_rows == 2)
    (tmp_path / "table" / gone.path).write_bytes(b"cannot be read")
    with queries.connect() as connection:
        rows = pa.table({"file": [gone.path] * 2, "track_id": ["b", "c"], "time": [MOMENT] * 2})
        connection.register("gone", rows)
        assert rewrite.remove_rows(connection, "gone", uri, "made_at") == 2
    assert sorted(file.path for file in tables.files(uri)) == sorted(file.path for file in before if file is not gone)


def test_of_equal_rows_one_is_kept(tmp_path):
    uri = make_table(tmp_path, [[row("a"), row("a"), row("a"), row("b")]])
    (file,) = tables.files(uri)
    with queries.connect() as connection:
        connection.register("twice", pa.table({"file": [file.path] * 2, "track_id": ["a"] * 2, "time": [MOMENT] * 2}))
        rewrite.remove_rows(connection, "twice", uri, "made_at")
    assert contents(uri) == [("a", 0), ("b", 0)]


def test_new_files_have_checksums_and_older_versions_stay(tmp_path):
    uri = make_table(tmp_path, [[row("a"), row("b")]])
    version = tables.version(uri)
    remove(uri, "track_id = 'a'")
    assert contents(uri, version) == [("a", 0), ("b", 0)]
    recorded = checksums.read_checksums(folders.open_folder(uri))
    for file in tables.files(uri):
        assert recorded[file.path] == checksums.file_sha256(Path(uri) / file.path)


def test_a_file_that_another_run_removed_is_a_conflict(tmp_path):
    uri = make_table(tmp_path, [[row("a"), row("b")]])
    (file,) = tables.files(uri)
    commits.replace_files(uri, SCHEMA, [file], [])
    with queries.connect() as connection:
        connection.register("gone", pa.table({"file": [file.path], "track_id": ["a"], "time": [MOMENT]}))
        with pytest.raises(ConflictError, match=file.path):
            rewrite.remove_rows(connection, "gone", uri, "made_at")


def test_two_writers_that_remove_one_file_conflict(tmp_path, monkeypatch):
    uri = make_table(tmp_path, [[row("a"), row("b")]])
    (file,) = tables.files(uri)
    opened = [tables.delta_table(uri)]  # before the other writer commits
    commits.replace_files(uri, SCHEMA, [file], [])
    monkeypatch.setattr(commits, "delta_table", lambda uri: opened.pop() if opened else tables.delta_table(uri))
    with pytest.raises(ConflictError, match="meanwhile"):
        commits.replace_files(uri, SCHEMA, [file], [])


def test_rows_that_are_appended_meanwhile_are_no_conflict(tmp_path):
    uri = make_table(tmp_path, [[row("a"), row("b")]])
    appends = threading.Thread(target=lambda: [commits.append_rows(uri, SCHEMA, [row(f"c{n}")]) for n in range(10)])
    appends.start()
    remove(uri, "track_id = 'a'")
    appends.join()
    assert contents(uri) == [("b", 0), *((f"c{n}", 0) for n in range(10))]


def test_files_of_older_schemas_are_written_with_all_columns(tmp_path):
    uri = str(tmp_path / "table")
    tables.create_table(uri, SCHEMA)
    commits.append_rows(uri, SCHEMA, [row("a"), row("b")])
    younger = pa.schema([*SCHEMA, ("silent", pa.bool_())])
    tables.create_table(uri, younger)
    remove(uri, "track_id = 'a'")
    assert tables.read_columns(uri, ("track_id", "silent")).to_pylist() == [{"track_id": "b", "silent": None}]


def test_small_files_are_joined_and_rows_stay(tmp_path):
    uri = make_table(tmp_path, [[row(f"t{n}", n)] for n in range(20)])
    version, before = tables.version(uri), contents(uri)
    assert rewrite.compact(uri) == rewrite.Compaction(20, 1)
    assert contents(uri) == contents(uri, version) == before
    assert rewrite.compact(uri) == rewrite.Compaction(1, 1)


def test_compaction_makes_row_groups_and_files_of_the_usual_size(tmp_path, monkeypatch):
    monkeypatch.setattr(data_files, "ROW_GROUP_BYTES", 60)
    monkeypatch.setattr(rewrite, "ROW_GROUP_BYTES", 60)
    uri = make_table(tmp_path, [[row(f"t{n}")] for n in range(20)])
    sizes = [file.size for file in tables.files(uri)]
    monkeypatch.setattr(rewrite, "FILE_BYTES", 5 * max(sizes))
    monkeypatch.setattr(rewrite, "_MAX_COMMITS", 2)
    version = tables.version(uri)
    assert rewrite.compact(uri) == rewrite.Compaction(20, 4)
    assert tables.version(uri) == version + 2
    assert contents(uri) == contents(uri, version)


def test_large_files_are_left_as_they_are(tmp_path, monkeypatch):
    uri = make_table(tmp_path, [[row("a")], [row("b")]])
    monkeypatch.setattr(rewrite, "_SMALL_BYTES", 1)
    files = tables.files(uri)
    rewrite.compact(uri)
    assert tables.files(uri) == files


def test_a_row_that_is_not_in_its_file_is_an_error_and_changes_nothing(tmp_path):
    uri = make_table(tmp_path, [[row("a"), row("b"), row("c")]])
    (file,) = tables.files(uri)
    version = tables.version(uri)
    with queries.connect() as connection:
        connection.register("gone", pa.table({"file": [file.path], "track_id": ["x"], "time": [MOMENT]}))
        with pytest.raises(StoreError, match=r"does not hold the rows to remove, such as that of x"):
            rewrite.remove_rows(connection, "gone", uri, "made_at")
    assert tables.version(uri) == version
