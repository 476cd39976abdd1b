"""Remove rows that a run has replaced, once for all tracks at its end.

Until then, readers may see two rows of a track, of which the newer one counts; a killed run leaves them, and the next
one removes them.
"""

import duckdb

from musictag.jobs.output import Output
from musictag.jobs.plan import LoadRows
from musictag.storage import commits, rewrite


def remove_obsolete_rows(
    connection: duckdb.DuckDBPyConnection, output: Output, load_rows: LoadRows, *, prune: bool
) -> None:
    """Remove the rows that are no longer needed from the output table.

    These are all but the newest row of each track (a row of this run is newer than those before it), stale rows
    (of other audio than the listed one, unless the track is deferred to the next run), and with `prune` the rows of
    tracks that are no longer listed (unless a deferred track, such as a renamed one, may copy them in the next run).

    Args:
        connection: holds the tables of `plan` and of `copy_sources`, and `rows_now` with the present rows.
        output: the output of the run.
        load_rows: reads `rows_now` again after a conflict with another run.
        prune: whether to remove the rows of unlisted tracks.
    """

    def remove() -> None:
        connection.execute(_OBSOLETE, {"prune": prune})
        rewrite.remove_rows(connection, "obsolete", output.uri, output.time_column)

    commits.repeat_after_conflicts(remove, lambda: load_rows(connection, "rows_now"))


_OBSOLETE = """
CREATE OR REPLACE TABLE obsolete AS
SELECT file, track_id, time
FROM (
    SELECT
        track_id, time, file,
        -- The clocks of workers differ: a row of this run is newer than those before it, whatever its time is.
        row_number() OVER (PARTITION BY track_id ORDER BY was_there IS NULL DESC, time DESC, file DESC) AS age
    FROM rows_now LEFT JOIN (SELECT DISTINCT track_id, time, true AS was_there FROM rows_before) USING (track_id, time)
)
LEFT JOIN plan USING (track_id)
LEFT JOIN unlisted USING (track_id)
WHERE age > 1
    OR (is_stale AND time = existing_time AND state <> 'deferred')
    OR ($prune AND NOT is_hidden AND track_id NOT IN (
        SELECT source_track_id FROM copy_sources JOIN plan USING (track_id) WHERE state = 'deferred'
    ))
"""
