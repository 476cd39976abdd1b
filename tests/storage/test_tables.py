import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from musictag.errors import StoreError
from musictag.storage import commits, data_files, tables
from sample_tables import SCHEMA, delete_tracks, make_table, rows


@pytest.fixture
def uri(tmp_path):
    return make_table(tmp_path)


def test_table_is_created_once_with_its_properties(tmp_path):
    uri = str(tmp_path / "table")
    tables.create_table(uri, SCHEMA, {"musictag.made": "first"})
    table = tables.create_table(uri, SCHEMA, {"musictag.made": "second"})
    assert table.version() == 0
    assert table.metadata().configuration["musictag.made"] == "first"


def test_table_of_an_earlier_version_gets_columns_and_properties(tmp_path):
    uri = str(tmp_path / "table")
    DeltaTable.create(uri, pa.schema([SCHEMA.field("track_id")]))
    table = tables.create_table(uri, SCHEMA)
    assert [field.name for field in table.schema().fields] == SCHEMA.names
    assert table.metadata().configuration["delta.setTransactionRetentionDuration"] == "interval 30 days"
    tables.create_table(uri, SCHEMA)
    assert tables.version(uri) == 2


def test_table_of_other_columns_is_refused(uri):
    with pytest.raises(StoreError, match="has the columns track_id, n instead of track_id, m"):
        tables.create_table(uri, pa.schema([("track_id", pa.string()), ("m", pa.int32())]))


def test_refused_table_is_left_as_it_is(tmp_path):
    uri = str(tmp_path / "foreign")
    DeltaTable.create(uri, pa.schema([("id", pa.int64())]))
    with pytest.raises(StoreError, match="has the columns id instead of track_id, n"):
        tables.create_table(uri, SCHEMA)
    assert tables.version(uri) == 0


@pytest.mark.parametrize(("row_group_bytes", "n_groups"), [(1, [100]), (200, range(2, 100)), (1 << 20, [1])])
def test_rows_of_some_tracks_are_read_in_table_order(uri, monkeypatch, row_group_bytes, n_groups):
    monkeypatch.setattr(data_files, "ROW_GROUP_BYTES", row_group_bytes)
    commits.append_rows(uri, SCHEMA, rows(*(f"t{number:03}" for number in range(100))))
    wanted = ["t042", "t007", "absent", "t099"]
    found = list(tables.read_rows(uri, ("track_id", "n"), wanted))
    assert found == [{"track_id": f"t{number:03}", "n": number} for number in (7, 42, 99)]
    (file,) = tables.files(uri)
    assert pq.ParquetFile(f"{uri}/{file.path}").num_row_groups in n_groups


def test_rows_are_read_from_a_rewritten_file(uri):
    commits.append_rows(uri, SCHEMA, rows("a", "b", "c"))
    delete_tracks(uri, ["a"])
    assert list(tables.read_rows(uri, ("track_id",), ["a", "c"])) == [{"track_id": "c"}]
    (file,) = tables.files(uri)
    (read,) = tables.read_file(uri, file.path, SCHEMA, {"b"})
    assert read.schema == SCHEMA
    assert read.to_pylist() == [{"track_id": "b", "n": 1}]


def test_earlier_version_of_a_table_is_read(uri):
    commits.append_rows(uri, SCHEMA, rows("a", "b"))
    version = tables.version(uri)
    delete_tracks(uri, ["a"])
    commits.append_rows(uri, SCHEMA, rows("c"))
    assert tables.track_ids(uri) == {"b", "c"}
    assert tables.track_ids(uri, version) == {"a", "b"}
    assert [row["track_id"] for row in tables.read_rows(uri, ("track_id",), ["a", "c"], version)] == ["a"]


def test_missing_table_has_no_rows_and_cannot_be_opened(tmp_path):
    uri = str(tmp_path / "none")
    assert not tables.table_exists(uri)
    assert tables.read_columns(uri, ("track_id", "n")).num_rows == 0
    assert tables.track_ids(uri) == set()
    with pytest.raises(StoreError, match=f"{uri}: there is none"):
        tables.open_table(uri)


def test_folder_without_a_table_cannot_be_opened(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(StoreError, match=str(tmp_path)):
        tables.open_table(str(tmp_path))


def test_table_with_a_corrupt_log_cannot_be_opened(uri, tmp_path):
    (tmp_path / "table" / "_delta_log" / f"{0:020}.json").write_text("not a log\n")
    with pytest.raises(StoreError, match=uri):
        tables.open_table(uri)


def test_table_without_a_data_file_cannot_be_read(uri, tmp_path):
    commits.append_rows(uri, SCHEMA, rows("a"))
    next((tmp_path / "table").glob("*.parquet")).unlink()
    with pytest.raises(StoreError, match=uri):
        tables.read_columns(uri, ("track_id",))


def test_table_cannot_be_created_at_a_file(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="file"):
        tables.create_table(str(tmp_path / "file"), SCHEMA)


def test_companion_uri():
    assert tables.companion_uri("s3://bucket/features/", "failures") == "s3://bucket/features-failures"


def test_damaged_bytes_are_an_error_that_names_the_file(tmp_path):
    uri, schema = str(tmp_path / "table"), pa.schema([("track_id", pa.string()), ("clips", pa.binary())])
    tables.create_table(uri, schema)
    cell = np.random.default_rng(0).bytes(100_000)  # which compression leaves as it is: nothing else would notice
    commits.append_rows(uri, schema, [{"track_id": "a", "clips": cell}])
    (path,) = (tmp_path / "table").glob("part-*")
    content = bytearray(path.read_bytes())
    content[50_000] ^= 1
    path.write_bytes(content)
    assert tables.track_ids(uri) == {"a"}
    with pytest.raises(StoreError, match=rf"{path.name}: could not verify page integrity"):
        list(tables.read_rows(uri, ("track_id", "clips"), ["a"]))


def test_store_that_cannot_be_asked_whether_a_table_exists_is_an_error():
    with pytest.raises(StoreError, match=r"^table abfs://c@a/x: ") as error:
        tables.read_columns("abfs://c@a/x", ("track_id",))
    assert "\n" not in str(error.value)
    assert "\x1b" not in str(error.value)


@pytest.mark.parametrize("name", ["per%20cent", "per%cent", "a%2Fb", "back\\slash", "in a per%20cent/table"])
def test_place_that_deltalake_reads_as_another_one_is_refused_before_anything_is_made(tmp_path, name):
    for use in (lambda uri: tables.create_table(uri, SCHEMA), tables.open_table, tables.table_exists):
        with pytest.raises(StoreError, match="the path of a table cannot hold"):
            use(str(tmp_path / name))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("uri", ["s3://bucket/a?b", "s3://bucket/a#b", "az://bucket/a\\b"])
def test_url_that_deltalake_reads_as_another_one_is_refused(uri):
    with pytest.raises(StoreError, match="the path of a table cannot hold"):
        tables.open_table(uri)


@pytest.mark.parametrize("name", ["with a space", "ä", "hash#", "question?", "star*", "br[a]cket", "colon:", "plus+"])
def test_place_with_other_characters_is_read_as_it_is_written(tmp_path, name):
    uri = str(tmp_path / name)
    tables.create_table(uri, SCHEMA)
    assert tables.table_exists(uri)
    assert [path.name for path in tmp_path.iterdir()] == [name]
