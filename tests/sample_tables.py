from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable

from musictag.features import reader
from musictag.storage import checksums, folders, heartbeats, queries, rewrite, tables

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
    folder = folders.open_folder(uri)
    for path in {file.path for file in tables.files(uri)} - checksums.recorded_paths(folder):
        checksums.record_checksum(folder, path, checksums.sha256(folder, path))


def remove_tracks(uri: str, track_ids: Iterable[str]) -> None:
    """Remove rows as a run does; the column `n` takes the place of a time."""
    with queries.connect() as connection:
        connection.register("found", tables.scan(uri, ("track_id", "n", "file")).read_all())
        connection.register("gone", pa.table({"track_id": pa.array(track_ids, pa.string())}))
        connection.execute(
            "CREATE TABLE obsolete AS SELECT file, track_id, n AS time FROM found SEMI JOIN gone USING (track_id)"
        )
        rewrite.remove_rows(connection, "obsolete", uri, "n")


def ended_runs(uri: str) -> list[str]:
    """Return the runs that have staged something in a table, and have ended."""
    return [
        run for run, is_running in heartbeats.running_states(uri, heartbeats.staged_runs(uri)).items() if not is_running
    ]


def features(digests: Mapping[str, str | None]) -> pa.Table:
    """Return the columns of a features table that labels are matched with; each row is in the file `TRACK.parquet`."""
    return pa.table(
        {
            "track_id": pa.array(digests, pa.string()),
            "audio_sha256": pa.array(digests.values(), pa.string()),
            "featurized_at": pa.nulls(len(digests), pa.timestamp("us", "UTC")),
            "file": pa.array([f"{track_id}.parquet" for track_id in digests], pa.string()),
        }
    )


def find_files(uri: str, track_ids: Iterable[str]) -> dict[str, list[str]]:
    """Return the files of a features table that hold some tracks, each with its tracks."""
    found = reader.scan_for_labels(uri).read_all()
    files = dict(zip(found["track_id"].to_pylist(), found["file"].to_pylist(), strict=True))
    wanted = {track_id: files[track_id] for track_id in track_ids if track_id in files}
    return reader.group_by_file(uri, tables.version(uri), wanted)
