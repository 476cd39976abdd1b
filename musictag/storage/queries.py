"""Query tables in columns with DuckDB, in bounded memory.

Whatever concerns all tracks of a catalog (the plan and the account of a run, duplicate rows, verification) is a query
over columns: ten million tracks would not fit into Python objects.
"""

import contextlib
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import duckdb
import pyarrow as pa

from musictag.errors import StoreError

MEMORY_LIMIT = "1GiB"
"""Memory of a connection; what needs more is spilled to its temporary folder."""
# DuckDB's errors in place of what the handler of SIGINT or SIGTERM raised, in a query and in a reader of Arrow.
_INTERRUPTED = re.compile(r"^Query interrupted$|\b(?:KeyboardInterrupt|Terminated)\s*$")


@contextlib.contextmanager
def connect() -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a connection to an empty database in a temporary folder, which is deleted at the end of the body.

    Arrow tables and record batch readers are queried by the names under which they are registered. No extension is
    downloaded. Text is compared by its bytes: ids that differ in case or in Unicode form are different.

    Raises:
        StoreError: a query in the body fails, for instance because a table that it reads cannot be read.
        KeyboardInterrupt: SIGINT or SIGTERM interrupted a query.
    """
    with tempfile.TemporaryDirectory(prefix="musictag-") as folder:
        connection = duckdb.connect(
            str(Path(folder) / "queries.duckdb"),
            config={
                "memory_limit": MEMORY_LIMIT,
                "temp_directory": str(Path(folder) / "spilled"),
                # Without it, results keep the order of the input only by holding more of it; queries that need an
                # order say so.
                "preserve_insertion_order": False,
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
            },
        )
        with connection:
            # In other zones, times of the hour that a change to winter time repeats would equal no time of Python's.
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute("SET enable_progress_bar = false")  # it would be among a job's messages
            try:
                yield connection
            except (duckdb.Error, RuntimeError) as error:
                if _INTERRUPTED.search(str(error)):
                    raise KeyboardInterrupt from error
                if not isinstance(error, duckdb.Error):
                    raise
                # The error of a reader that was registered, such as a table's missing file, without its traceback.
                reason = str(error).partition(" Detail: Python exception")[0]
                advice = f"; set TMPDIR to a folder with more room than {folder}" if "No space left" in reason else ""
                raise StoreError(f"query failed: {reason}{advice}") from error


def load(
    connection: duckdb.DuckDBPyConnection, name: str, rows: pa.Table | pa.RecordBatchReader, columns: str = "*"
) -> None:
    """Create a table of the connection from Arrow's rows; `columns` are expressions in SQL of the columns of `rows`.

    An error of a reader is raised as it is; DuckDB raises another one in its place.
    """
    errors: list[BaseException] = []
    if isinstance(rows, pa.RecordBatchReader):
        rows = pa.RecordBatchReader.from_batches(rows.schema, _remembering(errors, rows))
    connection.register("arrow_rows", rows)
    try:
        connection.execute(f"CREATE OR REPLACE TABLE {name} AS SELECT {columns} FROM arrow_rows")
    except duckdb.Error:
        if errors:
            raise errors[0] from None
        raise
    finally:
        connection.unregister("arrow_rows")


def _remembering(errors: list[BaseException], batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield the batches; append an error to `errors` before it is raised."""
    try:
        yield from batches
    except BaseException as error:
        errors.append(error)
        raise
