import datetime
from pathlib import Path

import pyarrow as pa

import sample_tables
from musictag.storage import commits, queries, tables
from musictag.tagging.table import (
    ADDED_COLUMNS,
    TAGS_SCHEMA,
    UNKNOWN_MODEL,
    FindDigest,
    ModelIdentity,
    load_rows,
)

MODEL = ModelIdentity("musictag", "7", "d7")
NOW = datetime.datetime(2026, 11, 28, tzinfo=datetime.UTC)


def write_tags(uri: str, schema: pa.Schema, *rows: tuple[str, str, str | None]) -> None:
    """Write rows with a track_id, a version and a digest of the model."""
    tables.create_table(uri, schema)
    fields = [
        {"track_id": track_id, "uri": "a", "audio_etag": "e", "model": "musictag", "model_version": version,
         "model_digest": digest, "tagged_at": NOW}
        for track_id, version, digest in rows
    ]  # fmt: skip
    names = schema.names
    commits.append_rows(uri, schema, [{name: row[name] for name in row.keys() & set(names)} for row in fields])


def test_rows_are_known_by_the_digest_of_their_model(tmp_path: Path) -> None:
    uri = str(tmp_path / "tags")
    write_tags(uri, TAGS_SCHEMA, ("a", "1", "d1"), ("b", "1", "another"), ("c", "2", "d1"))
    assert producers(uri, never) == {"a": "d1", "b": "another", "c": "d1"}


def producers(uri: str, find_digest: FindDigest) -> dict[str, str]:
    with queries.connect() as connection:
        load_rows(connection, "rows", uri, find_digest)
        return dict(connection.sql("SELECT track_id, producer FROM rows").fetchall())


def test_rows_are_loaded_with_their_time_and_file(tmp_path: Path) -> None:
    uri = str(tmp_path / "tags")
    write_tags(uri, TAGS_SCHEMA, ("a", "1", "d1"))
    (file,) = tables.files(uri)
    with queries.connect() as connection:
        load_rows(connection, "rows", uri, never)
        rows = connection.sql("SELECT track_id, uri, audio_etag, producer, time, file FROM rows").fetchall()
    assert rows == [("a", "a", "e", "d1", NOW, file.path)]


def never(name: str, version: str) -> None:
    raise AssertionError(name, version)


OLD_SCHEMA = pa.schema([field for field in TAGS_SCHEMA if field.name not in ADDED_COLUMNS])


def test_digest_of_older_rows_is_found_by_the_version_that_their_model_had_then(tmp_path: Path) -> None:
    uri, asked = str(tmp_path / "tags"), []
    write_tags(uri, OLD_SCHEMA, ("a", "1", None), ("b", "1", None), ("c", "2", None), ("d", "3", None))
    hour = datetime.timedelta(hours=1)

    def find_digest(name: str, version: str) -> tuple[str, datetime.datetime] | None:
        asked.append((name, version))
        return {"1": ("d1", NOW - hour), "2": ("made later", NOW + hour)}.get(version)

    assert producers(uri, find_digest) == {"a": "d1", "b": "d1", "c": UNKNOWN_MODEL, "d": UNKNOWN_MODEL}
    assert sorted(asked) == [("musictag", version) for version in "123"]  # once each


def test_older_table_gets_the_new_column_and_keeps_its_rows(tmp_path: Path) -> None:
    uri = str(tmp_path / "tags")
    write_tags(uri, OLD_SCHEMA, ("a", "1", None))
    tables.create_table(uri, TAGS_SCHEMA)
    commits.append_rows(uri, TAGS_SCHEMA, [{"track_id": "b", "model_digest": "d2", "tagged_at": NOW}])
    rows = tables.read_columns(uri, ("track_id", "model_digest")).to_pylist()
    assert {row["track_id"]: row["model_digest"] for row in rows} == {"a": None, "b": "d2"}
    read = tables.read_rows(uri, ("track_id", "model_digest"), {"a", "b"})
    assert {row["track_id"]: row["model_digest"] for row in read} == {"a": None, "b": "d2"}
    sample_tables.delete_tracks(uri, {"b"})
    assert tables.track_ids(uri) == {"a"}
