"""Find rows that may be copied instead of decoding their audio again.

A library that moved, or whose files were touched, has other uris or etags, but the same audio. Workers read each file
and compare its digest with that of the earlier row; if they are equal, they copy the row. The earlier row may be
deleted already: its file stays until the table is vacuumed.
"""

import datetime
from collections.abc import Callable
from typing import Any

import duckdb
import pyarrow as pa

from musictag.errors import StoreError
from musictag.features.limits import Limits
from musictag.jobs.output import Output
from musictag.jobs.plan import SIZE_OF_LISTED, SIZE_OF_ROW
from musictag.jobs.plan_files import Task
from musictag.storage import tables

Row = dict[str, Any]
FindRow = Callable[[Task, str], Row | None]
"""Returns the row to copy for a task whose audio has the given SHA-256; None if the audio has to be decoded."""

# Reading one row takes time in proportion to the rows of its file.
_MAX_FILE_ROWS = 1_000


def create_copy_sources(connection: duckdb.DuckDBPyConnection, producer: str, output_uri: str | None) -> None:
    """Create the table `copy_sources`, with the row of the output table that may have the audio of a task.

    It is a row with the run's producer, of one of these tracks:

    - the same track, if its size is the same or not known;
    - a track that is not among the listed ones, with the same etag, or with the same file name and size. A hidden track
      is perhaps listed, but its row may be copied as well: only equal audio is.

    Args:
        connection: holds the tables of `plan`.
        producer: the run's producer.
        output_uri: the table whose rows may be copied; None if the job copies none.
    """
    connection.execute(_CANDIDATES, {"producer": producer})
    (n_candidates,) = connection.execute("SELECT count(*) FROM candidates").fetchall()[0]
    columns = ("track_id", "audio_sha256", tables.FILE)
    if n_candidates and output_uri is not None:
        digests = tables.scan(output_uri, columns)
    else:
        digests = pa.table({name: pa.array([], pa.string()) for name in columns})
    connection.register("digests", digests)
    connection.execute(_COPY_SOURCES, {"max_file_rows": _MAX_FILE_ROWS})
    connection.unregister("digests")


_FILE_NAME = "regexp_extract({uri}, '[^/]*$')"
_CANDIDATES = f"""
CREATE OR REPLACE TABLE candidates AS
WITH
    tasks AS (SELECT * FROM plan AS listed WHERE state = 'task' AND audio_etag IS NOT NULL),
    new AS (SELECT * FROM tasks WHERE existing_uri IS NULL),
    old AS (
        SELECT existing.* FROM existing JOIN unlisted USING (track_id) WHERE producer = $producer
    ),
    -- One row for each key before it is joined: many tracks may have one name and size.
    by_etag AS (SELECT audio_etag, min(track_id) AS source_track_id FROM old GROUP BY audio_etag),
    by_name AS (
        SELECT {_FILE_NAME.format(uri="existing.uri")} AS name, {SIZE_OF_ROW} AS size, min(track_id) AS source_track_id
        FROM old AS existing
        GROUP BY name, size
    ),
    same_etag AS (SELECT track_id, source_track_id FROM new JOIN by_etag USING (audio_etag)),
    same_name AS (
        SELECT track_id, source_track_id
        FROM new AS listed JOIN by_name
            ON name = {_FILE_NAME.format(uri="listed.uri")} AND size = {SIZE_OF_LISTED}
    )
SELECT track_id, coalesce(same_etag.source_track_id, same_name.source_track_id) AS source_track_id
FROM same_etag FULL JOIN same_name USING (track_id)
UNION ALL
SELECT track_id, track_id
FROM tasks AS listed JOIN existing USING (track_id)
WHERE is_stale AND producer = $producer AND ({SIZE_OF_ROW} = {SIZE_OF_LISTED}) IS NOT FALSE
"""
_COPY_SOURCES = """
CREATE OR REPLACE TABLE copy_sources AS
SELECT
    candidates.track_id, source_track_id, audio_sha256 AS source_sha256, existing.file AS source_file
FROM candidates
JOIN existing ON existing.track_id = source_track_id
JOIN digests ON digests.track_id = source_track_id AND digests.file = existing.file
WHERE audio_sha256 IS NOT NULL
    AND existing.file IN (SELECT file FROM rows_before GROUP BY file HAVING count(*) <= $max_file_rows)
QUALIFY row_number() OVER (PARTITION BY candidates.track_id) = 1
"""


def count_known_audio(connection: duckdb.DuckDBPyConnection, output_uri: str) -> int:
    """Return the number of tasks that have now a row with the audio of the row that they could copy."""
    (n_sources,) = connection.execute("SELECT count(*) FROM copy_sources").fetchall()[0]
    if not n_sources:
        return 0
    connection.register("digests", tables.scan(output_uri, ("track_id", "audio_sha256")))
    found = connection.execute(
        "SELECT count(DISTINCT track_id) FROM copy_sources JOIN digests USING (track_id) "
        "WHERE audio_sha256 = source_sha256"
    ).fetchall()
    connection.unregister("digests")
    return int(found[0][0])


def find_row(task: Task, sha256: str, output: Output, limits: Limits) -> Row | None:
    """Return the row of the output to copy for a task, made now; None if the audio has to be decoded.

    A row is copied only if its audio has the digest `sha256`, and its damage is known and within the limits.
    """
    source = task.copy_source
    if source is None or source.audio_sha256 != sha256:
        return None
    try:
        found = tables.read_file(output.uri, source.file, output.schema, {source.track_id})
        # A file that was joined with others may hold older rows of the track, too.
        same = [row for rows in found for row in rows.to_pylist() if row["audio_sha256"] == sha256]
        row = max(same, key=lambda row: row[output.time_column], default=None)
    except StoreError:  # the file was vacuumed, or is damaged: the audio is there, and is decoded
        return None
    if row is None or row["damaged_s"] is None:
        return None
    duration_s = row.get("duration_s")  # tags rows do not have it
    is_allowed = row["damaged_s"] <= limits.max_damage * duration_s if duration_s else not row["damaged_s"]
    return {**row, output.time_column: datetime.datetime.now(datetime.UTC)} if is_allowed else None
