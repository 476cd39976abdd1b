"""The parts that tables are filled by.

A *part* is one Parquet file that its writer streams and then commits in one transaction. Its name derives from what it
holds and its commit carries that name, so a writer that is tried again finds the part done. Each try writes a file of
its own: nobody ever writes to a file that a commit names. Whatever is killed leaves at worst a file that no commit
names (`musictag vacuum` removes it), and two writers at once at worst a track twice, until the run that ends
(`stores.remove_repeated`).

The SHA-256 of each file lies in the table's folder `_checksums`, in the form that `sha256sum --check` reads.
"""

import contextlib
import json
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction

from musictag.storage import checksums
from musictag.storage.retry import retry
from musictag.storage.tables import MAX_COMMIT_RETRIES, delta_table, folder, is_transient, store_errors

# Bytes of a row group, before compression. Whoever reads some rows reads their row groups, so they are small; but each
# costs 0.2 ms to whoever reads the small columns of all tracks.
ROW_GROUP_BYTES = 2 << 20
# Of each page its checksum, so that bytes that changed are an error and not another tag.
WRITE_OPTIONS: dict[str, Any] = {"compression": "zstd", "write_page_checksum": True}


def write(uri: str, part: str, schema: pa.Schema, rows: Iterable[Mapping[str, Any]], since_version: int = 0) -> int:
    """Stream `rows` into one Parquet file and commit it to the table at `uri` under the name `part`; how many they are.

    Memory holds the rows of one row group (`ROW_GROUP_BYTES`). Nothing is read or written if the part is done already
    (see `is_done`), and nothing is committed if there is no row, or if `rows` raises.
    """
    if is_done(uri, part, since_version):
        return 0
    path, written, writer = _new_path(part), 0, None
    with store_errors(uri), contextlib.ExitStack() as stack:
        for group in _row_groups(rows, schema):
            if writer is None:
                stream = checksums.HashingStream(stack.enter_context(folder(uri).open_output_stream(path)))
                # Dictionaries and bounds of cells of megabytes serve nobody, and take twice the time to write or more.
                small = [field.name for field in schema if not pa.types.is_binary(field.type)]
                options = WRITE_OPTIONS | {"use_dictionary": small, "write_statistics": small}
                writer = stack.enter_context(pq.ParquetWriter(stream, schema, **options))
            writer.write_table(group)
            written += group.num_rows
    if not written:
        return 0
    return _commit(uri, path, stream.digest, written, part, schema, since_version)


def _row_groups(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows in tables that fill a row group each, the last one less."""
    group, size = [], 0
    for row in rows:
        group.append(table_of(row, schema))
        size += group[-1].nbytes
        if size >= ROW_GROUP_BYTES:
            yield pa.concat_tables(group)
            group, size = [], 0
    if group:
        yield pa.concat_tables(group)


def table_of(row: Mapping[str, Any], schema: pa.Schema) -> pa.Table:
    """A row as a table. A binary value, which may be large, is not copied."""
    columns = []
    for field in schema:
        value = row.get(field.name)
        if value is not None and pa.types.is_binary(field.type):
            ends = pa.py_buffer(np.array([0, len(value)], np.int32))
            columns.append(pa.Array.from_buffers(field.type, 1, [None, ends, pa.py_buffer(value)]))
        else:
            columns.append(pa.array([value], field.type))
    return pa.table(columns, schema=schema)


def write_table(uri: str, part: str, schema: pa.Schema, rows: pa.Table, since_version: int = 0) -> int:
    """As `write`, of a table of small rows."""
    if not rows.num_rows or is_done(uri, part, since_version):
        return 0
    path = _new_path(part)
    with store_errors(uri), folder(uri).open_output_stream(path) as file:
        stream = checksums.HashingStream(file)
        pq.write_table(rows.cast(schema), stream, **WRITE_OPTIONS)
    return _commit(uri, path, stream.digest, rows.num_rows, part, schema, since_version)


def _new_path(part: str) -> str:
    return f"part-{part}-{uuid.uuid4().hex[:12]}.parquet"


def _commit(uri: str, path: str, sha256: str, n_rows: int, part: str, schema: pa.Schema, since_version: int) -> int:
    """Have the file at `path` be the part; `n_rows`, or 0 if somebody else wrote the part meanwhile."""
    with store_errors(uri):
        table = folder(uri)
        checksums.record_checksum(table, path, sha256)
        add = AddAction(
            path=path,
            size=int(table.get_file_info(path).size),
            partition_values={},
            modification_time=int(time.time() * 1000),
            data_change=True,
            stats=json.dumps({"numRecords": n_rows}),
        )
        return retry(lambda: _add(uri, add, n_rows, part, schema, since_version), is_transient)


def _add(uri: str, add: AddAction, n_rows: int, part: str, schema: pa.Schema, since_version: int) -> int:
    table = delta_table(uri)
    if _is_done(table, part, since_version):
        return 0
    properties = CommitProperties(
        # The version says when the part was committed: see `is_done`.
        app_transactions=[Transaction(part, table.version())],
        max_commit_retries=MAX_COMMIT_RETRIES,
    )
    try:
        table.create_write_transaction([add], mode="append", schema=schema, commit_properties=properties)
    except CommitFailedError:
        if _is_done(delta_table(uri), part, since_version):
            return 0
        raise
    return n_rows


def is_done(uri: str, part: str, since_version: int) -> bool:
    """Whether `part` was committed to the table at `uri` at or after its version `since_version`.

    An older commit of the same part does not count: its rows were removed before `since_version`, or the plan of that
    version would not ask for them again.
    """
    with store_errors(uri):
        return _is_done(delta_table(uri), part, since_version)


def _is_done(table: DeltaTable, part: str, since_version: int) -> bool:
    committed = table.transaction_version(part)
    return committed is not None and committed >= since_version
