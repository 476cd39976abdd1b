from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable

from musictag.storage import checksums, tables

SCHEMA = pa.schema([("track_id", pa.string()), ("n", pa.int32())])


def make_table(folder: Path) -> str:
    uri = str(folder / "table")
    tables.create_table(uri, SCHEMA)
    return uri


def rows(*track_ids: str) -> list[dict[str, str | int]]:
    return [{"track_id": track_id, "n": number} for number, track_id in enumerate(track_ids)]


def delete_tracks(uri: str, track_ids: Iterable[str]) -> None:
    """Delete rows by deltalake, as users and earlier versions of musictag do; then record the checksums."""
    ids = ", ".join(f"'{track_id}'" for track_id in sorted(track_ids))
    DeltaTable(uri).delete(f"track_id IN ({ids})")
    folder = tables.folder(uri)
    for path in tables.files(tables.open_table(uri)).keys() - checksums.recorded_paths(folder):
        checksums.record_checksum(folder, path, checksums.sha256(folder, path))
