import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import sample_tables
from musictag.storage import commits, queries, tables
from musictag.tagging.table import (
    ADDED_COLUMNS,
    TAGS_SCHEMA,
    UNKNOWN_MODEL,
    FindDigest,
    ModelIdentity,
    feature_rows,
    load_rows,
    tag_rows,
)
from musictag.tagging.tagger import Tagger
from small import SPEC, small_model, track

MODEL = ModelIdentity("musictag", "7", "d7")
NOW = datetime.datetime(2026, 11, 28, tzinfo=datetime.UTC)


def test_tag_rows_have_the_identity_of_the_track_and_the_model() -> None:
    tagger, rows = Tagger(small_model(), SPEC), [stored(4, 1), stored(2, 2), stored(9, 3)]
    before = datetime.datetime.now(datetime.UTC)
    tagged = tag_rows(tagger, rows, MODEL)
    table = pa.Table.from_pylist(tagged, TAGS_SCHEMA)  # Every column is there, and of its type.
    assert set(tagged[0]) == set(TAGS_SCHEMA.names)
    for name in ("track_id", "uri", "audio_etag", "audio_sha256", "feature_hash", "damaged_s", "n_clips"):
        assert table[name].to_pylist() == [row[name] for row in rows], name
    assert set(zip(table["model"].to_pylist(), table["model_version"].to_pylist(), strict=True)) == {("musictag", "7")}
    assert set(table["model_digest"].to_pylist()) == {"d7"}
    scores = tagger.track_scores(rows)
    np.testing.assert_array_equal(np.array(table["scores"].to_pylist(), np.float32), scores)
    for row, expected in zip(tagged, scores, strict=True):
        assert [(tag["tag"], tag["score"]) for tag in row["tags"]] == tagger.tags_above(expected)
    assert any(row["tags"] for row in tagged)
    assert all(before <= at <= datetime.datetime.now(datetime.UTC) for at in table["tagged_at"].to_pylist())


def test_feature_rows_hold_their_cells_without_a_copy() -> None:
    cells = [b"first", None, b"", b"fourth", b"fifth"]
    table = pa.table({"track_id": list("abcde"), "clips": pa.array(cells, pa.binary())})
    chunked = pa.concat_tables(
        [table.slice(0, 2), table.slice(5), table.slice(2, 2), table.slice(4), table.slice(1, 1)]
    )
    rows = feature_rows(chunked)
    assert [row["track_id"] for row in rows] == [*"abcde", "b"]
    assert [bytes(row["clips"]) for row in rows] == [cell or b"" for cell in [*cells, None]]
    memory = table["clips"].chunk(0).buffers()[2]
    assert rows[3]["clips"].address == memory.address + len(b"first")
    assert feature_rows(table.slice(0, 0)) == []
    nulls = pa.table({"track_id": ["a"], "clips": pa.nulls(1, pa.binary())})
    assert [bytes(row["clips"]) for row in feature_rows(nulls)] == [b""]


def test_tags_of_a_table_are_those_of_its_rows() -> None:
    tagger, rows = Tagger(small_model(), SPEC), [stored(4, 1), stored(2, 2), stored(9, 3)]
    cells = [{**row, "clips": bytes(row["clips"])} for row in rows]
    of_table, of_rows = (tag_rows(tagger, some, MODEL) for some in (feature_rows(pa.Table.from_pylist(cells)), rows))
    assert [{**row, "tagged_at": None} for row in of_table] == [{**row, "tagged_at": None} for row in of_rows]


def test_tag_rows_without_rows_are_empty() -> None:
    assert tag_rows(Tagger(small_model(), SPEC), [], MODEL) == []


def stored(n_clips: int, seed: int) -> dict[str, Any]:
    identity = {
        "uri": f"{seed}.mp3",
        "audio_etag": f"e{seed}",
        "audio_sha256": f"s{seed}",
        "feature_hash": "abc",
        "damaged_s": 0.0,
    }
    return {**track(n_clips, seed), **identity, "n_clips": n_clips}


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
    (file,) = commits.table_files(uri)
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


def test_silent_track_has_no_tags_and_no_scores() -> None:
    row = stored(4, 1)
    silent, loud = tag_rows(Tagger(small_model(), SPEC), [{**row, "clips": bytes(len(row["clips"]))}, row], MODEL)
    assert (silent["silent"], silent["scores"], silent["tags"]) == (True, None, [])
    assert (loud["silent"], len(loud["scores"])) == (False, len(SPEC.vocabulary))
