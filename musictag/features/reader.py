"""Read tracks of a features table from the files that hold them."""

import collections
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from musictag.errors import StoreError
from musictag.features.table import SCHEMA
from musictag.storage import tables

# Opening a file in a store takes some tenths of a second: the next files are opened meanwhile. Files with few of the
# tracks are opened many at once; of files with many, so few that memory holds about `TRACKS_AHEAD` tracks.
FILES_AHEAD = 16
TRACKS_AHEAD = 64


def scan_for_labels(uri: str, version: int | None = None) -> pa.RecordBatchReader:
    """Return a reader of `track_id, audio_sha256, featurized_at, file` of the features table, in batches."""
    return tables.scan(uri, ("track_id", "audio_sha256", "featurized_at", tables.FILE), version)


def group_by_file(uri: str, version: int, file_by_track: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the files of a version of the features table that hold some tracks, each with its tracks.

    Files have the order of the table, and the tracks of a file are sorted.

    Args:
        uri: the features table.
        version: its version.
        file_by_track: the file that holds each track, see `catalog.splits.Labels`.

    Raises `StoreError` if the version does not have one of the files.
    """
    by_file = collections.defaultdict(list)
    for track_id, path in sorted(file_by_track.items()):
        by_file[path].append(track_id)
    in_order = {file.path: by_file[file.path] for file in tables.files(uri, version) if file.path in by_file}
    if missing := by_file.keys() - in_order.keys():
        raise StoreError(f"table {uri}: version {version} does not have the file {min(missing)}")
    return in_order


def read_tracks(uri: str, columns: Collection[str], files: Mapping[str, Collection[str]]) -> Iterator[dict[str, Any]]:
    """Yield the rows of tracks, in the order of the files; files are opened ahead of their turn.

    No other file is opened, also not the table's log. Row groups that hold none of the tracks are not read.

    Args:
        uri: the features table.
        columns: columns to read; `track_id` must be among them.
        files: names of files, each with the tracks to read from it, see `group_by_file`.

    Raises `StoreError` if a file is missing or damaged, or does not hold one row of each of its tracks.
    """
    schema = pa.schema([SCHEMA.field(name) for name in columns])
    ahead: collections.deque[_File] = collections.deque()
    with ThreadPoolExecutor(FILES_AHEAD) as pool:
        for path, track_ids in files.items():
            ahead.append(_File(pool, uri, path, schema, frozenset(track_ids)))
            while len(ahead) > FILES_AHEAD or sum(file.n_ahead for file in ahead) > TRACKS_AHEAD:
                yield from ahead.popleft().rows()
        while ahead:
            yield from ahead.popleft().rows()


def newest_rows(rows: pa.Table) -> pa.Table:
    """Return the newest row of each track, by `featurized_at`: files that were joined may hold earlier ones, too."""
    newest: dict[str, int] = {}
    times = rows["featurized_at"].to_pylist()
    for number, track_id in enumerate(rows["track_id"].to_pylist()):
        if track_id not in newest or times[number] >= times[newest[track_id]]:
            newest[track_id] = number
    return rows if len(newest) == len(rows) else rows.take(sorted(newest.values()))


class _File:
    """A file whose first rows are being read by a thread of the pool."""

    def __init__(
        self, pool: ThreadPoolExecutor, uri: str, path: str, schema: pa.Schema, track_ids: frozenset[str]
    ) -> None:
        self.name = f"{uri}/{path}"
        self.n_rows = len(track_ids)
        self.n_ahead = min(self.n_rows, tables.BATCH_ROWS)
        self._pool = pool
        self._tables = tables.read_file(uri, path, schema, track_ids)
        self._following = self._read()

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows; those that follow are read meanwhile."""
        n_rows = 0
        while (rows := self._following.result()) is not None:
            self._following = self._read()
            n_rows += len(rows)
            yield from rows.to_pylist()
        if n_rows != self.n_rows:
            raise StoreError(
                f"{self.name}: holds {n_rows} rows of the {self.n_rows} tracks to read: run featurize.py, which "
                "removes repeated rows"
            )

    def _read(self) -> "Future[pa.Table | None]":
        return self._pool.submit(next, self._tables, None)
