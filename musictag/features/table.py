"""To be written."""

import json

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from deltalake import DeltaTable

from musictag.errors import FeatureMismatchError, StoreError
from musictag.features.config import FeatureConfig
from musictag.storage import tables

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
    ]
)


CELL_DTYPE = np.dtype("<f2")


CONFIG_KEY = "musictag.feature_config"


CLIPS_KEY = "musictag.clips_per_track"


def encode_clips(clips: npt.NDArray[np.floating]) -> memoryview:
    """Clips (C, T, M) as the bytes of a cell; without copying, if they are float16 and contiguous."""
    return np.ascontiguousarray(clips, dtype=CELL_DTYPE).reshape(-1).view(np.uint8).data


def decode_clips(cell: bytes, config: FeatureConfig) -> npt.NDArray[np.float16]:
    """The clips (C, T, M) float16 of a cell, without copying. Raises `StoreError` if the size does not fit."""
    shape = (config.clip_frames, config.n_mels)
    if len(cell) == 0 or len(cell) % (CELL_DTYPE.itemsize * shape[0] * shape[1]):
        raise StoreError(f"a clips cell of {len(cell)} bytes is not a whole number of {shape[0]} x {shape[1]} clips")
    return np.frombuffer(cell, CELL_DTYPE).reshape(-1, *shape)


def open_features(uri: str, config: FeatureConfig, clips_per_track: int | None) -> DeltaTable:
    """The features table at `uri`, made if it is not there.

    Raises `FeatureMismatchError` if it was made by other settings or with another number of clips per track.
    """
    settings = {CONFIG_KEY: json.dumps(config.to_dict()), CLIPS_KEY: _clips_text(clips_per_track)}
    table = tables.create_table(uri, SCHEMA, settings)
    held = feature_config(table)
    if held != config:
        raise FeatureMismatchError(
            f"features {uri}: made by other settings ({_differences(held, config)}): "
            "name another table with --features, or delete this one"
        )
    if (held_clips := table.metadata().configuration.get(CLIPS_KEY)) != _clips_text(clips_per_track):
        raise FeatureMismatchError(
            f"features {uri}: holds clips-per-track {held_clips}, not {_clips_text(clips_per_track)}: "
            f"run with --clips-per-track {held_clips}, or name another table with --features"
        )
    return table


def feature_config(table: DeltaTable) -> FeatureConfig:
    """The settings that made a features table. Raises `StoreError` if it is not a features table."""
    text = table.metadata().configuration.get(CONFIG_KEY)
    if text is None:
        raise StoreError(f"{table.table_uri}: not a features table (it has no property {CONFIG_KEY})")
    return FeatureConfig.from_dict(json.loads(text))


def _clips_text(clips_per_track: int | None) -> str:
    return "all" if clips_per_track is None else str(clips_per_track)


def _differences(held: FeatureConfig, wanted: FeatureConfig) -> str:
    theirs, ours = held.to_dict(), wanted.to_dict()
    return ", ".join(f"{name} {theirs[name]} there, {ours[name]} here" for name in ours if theirs[name] != ours[name])
