"""DuckDB over Arrow: bounded memory, text by its bytes, nothing left behind."""

import datetime
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pytest

import sample_tables
from musictag.errors import StoreError
from musictag.storage import commits, queries, tables


def test_text_is_compared_by_its_bytes():
    with queries.connect() as connection:
        connection.register("ids", pa.table({"track_id": ["a", "A", "é", "e\u0301", "a\0b", "a"]}))
        assert connection.execute("SELECT count(DISTINCT track_id) FROM ids").fetchall() == [(5,)]


def test_a_long_query_draws_no_bar():
    with queries.connect() as connection:
        assert connection.execute("SELECT current_setting('enable_progress_bar')").fetchall() == [(False,)]


def test_error_of_a_reader_is_an_error_of_the_store_with_its_reason():
    def batches():
        yield pa.record_batch([pa.array(["a"])], ["track_id"])
        raise StoreError("table /a: no such file")

    def count():
        with queries.connect() as connection:
            schema = pa.schema([("track_id", pa.string())])
            connection.register("ids", pa.RecordBatchReader.from_batches(schema, batches()))
            return connection.execute("SELECT count(*) FROM ids").fetchall()

    with pytest.raises(StoreError, match=r"table /a: no such file\.$"):
        count()


def test_error_of_a_reader_that_is_loaded_is_raised_as_it_is():
    def batches():
        yield pa.record_batch({"track_id": ["a"]})
        raise StoreError("the store does not answer")

    rows = pa.RecordBatchReader.from_batches(pa.schema([("track_id", pa.string())]), batches())
    with pytest.raises(StoreError, match=r"^the store does not answer$"), queries.connect() as connection:
        queries.load(connection, "tracks", rows)


def test_the_temporary_folder_is_deleted(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with queries.connect() as connection:
        connection.execute("CREATE TABLE numbers AS SELECT range FROM range(100000)")
        assert list(tmp_path.iterdir())
    assert not list(Path(tmp_path).iterdir())


def test_a_scan_reads_columns_and_the_names_of_files(tmp_path):
    uri = sample_tables.make_table(tmp_path)
    commits.append_rows(uri, sample_tables.SCHEMA, sample_tables.rows("a", "b"))
    commits.append_rows(uri, sample_tables.SCHEMA, sample_tables.rows("c"))
    sample_tables.delete_tracks(uri, ["a"])  # the rest of the file has text as string_view
    found = tables.scan(uri, ("track_id", "later", "file"), added=("later",)).read_all()
    assert found.schema.types == [pa.string(), pa.null(), pa.string()]
    assert sorted(found["track_id"].to_pylist()) == ["b", "c"]
    assert set(found["file"].to_pylist()) == {file.path for file in tables.files(uri)}


def test_a_scan_of_no_table_has_no_rows(tmp_path):
    assert tables.scan(str(tmp_path / "none"), ("track_id",)).read_all().num_rows == 0


def test_times_of_the_hour_that_is_repeated_in_autumn_are_equal(monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    moment = datetime.datetime(2026, 10, 25, 0, 30, tzinfo=datetime.UTC)
    with queries.connect() as connection:
        connection.register("rows", pa.table({"time": pa.array([moment], pa.timestamp("us", "UTC"))}))
        (read,) = connection.table("rows").to_arrow_table()["time"].to_pylist()
    monkeypatch.undo()
    time.tzset()
    assert read == moment
