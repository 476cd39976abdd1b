"""Check the rows of a table: against each other, against the table's settings, and against a catalog.

Ten million rows are compared by queries, and cells are read some megabytes at a time.
"""

from collections.abc import Iterator

import deltalake
import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from musictag.catalog.reader import read_catalog
from musictag.features.config import FeatureConfig
from musictag.features.table import CELL_DTYPE, CONFIG_KEY, feature_config
from musictag.jobs import ledger
from musictag.storage import folders, queries, tables
from musictag.storage.urls import redacted

# Maximum number of track ids in a message.
_N_NAMED = 5
# Cells that are in memory at once.
_CELL_BYTES = 32 << 20
_CELL_COLUMNS = ("track_id", "feature_hash", "n_clips", "start_s", "clips")

# A catalog's rows that cannot be used are listed, too, but without a uri that could be compared.
_MISSING = """
    SELECT track_id FROM listed ANTI JOIN stored USING (track_id) ANTI JOIN failures USING (track_id)
"""
_ELSEWHERE = """
    SELECT track_id, stored.uri, tracks.uri AS listed_uri FROM stored JOIN tracks USING (track_id)
    WHERE stored.uri IS DISTINCT FROM tracks.uri
"""
_ORPHANED = """
    SELECT track_id FROM stored ANTI JOIN listed USING (track_id)
    WHERE NOT EXISTS (SELECT 1 FROM unlistable WHERE starts_with(stored.track_id, unlistable.folder))
"""


def row_problems(uri: str, table: deltalake.DeltaTable, n_expected: int) -> Iterator[str]:
    """Yield what is wrong with the rows of the table at `uri`, whose log says that there are `n_expected`."""
    names = [field.name for field in table.schema().fields]
    # The splits table has groups instead of tracks, and a failures table may have several rows of a track.
    has_one_row_per_track = names[0] == "track_id" and names != ledger.FAILURES_SCHEMA.names
    with queries.connect() as connection:
        connection.register("scanned", tables.scan(uri, names[:1]))
        connection.execute(f'CREATE TABLE stored AS SELECT "{names[0]}" AS track_id FROM scanned')
        [(n_rows,)] = connection.execute("SELECT count(*) FROM stored").fetchall()
        if n_rows != n_expected:
            yield f"{n_rows:,} rows were read, but the table's log says {n_expected:,}"
        repeated = "SELECT track_id FROM stored GROUP BY track_id HAVING count(*) > 1"
        if has_one_row_per_track and (found := _first_names(connection, repeated)):
            yield f"more than one row of the tracks {found}"
    if CONFIG_KEY in table.metadata().configuration:
        yield from _cell_problems(uri, table, feature_config(table))


def _cell_problems(uri: str, table: deltalake.DeltaTable, config: FeatureConfig) -> Iterator[str]:
    other_settings, wrong_shape = _Names(), _Names()
    for rows in _cells(uri, table):
        other_settings.add(rows.filter(pc.not_equal(rows["feature_hash"], config.feature_hash)))
        n_bytes = pc.multiply(
            rows["n_clips"].cast(pa.int64()), CELL_DTYPE.itemsize * config.clip_frames * config.n_mels
        )
        is_right = pc.and_(
            pc.equal(rows["n_clips"], pc.list_value_length(rows["start_s"])),
            pc.equal(n_bytes, pc.binary_length(rows["clips"]).cast(pa.int64())),
        )
        wrong_shape.add(rows.filter(pc.invert(pc.fill_null(is_right, False))))
    if other_settings.n:
        yield f"feature_hash is not that of the table: {other_settings}"
    if wrong_shape.n:
        yield f"n_clips, start_s and clips disagree: {wrong_shape}"


def _cells(uri: str, table: deltalake.DeltaTable) -> Iterator[pa.Table]:
    """Yield the cells of a features table; pages that do not match their checksum are a `StoreError`."""
    folder, table_schema = folders.open_folder(uri), pa.schema(table.schema().to_arrow())
    schema = pa.schema([table_schema.field(name) for name in _CELL_COLUMNS])
    for data_file in tables.files(uri, table.version()):
        path = data_file.path
        with folders.store_errors(f"{uri}/{path}"), folder.open_input_file(path) as stream:
            file = pq.ParquetFile(stream, page_checksum_verification=True)
            for group in range(file.num_row_groups):
                found = file.metadata.row_group(group)
                n_rows = max(1, _CELL_BYTES * found.num_rows // max(found.total_byte_size, 1))
                for batch in file.iter_batches(n_rows, [group], schema.names):
                    # Deletes write text as `string_view`, which Arrow does not compare.
                    yield pa.Table.from_batches([batch]).select(schema.names).cast(schema)


def catalog_problems(uri: str, catalog_uri: str, *, follow_links: bool) -> Iterator[str]:
    """Yield in what the table at `uri` differs from a catalog."""
    catalog = read_catalog(catalog_uri, follow_links=follow_links, columns=("track_id", "uri"))
    problems = catalog.problems
    hides_any_track = bool(pc.any(problems["hides_any_track"]).as_py())
    with queries.connect() as connection:
        connection.register("tracks", catalog.tracks)
        connection.register("problems", problems)
        connection.register("stored_rows", tables.scan(uri, ("track_id", "uri")))
        connection.register("failed_rows", tables.scan(tables.companion_uri(uri, "failures"), ("track_id",)))
        connection.execute("CREATE TABLE stored AS SELECT track_id, uri FROM stored_rows")
        connection.execute("CREATE TABLE failures AS SELECT DISTINCT track_id FROM failed_rows")
        connection.execute("CREATE VIEW listed AS SELECT track_id FROM tracks UNION ALL SELECT track_id FROM problems")
        connection.execute('CREATE VIEW unlistable AS SELECT track_id AS folder FROM problems WHERE "row" IS NULL')
        if missing := _first_names(connection, _MISSING):
            yield f"listed in {catalog_uri}, but neither in the table nor in its failures: {missing}"
        elsewhere = _Names()
        for batch in connection.sql(_ELSEWHERE).to_arrow_reader():
            # Tables have no secrets in their uris.
            listed_uris = map(redacted, batch["listed_uri"].to_pylist())
            is_elsewhere = [
                listed != stored for listed, stored in zip(listed_uris, batch["uri"].to_pylist(), strict=True)
            ]
            elsewhere.add(batch.filter(pa.array(is_elsewhere, pa.bool_())))
        if elsewhere.n:
            yield f"in the table with another uri than in {catalog_uri} (moved, or of another catalog): {elsewhere}"
        if not hides_any_track and (orphaned := _first_names(connection, _ORPHANED)):
            yield f"in the table, but not listed in {catalog_uri} (a run with --prune deletes them): {orphaned}"


class _Names:
    """The number of some tracks, and the first of their ids."""

    def __init__(self) -> None:
        self.n = 0
        self.first: list[str] = []

    def add(self, rows: pa.RecordBatch | pa.Table) -> None:
        self.n += len(rows)
        self.first = sorted([*self.first, *rows["track_id"].to_pylist()])[:_N_NAMED]

    def __str__(self) -> str:
        return _names(self.n, self.first)


def _first_names(connection: duckdb.DuckDBPyConnection, track_ids: str) -> str:
    """Return the first ids that a query finds, followed by "and N more" if there are more; empty if there are none."""
    query = f"SELECT count(DISTINCT track_id), min(DISTINCT track_id, {_N_NAMED}) FROM ({track_ids})"
    [(n, first)] = connection.execute(query).fetchall()
    return _names(n, first) if n else ""


def _names(n: int, first: list[str]) -> str:
    return ", ".join(first) + (f" and {n - len(first):,} more" if n > len(first) else "")
