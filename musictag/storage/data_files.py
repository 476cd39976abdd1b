"""Write the Parquet files of Delta tables. A file is invisible to readers until `commits` adds it to the table."""

import contextlib
import dataclasses
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from musictag.storage import checksums
from musictag.storage.folders import open_folder, store_errors

FILE_BYTES = 128 << 20
"""Bytes of a file before compression, apart from its last row group."""
# Bytes of a row group before compression. Row groups are small because reading a row reads its row group; but each row
# group adds 0.2 ms to reading the small columns of all tracks.
ROW_GROUP_BYTES = 2 << 20
# Page checksums turn damaged bytes into an error; without them they could change a tag.
WRITE_OPTIONS: dict[str, Any] = {"compression": "zstd", "write_page_checksum": True}


@dataclasses.dataclass(frozen=True)
class DataFile:
    """A written file of a table."""

    path: str
    """Its name in the table's folder."""
    size: int
    """Bytes."""
    n_rows: int


def write_rows(uri: str, schema: pa.Schema, rows: Iterable[Mapping[str, Any]]) -> list[DataFile]:
    """Stream `rows` into files of about `FILE_BYTES` with their checksums; memory holds the rows of one row group."""
    return write_batches(uri, schema, regrouped(table_of(row, schema) for row in rows))


def write_batches(uri: str, schema: pa.Schema, row_groups: Iterable[pa.Table]) -> list[DataFile]:
    """Write each table of `schema` as one row group, into files of about `FILE_BYTES` with their checksums."""
    remaining = iter(row_groups)
    with store_errors(uri):
        return [_write_file(uri, schema, first, remaining) for first in remaining]


def _write_file(uri: str, schema: pa.Schema, first: pa.Table, remaining: Iterator[pa.Table]) -> DataFile:
    """Write one file of `first` and of as many of the `remaining` row groups as fit."""
    table, path = open_folder(uri), f"part-{uuid.uuid4().hex}.parquet"
    # Without dictionaries and statistics of large cells, writing takes half the time or less.
    small = [field.name for field in schema if not pa.types.is_binary(field.type)]
    with contextlib.ExitStack() as stack:
        stream = checksums.HashingStream(stack.enter_context(table.open_output_stream(path)))
        options = WRITE_OPTIONS | {"use_dictionary": small, "write_statistics": small}
        writer = stack.enter_context(pq.ParquetWriter(stream, schema, **options))
        writer.write_table(first)
        n_rows, size = first.num_rows, first.nbytes
        while size < FILE_BYTES and (group := next(remaining, None)) is not None:
            writer.write_table(group)
            n_rows, size = n_rows + group.num_rows, size + group.nbytes
    checksums.record_checksum(table, path, stream.digest)
    return DataFile(path, stream.n_written, n_rows)


def regrouped(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield the rows of some tables as tables of at least `ROW_GROUP_BYTES`, apart from the last one."""
    group: list[pa.Table] = []
    size = 0
    for table in tables:
        if table.num_rows:
            group.append(table)
            size += table.nbytes
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
