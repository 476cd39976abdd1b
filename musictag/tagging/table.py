"""The tags table: its schema, and the existing rows that a rerun can keep."""

import dataclasses
import datetime
from collections.abc import Callable

import duckdb
import pyarrow as pa

from musictag.storage import queries, tables

COPIED_COLUMNS = ("uri", "audio_etag", "audio_sha256", "feature_hash", "damaged_s")
"""Columns that a tags row copies from its features row."""

TAGS_SCHEMA = pa.schema(
    [
        ("track_id", pa.string()),
        ("uri", pa.string()),
        ("audio_etag", pa.string()),
        ("audio_sha256", pa.string()),
        ("model", pa.string()),
        ("model_version", pa.string()),
        ("feature_hash", pa.string()),
        ("n_clips", pa.int32()),
        ("scores", pa.list_(pa.float32())),
        ("tags", pa.list_(pa.struct([("tag", pa.string()), ("score", pa.float32())]))),
        ("tagged_at", pa.timestamp("us", "UTC")),
        ("model_digest", pa.string()),
        ("silent", pa.bool_()),
        ("damaged_s", pa.float64()),
    ]
)
ADDED_COLUMNS = ("model_digest", "silent", "damaged_s")
"""Columns that tables of earlier versions of musictag lack."""
UNKNOWN_MODEL = ""
"""Producer of rows whose model does not exist any more."""


@dataclasses.dataclass(frozen=True)
class ModelIdentity:
    """A model as the tags table names it."""

    name: str
    version: str
    """Label for people: the version in a registry, which another model may get later."""
    digest: str
    """Digest of the model's files (`artifact_files.model_digest`), by which a row is known to be of this model."""

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


FindDigest = Callable[[str, str], tuple[str, datetime.datetime] | None]
"""Returns the digest of the model of a name and version, and the time since which it has that version; or None."""


def load_rows(connection: duckdb.DuckDBPyConnection, name: str, tags_uri: str, find_digest: FindDigest) -> None:
    """Create a table of `track_id, uri, audio_etag, producer, time, file` for the rows of the tags table.

    The producer is the digest of the row's model. Rows of earlier versions of musictag hold no digest: `find_digest`
    finds it by name and version. The producer is `UNKNOWN_MODEL` if it finds none, or if the model got its version
    after the row was written.
    """
    columns = ("track_id", "uri", "audio_etag", "model", "model_version", "model_digest", "tagged_at", tables.FILE)
    queries.load(connection, "scanned_tags", tables.scan(tags_uri, columns, added=ADDED_COLUMNS))
    models = connection.execute(
        "SELECT DISTINCT model, model_version FROM scanned_tags WHERE model_digest IS NULL"
    ).fetchall()
    found = [(*model, *digest) for model in models if (digest := find_digest(*model))]
    names = ("model", "model_version", "digest", "since")
    types = (pa.string(), pa.string(), pa.string(), pa.timestamp("us", "UTC"))
    columns_of_models = zip(names, types, zip(*found, strict=True) if found else ((),) * len(names), strict=True)
    queries.load(
        connection, "models", pa.table({name: pa.array(values, kind) for name, kind, values in columns_of_models})
    )
    connection.execute(
        f"CREATE OR REPLACE TABLE {name} AS SELECT track_id, uri, audio_etag, coalesce(model_digest, "
        "CASE WHEN since <= tagged_at THEN digest END, $unknown) AS producer, "
        "tagged_at AS time, file "
        "FROM scanned_tags LEFT JOIN models USING (model, model_version)",
        {"unknown": UNKNOWN_MODEL},
    )
    connection.execute("DROP TABLE scanned_tags")
