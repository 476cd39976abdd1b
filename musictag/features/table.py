"""The features table: one row per track, with all its clips in one cell.

A cell has the bytes of float16 values in C order (C, T, M). Rounding to float16 changes a log-mel value (0 to about 7)
by at most 0.002, and a score of a trained network by at most 0.005 (see `tests/features/test_table.py`).
"""

import json

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from deltalake import DeltaTable

from musictag.errors import FeatureMismatchError, StoreError
from musictag.features.config import FeatureConfig
from musictag.storage import queries, tables

SCHEMA = pa.schema(
    [
        ("track_id", pa.string()),
        ("uri", pa.string()),
        ("audio_etag", pa.string()),
        ("audio_sha256", pa.string()),
        ("duration_s", pa.float64()),
        ("n_clips", pa.int32()),
        ("start_s", pa.list_(pa.float32())),
        ("clips", pa.binary()),
        ("feature_hash", pa.string()),
        ("featurized_at", pa.timestamp("us", "UTC")),
        ("silent", pa.bool_()),
        ("damaged_s", pa.float64()),
    ]
)
CELL_DTYPE = np.dtype("<f2")
CONFIG_KEY = "musictag.feature_config"
"""Table property with the `FeatureConfig` as JSON."""
_CLIPS_KEY = "musictag.clips_per_track"


def encode_clips(clips: npt.NDArray[np.floating]) -> memoryview:
    """Return clips (C, T, M) as the bytes of a cell; no copy is made of contiguous float16 clips."""
    return np.ascontiguousarray(clips, dtype=CELL_DTYPE).reshape(-1).view(np.uint8).data


def decode_clips(cell: bytes, config: FeatureConfig) -> npt.NDArray[np.float16]:
    """Return the clips (C, T, M), float16, of a cell, without a copy.

    Raises:
        StoreError: the cell is empty or does not hold a whole number of clips.
    """
    shape = (config.clip_frames, config.n_mels)
    if len(cell) == 0 or len(cell) % (CELL_DTYPE.itemsize * shape[0] * shape[1]):
        raise StoreError(f"a clips cell of {len(cell)} bytes is not a whole number of {shape[0]} x {shape[1]} clips")
    return np.frombuffer(cell, CELL_DTYPE).reshape(-1, *shape)


def open_features(uri: str, config: FeatureConfig, clips_per_track: int | None) -> DeltaTable:
    """Open the features table at `uri`; create it if it does not exist.

    Raises:
        FeatureMismatchError: the table has other settings or another number of clips per track.
    """
    settings = {CONFIG_KEY: json.dumps(config.to_dict()), _CLIPS_KEY: _clips_text(clips_per_track)}
    table = tables.create_table(uri, SCHEMA, settings)
    existing = feature_config(table)
    if existing != config:
        raise FeatureMismatchError(
            f"features {uri}: made with other settings ({_differences(existing, config)}): "
            "choose another table with --features, or delete this one"
        )
    if (existing_clips := table.metadata().configuration.get(_CLIPS_KEY)) != _clips_text(clips_per_track):
        raise FeatureMismatchError(
            f"features {uri}: holds clips-per-track {existing_clips}, not {_clips_text(clips_per_track)}: "
            f"run with --clips-per-track {existing_clips}, or choose another table with --features"
        )
    return table


def load_rows(connection: duckdb.DuckDBPyConnection, name: str, uri: str, config: FeatureConfig) -> None:
    """Create a table of `track_id, uri, audio_etag, producer, time, file` for the rows of the features table.

    Args:
        connection: where to create it.
        name: its name.
        uri: the features table.
        config: its settings, whose hash is the producer of all rows (see `open_features`).
    """
    rows = tables.scan(uri, ("track_id", "uri", "audio_etag", "featurized_at", tables.FILE))
    producer = f"'{config.feature_hash}' AS producer"
    queries.load(connection, name, rows, f"track_id, uri, audio_etag, {producer}, featurized_at AS time, file")


def estimated_row_bytes(config: FeatureConfig, clips_per_track: int | None) -> int:
    """Return about how many bytes the clips of a track have; without a number of clips, those of four minutes."""
    n_clips = clips_per_track or round(240 / config.clip_seconds)
    return n_clips * CELL_DTYPE.itemsize * config.clip_frames * config.n_mels


def stored_clips_per_track(table: DeltaTable) -> int | None:
    """Return the number of clips of each track of a features table, or None if it holds all of them."""
    text = table.metadata().configuration.get(_CLIPS_KEY, _clips_text(None))
    return None if text == _clips_text(None) else int(text)


def feature_config(table: DeltaTable) -> FeatureConfig:
    """Return the settings of a features table.

    Raises:
        StoreError: the table is not a features table.
    """
    text = table.metadata().configuration.get(CONFIG_KEY)
    if text is None:
        raise StoreError(f"{table.table_uri}: not a features table (it has no property {CONFIG_KEY})")
    return FeatureConfig.from_dict(json.loads(text))


def _clips_text(clips_per_track: int | None) -> str:
    return "all" if clips_per_track is None else str(clips_per_track)


def _differences(existing: FeatureConfig, wanted: FeatureConfig) -> str:
    old, new = existing.to_dict(), wanted.to_dict()
    return ", ".join(f"{name} {old[name]} there, {new[name]} here" for name in new if old[name] != new[name])
