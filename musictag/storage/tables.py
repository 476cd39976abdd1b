"""Delta Lake tables: made once, read by column or by track, their rows deleted. `musictag.storage.parts` fills them."""

import contextlib
import datetime
import functools
import random
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from musictag.errors import StoreError
from musictag.storage import checksums
from musictag.storage.retry import retry

# Writers of one table meet at its log; each conflict costs one of them a retry of some milliseconds.
MAX_COMMIT_RETRIES = 100
# Rows of a file that are in memory together.
ROWS_READ = 16
# The longest pause before a delete that somebody's commit overtook is tried again.
RETRY_S = 0.2
# Of deltalake's requests to a store, all of which are small: an answer that takes longer does not come.
STORE_OPTIONS = {"timeout": "15s"}
# Ids named in one delete: keeps the predicate, which is text, of a size that parses fast.
IDS_PER_DELETE = 1_000


def companion_uri(uri: str, kind: str) -> str:
    """Uri of the table that belongs to the table at `uri`: `data/features` has `data/features-failures`."""
    return f"{uri.rstrip('/')}-{kind}"


def absolute(uri: str) -> str:
    """A uri that means the same in every process of this machine, wherever it runs."""
    return uri if "://" in uri else str(Path(uri).absolute())


def table_exists(uri: str) -> bool:
    """Whether a Delta table is at `uri`."""
    return bool(DeltaTable.is_deltatable(uri, STORE_OPTIONS))


def create_table(uri: str, schema: pa.Schema, configuration: Mapping[str, str] | None = None) -> DeltaTable:
    """The table at `uri`; made with `schema` and table properties `configuration` if it is not there.

    Raises `StoreError` if it cannot be made, or if a table with other columns is there.
    """
    with store_errors(uri):
        retry(
            lambda: DeltaTable.create(
                uri,
                schema,
                mode="ignore",
                configuration=dict(configuration or {}),
                storage_options=STORE_OPTIONS,
                raise_if_key_not_exists=False,
            ),
            is_transient,
        )
        table = delta_table(uri)
    held = [field.name for field in table.schema().fields]
    if held != schema.names:
        raise StoreError(f"table {uri}: has the columns {', '.join(held)} instead of {', '.join(schema.names)}")
    return table


def open_table(uri: str, version: int | None = None) -> DeltaTable:
    """The table at `uri` as it is, or as it was at a version. Raises `StoreError` if there is none."""
    with store_errors(uri):
        try:
            return delta_table(uri, version)
        except TableNotFoundError as error:
            raise StoreError(f"table {uri}: there is none; has the job that writes it run?") from error


def delta_table(uri: str, version: int | None = None) -> DeltaTable:
    """As `open_table`, with deltalake's own errors, for what tries again by them."""
    return DeltaTable(uri, version, STORE_OPTIONS)


def is_transient(error: Exception) -> bool:
    """Whether a store failed, of which deltalake speaks so: it does not itself repeat what may have been done."""
    return isinstance(error, OSError)


def read_columns(uri: str, columns: Collection[str], version: int | None = None) -> pa.Table:
    """Some columns of the whole table at `uri`, as it is or was at a version; no row if there is no table."""
    if not table_exists(uri):
        return pa.table({name: pa.array([], pa.string()) for name in columns})
    with store_errors(uri):
        return _read(uri, columns, version)


def track_ids(uri: str, version: int | None = None) -> set[str]:
    """The tracks that the table at `uri` holds, or held at a version."""
    return set(read_columns(uri, ("track_id",), version)["track_id"].to_pylist())


def read_rows(
    uri: str, columns: Collection[str], track_ids: Collection[str], version: int | None = None
) -> Iterator[dict[str, Any]]:
    """Rows of some tracks, one at a time and in the table's order; memory holds a few of them.

    Of the table as it is, or as it was at a version, so long as nobody has vacuumed away what it held then.

    Args:
        columns: `track_id` must be among them.
    """
    with store_errors(uri):
        table = open_table(uri, version)
        of_table = pa.schema(table.schema().to_arrow())
        schema, wanted = pa.schema([of_table.field(name) for name in columns]), frozenset(track_ids)
        for path in files(table):
            for rows in read_file(uri, path, schema, wanted):
                yield from rows.to_pylist()


def read_file(uri: str, path: str, schema: pa.Schema, track_ids: AbstractSet[str]) -> Iterator[pa.Table]:
    """Rows of some tracks in one file of the table at `uri`, some at a time, as columns of `schema`.

    Only row groups that hold such a row are read. Raises `StoreError` where a page is not what was written, by its
    checksum, which pages that a delete wrote do not have. Arrow's own filter cannot read these: such files call text
    `string_view`, for which Arrow 25 has no comparison with text.
    """
    with store_errors(f"{uri}/{path}"), folder(uri).open_input_file(path) as stream:
        file = pq.ParquetFile(stream, page_checksum_verification=True)
        held = file.read(columns=["track_id"])["track_id"].to_pylist()
        groups, begin = [], 0
        for group in range(file.num_row_groups):
            end = begin + file.metadata.row_group(group).num_rows
            if not track_ids.isdisjoint(held[begin:end]):
                groups.append(group)
            begin = end
        for batch in file.iter_batches(ROWS_READ, groups, schema.names):
            rows = pa.Table.from_batches([batch]).select(schema.names).cast(schema)
            yield rows.filter([track_id in track_ids for track_id in rows["track_id"].to_pylist()])


def files_with(uri: str, track_ids: Collection[str]) -> list[str]:
    """Paths of the table's files that hold a row of one of the tracks, in its folder and in the table's order."""
    if not track_ids:
        return []
    with store_errors(uri):
        found = _read(uri, ("track_id", "__filename"))
        is_wanted = pc.is_in(found["track_id"], pa.array(sorted(track_ids), pa.string()))
        return [path.rpartition("/")[2] for path in pc.unique(found.filter(is_wanted)["__filename"]).to_pylist()]


def folder(uri: str) -> pyarrow.fs.SubTreeFileSystem:
    """The folder of the table at `uri`, in Arrow's own filesystem.

    With fsspec's, or deltalake's, Arrow's threads would call Python, and a thread that does so while Python ends takes
    the whole process down ("terminate called without an active exception"). And fsspec's s3fs waits for ever where a
    server does not say that it may send a file (aiohttp's limit of time begins after "100 Continue").
    """
    with store_errors(uri):
        if "://" in uri:
            filesystem, path = pyarrow.fs.FileSystem.from_uri(uri)
        else:
            filesystem, path = pyarrow.fs.LocalFileSystem(), absolute(uri)
    return pyarrow.fs.SubTreeFileSystem(path.rstrip("/"), filesystem)


def _read(uri: str, columns: Collection[str], version: int | None = None) -> pa.Table:
    # The footers of all files, kept for a second look that nobody takes, are most of what reading would take.
    return (
        open_table(uri, version)
        .to_pyarrow_dataset(filesystem=folder(uri))
        .to_table(list(columns), cache_metadata=False)
    )


def version(uri: str) -> int:
    """The current version of the table at `uri`."""
    return int(open_table(uri).version())


def count_new_rows(uris: Sequence[str]) -> Callable[[], int]:
    """A function that tells how many rows some tables have gained since now, from their logs alone."""

    def n_rows() -> int:
        return sum(int(open_table(uri).count()) for uri in uris)

    before = n_rows()
    return lambda: n_rows() - before


def delete_rows(uri: str, where: str) -> None:
    """Delete the rows of the table at `uri` for which the SQL condition `where` holds.

    Rows that others commit meanwhile may stay.
    """
    for attempt in range(MAX_COMMIT_RETRIES):
        with store_errors(uri):
            try:
                retry(functools.partial(delta_table(uri).delete, where), is_transient)
            except CommitFailedError:  # somebody else committed, or we, unheard: look again what there is
                if attempt == MAX_COMMIT_RETRIES - 1:
                    raise
                time.sleep(random.uniform(0, RETRY_S))  # noqa: S311
                continue
        record_missing_checksums(uri)
        return


def record_missing_checksums(uri: str) -> None:
    """Record the digests that files of the table lack: the rests of files of which rows were deleted."""
    with store_errors(uri):
        table = folder(uri)
        for path in files(delta_table(uri)).keys() - checksums.recorded_paths(table):
            checksums.record_checksum(table, path, checksums.sha256(table, path))


def delete_tracks(uri: str, track_ids: Collection[str], where: str = "true") -> None:
    """Delete the rows of some tracks from the table at `uri`; of those for which the SQL condition `where` holds."""
    ids = [_quoted(track_id) for track_id in sorted(track_ids)]
    for begin in range(0, len(ids), IDS_PER_DELETE):
        delete_rows(uri, f"track_id IN ({', '.join(ids[begin : begin + IDS_PER_DELETE])}) AND {where}")


def deduplicate(uri: str, time_column: str) -> int:
    """Leave of each track the row that was made last; how many tracks had more than one."""
    rows = read_columns(uri, ("track_id", time_column))
    counts = rows.group_by("track_id").aggregate([("track_id", "count"), (time_column, "max")])
    repeated = counts.filter(pc.greater(counts["track_id_count"], 1)).to_pylist()
    older = [
        f"(track_id = {_quoted(row['track_id'])} AND {time_column} < {timestamp(row[f'{time_column}_max'])})"
        for row in repeated
    ]
    for begin in range(0, len(older), IDS_PER_DELETE):
        delete_rows(uri, " OR ".join(older[begin : begin + IDS_PER_DELETE]))
    return len(repeated)


def timestamp(moment: datetime.datetime) -> str:
    """A moment as a tables' column has it, in SQL."""
    return f"arrow_cast('{moment.isoformat()}', 'Timestamp(Microsecond, Some(\"UTC\"))')"


def files(table: DeltaTable) -> dict[str, int]:
    """The files of a table, by their path in its folder: how many rows its log says they hold."""
    found = pa.table(table.get_add_actions())
    return dict(zip(found["path"].to_pylist(), found["num_records"].to_pylist(), strict=True))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@contextlib.contextmanager
def store_errors(uri: str) -> Iterator[None]:
    """Around what uses the table at `uri`: an error of deltalake or of the store becomes a `StoreError`."""
    try:
        yield
    except (DeltaError, OSError, ValueError) as error:
        reason = re.sub(r"\s+", " ", str(error))
        raise StoreError(f"table {uri}: {reason}") from error
