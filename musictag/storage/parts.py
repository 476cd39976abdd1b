"""Write to Delta tables part by part.

A *part* is one Parquet file that is streamed and then committed in one transaction. It is named after what it is made
of (`jobs.plan.part_name`), and the commit records the name, so that a repeated attempt finds the part committed. Each
attempt writes a new file: committed files are never written to. A killed writer leaves at worst a file that no commit
names, which `musictag vacuum` removes. Two concurrent writers may write a track twice; `tables.deduplicate` removes the
older row at the end of a run.
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

# Bytes of a row group before compression. Row groups are small because reading a row reads its row group; but each row
# group adds 0.2 ms to reading the small columns of all tracks.
ROW_GROUP_BYTES = 2 << 20
# Page checksums turn damaged bytes into an error; without them they could change a tag.
WRITE_OPTIONS: dict[str, Any] = {"compression": "zstd", "write_page_checksum": True}


def write_rows(
    uri: str, part: str, schema: pa.Schema, rows: Iterable[Mapping[str, Any]], since_version: int = 0
) -> int:
    """Stream `rows` into one Parquet file, commit it to the table at `uri` as `part`, and return the number of rows.

    Memory holds the rows of one row group (`ROW_GROUP_BYTES`). Nothing is read or written if the part is committed
    already (see `is_done`); nothing is committed if there are no rows, or if `rows` raises.
    """
    if is_done(uri, part, since_version):
        return 0
    path, written, writer = _new_path(part), 0, None
    with store_errors(uri), contextlib.ExitStack() as stack:
        for group in _row_groups(rows, schema):
            if writer is None:
                stream = checksums.HashingStream(stack.enter_context(folder(uri).open_output_stream(path)))
                # Without dictionaries and statistics of large cells, writing takes half the time or less.
                small = [field.name for field in schema if not pa.types.is_binary(field.type)]
                options = WRITE_OPTIONS | {"use_dictionary": small, "write_statistics": small}
                writer = stack.enter_context(pq.ParquetWriter(stream, schema, **options))
            writer.write_table(group)
            written += group.num_rows
    if not written:
        return 0
    return _commit(uri, path, stream.digest, written, part, schema, since_version)


def _row_groups(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield tables of rows of about `ROW_GROUP_BYTES` each."""
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
    """Return a row as a table, without copying its binary values."""
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
    """Write and commit a table of small rows as `write_rows` does."""
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
    """Commit the file at `path` as the part; return `n_rows`, or 0 if another writer did so meanwhile."""
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
        # The table's version before this commit, which `_is_done` compares with `since_version`.
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
    """Return whether `part` was committed to the table at `uri` at or after the version `since_version`.

    An older commit of the same part does not count: the plan asks for these tracks again only because their rows were
    deleted since.
    """
    with store_errors(uri):
        return _is_done(delta_table(uri), part, since_version)


def _is_done(table: DeltaTable, part: str, since_version: int) -> bool:
    committed = table.transaction_version(part)
    return committed is not None and committed >= since_version
