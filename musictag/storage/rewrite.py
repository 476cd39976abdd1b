"""Remove rows from Delta tables, and join their small files.

deltalake's own delete scans the whole table for each predicate, and its files lack page checksums. Here each file that
holds an obsolete row is written again once, without it; a file in which all rows are obsolete is removed unread.
"""

import dataclasses
import itertools
import operator
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from musictag.errors import ConflictError, StoreError
from musictag.storage import tables
from musictag.storage.commits import replace_files
from musictag.storage.data_files import FILE_BYTES, ROW_GROUP_BYTES, DataFile, regrouped, write_batches
from musictag.storage.folders import open_folder, store_errors

# Files that are written again in one transaction: after a conflict with another writer, these are written once more.
_FILES_PER_COMMIT = 32
_MAX_COMMITS = 100
# Files below this size are joined.
_SMALL_BYTES = FILE_BYTES // 4

RowKey = tuple[str, Any]
"""The track and the time of a row."""


def remove_rows(connection: duckdb.DuckDBPyConnection, obsolete: str, uri: str, time_column: str) -> int:
    """Remove rows from the table at `uri`; return their number.

    Args:
        connection: holds the obsolete rows.
        obsolete: name of a table with exactly one row for each row to remove: its `file`, `track_id` and `time`.
        uri: the table.
        time_column: its column with the time at which a row was made.

    Raises:
        ConflictError: another writer removed one of the files meanwhile. Some rows are left; the obsolete ones must be
            determined again.
    """
    existing = {file.path: file for file in tables.files(uri)}
    counts = dict(connection.execute(f"SELECT file, count(*) FROM {obsolete} GROUP BY file").fetchall())
    schema = pa.schema(tables.open_table(uri).schema().to_arrow())
    if changed := counts.keys() - existing.keys():
        raise ConflictError(f"table {uri}: another run removed {min(changed)} meanwhile: run again")
    whole = [existing[path] for path, n_rows in counts.items() if existing[path].n_rows == n_rows]
    if whole:
        replace_files(uri, schema, whole, [])
    rest = counts.keys() - {file.path for file in whole}
    # Each commit reads the whole list of files.
    files_per_commit = max(_FILES_PER_COMMIT, len(existing) // _MAX_COMMITS)
    rewritten = (
        (existing[path], write_batches(uri, schema, _without(uri, path, schema, time_column, rows)))
        for path, rows in _by_file(connection, obsolete, rest)
    )
    for batch in _batches(rewritten, files_per_commit):
        replace_files(uri, schema, [old for old, _ in batch], [file for _, new in batch for file in new])
    return sum(counts.values())


def _by_file(
    connection: duckdb.DuckDBPyConnection, obsolete: str, paths: Collection[str]
) -> Iterator[tuple[str, Counter[RowKey]]]:
    """Yield the obsolete rows of each of some files; memory holds those of one file."""
    if not paths:
        return
    connection.register("rewritten", pa.table({"file": pa.array(paths, pa.string())}))
    found = connection.sql(
        f"SELECT file, track_id, time FROM {obsolete} SEMI JOIN rewritten USING (file) ORDER BY file"
    )
    rows = (
        row for batch in found.to_arrow_reader() for row in zip(*(c.to_pylist() for c in batch.columns), strict=True)
    )
    for path, of_file in itertools.groupby(rows, operator.itemgetter(0)):
        yield path, Counter((track_id, time) for _, track_id, time in of_file)
    connection.unregister("rewritten")


def _batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _without(uri: str, path: str, schema: pa.Schema, time_column: str, obsolete: Counter[RowKey]) -> Iterator[pa.Table]:
    """Yield the row groups of a file without the obsolete rows; of equal rows, as many as `obsolete` counts."""
    left = Counter(obsolete)

    def is_kept(row: RowKey) -> bool:
        left[row] -= 1
        return left[row] < 0

    def kept() -> Iterator[pa.Table]:
        for rows in read_groups(uri, path, schema):
            pairs = zip(rows["track_id"].to_pylist(), rows[time_column].to_pylist(), strict=True)
            yield rows.filter(pa.array([is_kept(pair) for pair in pairs], pa.bool_()))
        if missing := [track_id for (track_id, _), n_left in left.items() if n_left > 0]:
            raise StoreError(f"table {uri}: {path} does not hold the rows to remove, such as that of {missing[0]}")

    return regrouped(kept())


def read_groups(uri: str, path: str, schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield all rows of a file of the table, as columns of `schema`, about `ROW_GROUP_BYTES` at a time."""
    with store_errors(f"{uri}/{path}"), open_folder(uri).open_input_file(path) as stream:
        file = pq.ParquetFile(stream, page_checksum_verification=True)
        for number in range(file.num_row_groups):
            group = file.metadata.row_group(number)
            n_rows = max(1, group.num_rows * ROW_GROUP_BYTES // max(1, group.total_byte_size))
            for batch in file.iter_batches(n_rows, [number]):
                yield tables.conformed(pa.Table.from_batches([batch]), schema)


@dataclasses.dataclass(frozen=True)
class Compaction:
    """The number of files before and after `compact`."""

    n_before: int
    n_after: int


def compact(uri: str) -> Compaction:
    """Join the small files of the table at `uri`; older versions stay readable.

    Raises:
        ConflictError: another writer removed one of the files meanwhile; what was joined before stays.
    """
    schema = pa.schema(tables.open_table(uri).schema().to_arrow())
    before = tables.files(uri)
    groups = small_groups(before)
    for batch in _batches(groups, max(1, len(groups) // _MAX_COMMITS)):
        joined: list[DataFile] = []
        for group in batch:
            rows = (rows for file in group for rows in read_groups(uri, file.path, schema))
            joined += write_batches(uri, schema, regrouped(rows))
        replace_files(uri, schema, list(itertools.chain(*batch)), joined, same_rows=True)
    return Compaction(len(before), len(tables.files(uri)))


def small_groups(files: Sequence[DataFile]) -> list[list[DataFile]]:
    """Return the small files of a table in groups, each of which makes one file of about `FILE_BYTES` or less."""
    groups: list[list[DataFile]] = []
    size = FILE_BYTES
    for file in files:
        if file.size >= _SMALL_BYTES:
            continue
        if size + file.size > FILE_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(file)
        size += file.size
    return [group for group in groups if len(group) > 1]
