"""Read tracks of a features table from the files that hold them, which `find_files` finds once."""

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


def find_files(uri: str, track_ids: Collection[str], version: int) -> dict[str, list[str]]:
    """Return the files of a version of the features table that hold some tracks, each with its tracks."""
    return tables.find_tracks(uri, track_ids, version, "featurized_at")


def read_tracks(uri: str, columns: Collection[str], files: Mapping[str, Collection[str]]) -> Iterator[dict[str, Any]]:
    """Yield the rows of tracks, in the order of the files; files are opened ahead of their turn.

    No other file is opened, also not the table's log. Row groups that hold none of the tracks are not read.

    Args:
        uri: the features table.
        columns: columns to read; `track_id` must be among them.
        files: names of files, each with the tracks to read from it, see `find_files`.

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
