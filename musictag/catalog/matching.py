"""Match the tracks of a catalog with the rows of a features table, in columns."""

import dataclasses
from collections.abc import Iterable
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc

from musictag.storage import queries

N_NAMED = 3

# Digests and files of untagged tracks are not needed, and would take most of the memory.
_MATCH = """
    CREATE TABLE matched AS
    SELECT
        features.track_id AS track_id, is_tagged,
        CASE WHEN is_tagged THEN audio_sha256 END AS audio_sha256,
        CASE WHEN is_tagged THEN file END AS file,
        CASE WHEN is_tagged THEN featurized_at END AS featurized_at
    FROM features LEFT JOIN tracks ON features.track_id = tracks.track_id
    WHERE is_tagged OR tracks.track_id IS NULL
"""
# Until a run ends, a track may have several rows.
_NEWEST = """
    SELECT track_id, audio_sha256, file, concat_ws(' ', audio_sha256, epoch_us(featurized_at))
    FROM matched WHERE is_tagged
    QUALIFY row_number() OVER (PARTITION BY track_id ORDER BY featurized_at DESC NULLS LAST, file DESC) = 1
"""
_ORPHANED = f"SELECT count(DISTINCT track_id), min(DISTINCT track_id, {N_NAMED}) FROM matched WHERE is_tagged IS NULL"


@dataclasses.dataclass(frozen=True)
class TrackCount:
    """A number of tracks, and the ids of the first ones."""

    n: int
    first: tuple[str, ...] = ()
    """At most `N_NAMED` ids, sorted."""

    @classmethod
    def of(cls, track_ids: Iterable[str]) -> Self:
        ordered = sorted(track_ids)
        return cls(len(ordered), tuple(ordered[:N_NAMED]))

    def __str__(self) -> str:
        more = ", \u2026" if self.n > len(self.first) else ""
        return f"{self.n:,}" + (f" ({', '.join(self.first)}{more})" if self.n else "")


def is_tagged(tracks: pa.Table) -> pa.ChunkedArray:
    """Return which tracks have tags, (N,)."""
    return pc.greater(pc.list_value_length(tracks["tags"]), 0)


@dataclasses.dataclass(frozen=True)
class Matches:
    """The rows of a features table that belong to tagged tracks; of several rows of a track, the newest one."""

    digests: dict[str, str | None]
    """`digests[track_id]` is the SHA-256 of the track's audio, or None if it is not known."""
    file_by_track: dict[str, str]
    """`file_by_track[track_id]` is the name of the file that holds the row."""
    row_versions: dict[str, str]
    """`row_versions[track_id]` is a text that changes when the row does: its digest and its time in µs."""
    orphaned: TrackCount
    """Tracks that have rows but are not in the catalog."""


def match_features(tracks: pa.Table, features: pa.Table | pa.RecordBatchReader) -> Matches:
    """Find the rows of the tagged tracks of a catalog.

    Args:
        tracks: tracks of a catalog, with the columns `track_id` and `tags`.
        features: the columns `track_id`, `audio_sha256`, `featurized_at` and `file` of the features table.
    """
    with queries.connect() as connection:
        connection.register("tracks", pa.table({"track_id": tracks["track_id"], "is_tagged": is_tagged(tracks)}))
        connection.register("features", features)
        connection.execute(_MATCH)
        newest = connection.sql(_NEWEST).to_arrow_table()
        n_orphaned, first = connection.execute(_ORPHANED).fetchall()[0]
    track_ids, digests, files, row_versions = (newest[name].to_pylist() for name in newest.column_names)
    names: dict[str, str] = {}  # one string for each file, not for each track
    return Matches(
        digests=dict(zip(track_ids, digests, strict=True)),
        file_by_track={track_id: names.setdefault(file, file) for track_id, file in zip(track_ids, files, strict=True)},
        row_versions=dict(zip(track_ids, row_versions, strict=True)),
        orphaned=TrackCount(n_orphaned, tuple(first or ())),
    )
