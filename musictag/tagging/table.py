"""The tags table: its schema, its rows, and the existing rows that a rerun can keep."""

import datetime
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from musictag.jobs.plan import ExistingRow
from musictag.storage import tables
from musictag.tagging.scorers import Row
from musictag.tagging.tagger import Tagger

IDENTITY_COLUMNS = ("uri", "audio_etag", "audio_sha256", "feature_hash")
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
    ]
)


def tag_rows(tagger: Tagger, rows: Sequence[Row], model: str, model_version: str) -> list[dict[str, Any]]:
    """Return rows of `TAGS_SCHEMA` for features rows, in their order."""
    now = datetime.datetime.now(datetime.UTC)
    return [
        {
            "track_id": row["track_id"],
            **{name: row[name] for name in IDENTITY_COLUMNS},
            "model": model,
            "model_version": model_version,
            "n_clips": row["n_clips"],
            "scores": scores.tolist(),
            "tags": [{"tag": tag, "score": score} for tag, score in tagger.tags_above(scores)],
            "tagged_at": now,
        }
        for row, scores in zip(rows, tagger.track_scores(rows), strict=True)
    ]


def producer_of(model: str, model_version: str) -> str:
    """Return name and version of the model as one string. A row is up to date if this, uri and etag are unchanged."""
    return f"{model} {model_version}"


def read_existing(tags_uri: str) -> dict[str, ExistingRow]:
    """Read the existing row of each track, by track_id."""
    columns = ("track_id", "uri", "audio_etag", "model", "model_version")
    return {
        row["track_id"]: ExistingRow(row["uri"], row["audio_etag"], producer_of(row["model"], row["model_version"]))
        for row in tables.read_columns(tags_uri, columns).to_pylist()
    }
