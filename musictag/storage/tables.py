"""Delta Lake tables: create them, and read them by column or by track. `commits` writes to them."""

from collections.abc import Collection, Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake import Field as DeltaField
from deltalake.exceptions import DeltaError, TableNotFoundError

from musictag.errors import StoreError
from musictag.storage import stores
from musictag.storage.data_files import DataFile
from musictag.storage.folders import open_folder, store_errors
from musictag.storage.retry import retry

FILE = "file"
"""In `scan`, the column with the name of the file that holds a row."""
_PATH = "__filename"  # Arrow's column with the path of the file
# Numbers that `commits` records are forgotten after this time; else those of all runs would stay in the table's log.
_PROPERTIES = {"delta.setTransactionRetentionDuration": "interval 30 days"}
# Rows of a file that are in memory at once.
BATCH_ROWS = 16


def companion_uri(uri: str, kind: str) -> str:
    """Return the uri of a table that belongs to the one at `uri`, such as `data/features-failures`."""
    return f"{uri.rstrip('/')}-{kind}"


def absolute(uri: str) -> str:
    """Return the uri with a local path made absolute."""
    return uri if "://" in uri else str(Path(uri).absolute())


def table_exists(uri: str) -> bool:
    with store_errors(uri):
        return bool(DeltaTable.is_deltatable(stores.delta_uri(uri), stores.delta_options(uri)))


def create_table(uri: str, schema: pa.Schema, configuration: Mapping[str, str] | None = None) -> DeltaTable:
    """Open the table at `uri`; create it with `schema` and the table properties `configuration` if it does not exist.

    Columns that an older table lacks at its end are added; its rows have null there.

    Raises `StoreError` if it cannot be created, or if the existing table has other columns, or in another order.
    """
    with store_errors(uri):
        retry(
            lambda: DeltaTable.create(
                stores.delta_uri(uri),
                schema,
                mode="ignore",
                configuration={**_PROPERTIES, **(configuration or {})},
                storage_options=stores.delta_options(uri),
                raise_if_key_not_exists=False,
            ),
            is_transient,
        )
    return _upgrade(uri, schema)


def _upgrade(uri: str, schema: pa.Schema) -> DeltaTable:
    """Open a table, and give it the columns and properties that tables of earlier versions of musictag lack."""
    for is_last in (False, False, True):
        with store_errors(uri):
            table = delta_table(uri)
            names = [field.name for field in table.schema().fields]
            if names != schema.names[: len(names)]:
                raise StoreError(
                    f"table {uri}: has the columns {', '.join(names)} instead of {', '.join(schema.names)}"
                )
            missing = [DeltaField.from_arrow(field) for field in list(schema)[len(names) :]]
            try:
                if missing:
                    table.alter.add_columns(missing)
                elif not _PROPERTIES.keys() <= table.metadata().configuration.keys():
                    table.alter.set_table_properties(_PROPERTIES)
                else:
                    return table
            except DeltaError:  # another run may have done it at the same moment
                if is_last:
                    raise
    return open_table(uri)


def open_table(uri: str, version: int | None = None) -> DeltaTable:
    """Open the table at `uri`, at its current or at an earlier version. Raises `StoreError` if there is none."""
    with store_errors(uri):
        try:
            return delta_table(uri, version)
        except TableNotFoundError as error:
            raise StoreError(f"table {uri}: there is none; has the job that writes it run?") from error


def delta_table(uri: str, version: int | None = None) -> DeltaTable:
    """Open a table as `open_table` does, but raise deltalake's own errors, so that the caller can retry."""
    return DeltaTable(stores.delta_uri(uri), version, stores.delta_options(uri))


def is_transient(error: Exception) -> bool:
    """Return whether an error of deltalake is a failure of the store.

    deltalake does not retry writes, because the failed request may have succeeded. Callers here may: a commit that is
    repeated changes nothing.
    """
    return isinstance(error, OSError)


def read_columns(uri: str, columns: Collection[str], version: int | None = None) -> pa.Table:
    """Read columns of the table at `uri`, as `scan` reads them; no rows if there is no table."""
    return scan(uri, columns, version).read_all()


def track_ids(uri: str, version: int | None = None) -> set[str]:
    """Return the tracks of the table at `uri`, at its current or at an earlier version."""
    return set(read_columns(uri, ("track_id",), version)["track_id"].to_pylist())


def read_rows(
    uri: str, columns: Collection[str], track_ids: Collection[str], version: int | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the rows of some tracks in the table's order; memory holds a few of them.

    Args:
        uri: the table.
        columns: `track_id` must be among them.
        track_ids: the tracks.
        version: an earlier version of the table, whose files must not have been vacuumed.
    """
    with store_errors(uri):
        table = open_table(uri, version)
        table_schema = pa.schema(table.schema().to_arrow())
        schema, wanted = pa.schema([table_schema.field(name) for name in columns]), frozenset(track_ids)
        for file in files(uri, version):
            for rows in read_file(uri, file.path, schema, wanted):
                yield from rows.to_pylist()


def read_file(uri: str, path: str, schema: pa.Schema, track_ids: AbstractSet[str]) -> Iterator[pa.Table]:
    """Yield tables with the rows of some tracks in one file of the table at `uri`, as columns of `schema`.

    Apart from `track_id`, only row groups that hold such a row are read. Raises `StoreError` if a page does not match
    its checksum; files that deltalake's delete wrote have none, and earlier versions of musictag used it. Rows are
    filtered here because it wrote text as `string_view`, on which Arrow 25's filters fail.
    """
    with store_errors(f"{uri}/{path}"), open_folder(uri).open_input_file(path) as stream:
        file = pq.ParquetFile(stream, page_checksum_verification=True)
        ids = file.read(columns=["track_id"])["track_id"].to_pylist()
        groups, begin = [], 0
        for group in range(file.num_row_groups):
            end = begin + file.metadata.row_group(group).num_rows
            if not track_ids.isdisjoint(ids[begin:end]):
                groups.append(group)
            begin = end
        existing = [name for name in schema.names if name in file.schema_arrow.names]
        for batch in file.iter_batches(BATCH_ROWS, groups, existing):
            rows = conformed(pa.Table.from_batches([batch]), schema)
            yield rows.filter([track_id in track_ids for track_id in rows["track_id"].to_pylist()])


def conformed(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return rows of a file as columns of `schema`; columns that are younger than the file are null."""
    for name in schema.names:
        if name not in rows.column_names:
            rows = rows.append_column(name, pa.nulls(len(rows)))
    return rows.select(schema.names).cast(schema)


def scan(
    uri: str, columns: Collection[str], version: int | None = None, *, added: Collection[str] = ()
) -> pa.RecordBatchReader:
    """Return a reader of columns of the table at `uri`, at its current or at an earlier version; memory holds batches.

    The column `FILE` is the name of the file that holds a row. Text is `string`, also in files that deltalake's delete
    wrote. There are no rows if there is no table.

    Args:
        uri: the table.
        columns: names of columns.
        version: an earlier version of the table, whose files must not have been vacuumed.
        added: columns that may be missing in tables of earlier versions of musictag, and are null then.
    """
    if not table_exists(uri):
        schema = pa.schema([(name, pa.string()) for name in columns])
        return pa.RecordBatchReader.from_batches(schema, [])
    with store_errors(uri):
        dataset = open_table(uri, version).to_pyarrow_dataset(filesystem=open_folder(uri))
        types = {field.name: _plain_type(field.type) for field in dataset.schema} | {FILE: pa.string()}
        missing = [name for name in columns if name in added and name not in types]
        schema = pa.schema([(name, types.get(name, pa.null())) for name in columns])
        scanned = [_PATH if name == FILE else name for name in columns if name not in missing]
        # Without caching: the footers of all files would take most of the memory.
        scanner = dataset.scanner(scanned, cache_metadata=False)

    def column(batch: pa.RecordBatch, name: str) -> pa.Array:
        if name in missing:
            return pa.nulls(len(batch))
        if name == FILE:
            paths = batch[_PATH].dictionary_encode()  # one or few different ones
            names = pc.replace_substring_regex(paths.dictionary, r"(?s).*/", "")
            return names.take(paths.indices)
        return batch[name].cast(schema.field(name).type)

    def batches() -> Iterator[pa.RecordBatch]:
        with store_errors(uri):
            for batch in scanner.to_batches():
                yield pa.record_batch([column(batch, name) for name in columns], schema)

    return pa.RecordBatchReader.from_batches(schema, batches())


def _plain_type(data_type: pa.DataType) -> pa.DataType:
    return pa.string() if pa.types.is_string_view(data_type) or pa.types.is_large_string(data_type) else data_type


def version(uri: str) -> int:
    return int(open_table(uri).version())


def files(uri: str, version: int | None = None) -> list[DataFile]:
    """Return the files of the table at `uri`, at its current or at an earlier version, in the order of its log."""
    with store_errors(uri):
        found = pa.table(delta_table(uri, version).get_add_actions())
    columns = (found[name].to_pylist() for name in ("path", "size_bytes", "num_records"))
    return [DataFile(*fields) for fields in zip(*columns, strict=True)]
