from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from musictag.storage import tables

SCHEMA = pa.schema([("track_id", pa.string()), ("n", pa.int32())])


def make_table(folder: Path) -> str:
    uri = str(folder / "table")
    tables.create_table(uri, SCHEMA)
    return uri


def rows(*track_ids: str) -> list[dict[str, str | int]]:
    return [{"track_id": track_id, "n": number} for number, track_id in enumerate(track_ids)]


def features(digests: Mapping[str, str | None]) -> pa.Table:
    """Return the columns of a features table that labels are matched with."""
    return pa.table(
        {"track_id": pa.array(digests, pa.string()), "audio_sha256": pa.array(digests.values(), pa.string())}
    )
