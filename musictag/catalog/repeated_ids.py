"""Find the rows of a catalog that have the same id."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from musictag.storage import queries

KEYS_SCHEMA = pa.schema([pa.field("row", pa.int64()), pa.field("key", pa.binary())])
"""The number of a row, and its id as bytes."""
N_SHOWN = 5

# Only ids whose hashes are repeated are compared: a query that groups ten million ids takes a gigabyte.
_HASHES = "SELECT hash(key) AS hash FROM ids WHERE key IS NOT NULL"
_REPEATED = f"""
    WITH candidates AS (
        SELECT row, key FROM ids SEMI JOIN repeated_hashes ON hash(ids.key) = repeated_hashes.hash
    ), repeated AS (
        SELECT key, array_to_string(min(row, {N_SHOWN}), ', ') AS rows FROM candidates GROUP BY key HAVING count(*) > 1
    )
    SELECT row, 'track_id is not unique: rows ' || rows || ' have it; none is used' AS message
    FROM candidates JOIN repeated USING (key) ORDER BY row
"""  # nothing of it comes from outside


def repeated_ids(keys: Iterable[pa.Table]) -> tuple[npt.NDArray[np.int64], pa.StringArray]:
    """Return the numbers of the rows whose id other rows have, ascending, and a message for each; both are (N,).

    Args:
        keys: tables of `KEYS_SCHEMA`.
    """
    with queries.connect() as connection:
        connection.register("ids", pa.concat_tables([KEYS_SCHEMA.empty_table(), *keys]))
        hashes = np.sort(connection.sql(_HASHES).to_arrow_table()["hash"].to_numpy())
        repeated_hashes = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
        connection.register("repeated_hashes", pa.table({"hash": repeated_hashes}))
        found: pa.Table = connection.sql(_REPEATED).to_arrow_table()
    return found["row"].to_numpy(), found["message"].combine_chunks().cast(pa.string())
