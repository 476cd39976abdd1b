"""Match the tracks of a catalog with the rows of a features table, in columns."""

import dataclasses
from collections.abc import Iterable
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc

from musictag.storage import queries

N_NAMED = 3

# Digests of untagged tracks are not needed, and would take most of the memory.
_MATCH = """
    CREATE TABLE matched AS
    SELECT features.track_id AS track_id, CASE WHEN is_tagged THEN audio_sha256 END AS audio_sha256, is_tagged
    FROM features LEFT JOIN tracks ON features.track_id = tracks.track_id
    WHERE is_tagged OR tracks.track_id IS NULL
"""
_DIGESTS = "SELECT track_id, audio_sha256 FROM matched WHERE is_tagged"
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


def match_features(
    tracks: pa.Table, features: pa.Table | pa.RecordBatchReader
) -> tuple[dict[str, str | None], TrackCount]:
    """Return the digests of the tagged tracks that have features, by track_id, and the rows that are of no track.

    Args:
        tracks: tracks of a catalog, with the columns `track_id` and `tags`.
        features: the columns `track_id` and `audio_sha256` of the features table. A digest is null if it is not known.
    """
    with queries.connect() as connection:
        connection.register("tracks", pa.table({"track_id": tracks["track_id"], "is_tagged": is_tagged(tracks)}))
        connection.register("features", features)
        connection.execute(_MATCH)
        digests = connection.sql(_DIGESTS).to_arrow_table()
        n_orphaned, first = connection.execute(_ORPHANED).fetchall()[0]
    by_track = dict(zip(digests["track_id"].to_pylist(), digests["audio_sha256"].to_pylist(), strict=True))
    return by_track, TrackCount(n_orphaned, tuple(first or ()))
