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
