"""The failures table, and the account of a run: `listed = written + unchanged + failed + deferred`.

The account is computed from the tables after the run, not from counters, so that it is correct on every engine and
after every crash. All of it are queries over the tables of `plan`.
"""

import dataclasses
import datetime
import math
from collections.abc import Iterator
from typing import Any

import duckdb
import pyarrow as pa

from musictag.errors import AudioError, AudioUnreachableError, LedgerError
from musictag.jobs.budget import count_deferred, defer_unprocessed
from musictag.jobs.cost import Cost
from musictag.jobs.plan import FAILED_STATES, IN_UNREADABLE_FOLDERS, Plan
from musictag.jobs.plan_files import Task
from musictag.jobs.progress import echo
from musictag.storage import commits, data_files, queries, rewrite, tables
from musictag.storage.text import printable
from musictag.storage.urls import redacted

FAILURES_SCHEMA = pa.schema(
    [
        ("track_id", pa.string()),
        ("uri", pa.string()),
        ("audio_etag", pa.string()),
        ("stage", pa.string()),
        ("error", pa.string()),
        ("message", pa.string()),
        ("attempts", pa.int32()),
        ("failed_at", pa.timestamp("us", "UTC")),
    ]
)


@dataclasses.dataclass(frozen=True)
class Account:
    """The number of tracks with each outcome of a run."""

    listed: int
    written: int
    unchanged: int
    failed: int
    deferred: int = 0
    """Tracks that are left to the next run, because this one had reached its limits."""

    def __str__(self) -> str:
        text = (
            f"{self.listed:,} listed = {self.written:,} written + {self.unchanged:,} unchanged + {self.failed:,} failed"
        )
        return text + (f" + {self.deferred:,} deferred" if self.deferred else "")

    @property
    def runs_left(self) -> int | None:
        """Return how many further runs the deferred tracks need, if each writes as many; None if this wrote none."""
        if not self.deferred:
            return 0
        return math.ceil(self.deferred / self.written) if self.written else None


def failure_row(task: Task, error: AudioError) -> dict[str, Any]:
    """Return the row of the failures table for a track that raised `error`; whoever commits it adds the time."""
    return {
        "track_id": task.track_id,
        "uri": redacted(task.uri),
        "audio_etag": task.audio_etag,
        "stage": "fetch" if isinstance(error, AudioUnreachableError) else "decode",
        "error": type(error).__name__,
        "message": printable(redacted(str(error))),
        "attempts": task.attempts + 1,
    }


def load_earlier_failures(connection: duckdb.DuckDBPyConnection, failures_uri: str | None) -> None:
    """Create the table `failed` of the failures in earlier runs; of several rows of a track, the one of most attempts.

    It has no rows for a job that tries all tracks again, whose `failures_uri` is None.
    """
    columns = ("track_id", "uri", "audio_etag", "error", "attempts")
    schema = pa.schema([FAILURES_SCHEMA.field(name) for name in columns])
    queries.load(connection, "failures", tables.scan(failures_uri, columns) if failures_uri else schema.empty_table())
    connection.execute(
        "CREATE OR REPLACE TABLE failed AS SELECT * FROM failures "
        "QUALIFY row_number() OVER (PARTITION BY track_id ORDER BY attempts DESC) = 1"
    )


def record_problems(connection: duckdb.DuckDBPyConnection, failures_uri: str) -> None:
    """Commit the catalog rows that cannot be used as failures of this run."""
    now = datetime.datetime.now(datetime.UTC)

    def batches() -> Iterator[pa.Table]:
        for batch in connection.sql(_PROBLEMS).to_arrow_reader():
            rows = [
                {**row, "uri": redacted(row["uri"]), "message": printable(redacted(row["message"])), "failed_at": now}
                for row in batch.to_pylist()
            ]
            yield pa.Table.from_pylist(rows, FAILURES_SCHEMA)

    commits.add_files(failures_uri, FAILURES_SCHEMA, data_files.write_batches(failures_uri, FAILURES_SCHEMA, batches()))


_PROBLEMS = """
SELECT
    problems.track_id,
    problems.uri,
    NULL::VARCHAR AS audio_etag,
    'catalog' AS stage,
    'CatalogError' AS error,
    CASE WHEN row IS NULL THEN message ELSE 'row ' || row || ': ' || message END AS message,
    coalesce(failed.attempts, 0) + 1 AS attempts
FROM problems LEFT JOIN failed USING (track_id)
"""


def load_present_failures(connection: duckdb.DuckDBPyConnection, failures_uri: str) -> None:
    """Create the table `failures_now` with the `track_id`, `stage`, `time` and `file` of each present failure."""
    rows = tables.scan(failures_uri, ("track_id", "stage", "failed_at", tables.FILE))
    columns = "track_id, stage, failed_at AS time, file"
    queries.load(connection, "failures_now", rows, columns)


def make_account(
    connection: duckdb.DuckDBPyConnection,
    plan: Plan,
    failures_uri: str,
    planned_at: datetime.datetime,
    *,
    was_stopped: bool = False,
) -> Account:
    """Return the account of a run.

    A task is written if the output table has a row of it that was not there before the run. After a run that
    `was_stopped`, tasks without an outcome are deferred.

    Args:
        connection: holds the tables of `plan`, `rows_now` with the rows of the output table after the run, and
            `failures_now`.
        plan: the plan of the run.
        failures_uri: the failures table, for messages.
        planned_at: the time of the plan; later failures belong to the run.

    Raises:
        LedgerError: a task is neither written nor failed, or the failure of a track that is not tried again is
            not recorded; the message names some.
    """
    connection.execute(_OUTCOMES, {"planned_at": planned_at})
    if was_stopped:
        defer_unprocessed(connection)
    lost = connection.execute(_LOST).fetchall()
    counts = dict(connection.execute("SELECT outcome, count(*) FROM outcomes GROUP BY outcome").fetchall())
    if lost:
        raise LedgerError(
            f"{counts['lost']:,} of {plan.n_listed:,} tracks are neither written nor failed, such as "
            f"{', '.join(track_id for (track_id,) in lost)}: run again; if they stay missing, report a bug "
            f"(failures: {failures_uri})"
        )
    return Account(
        listed=plan.n_listed,
        written=counts.get("written", 0),
        unchanged=plan.n_unchanged,
        failed=counts.get("failed", 0) + plan.n_problems,
        deferred=count_deferred(connection),
    )


_LOST = "SELECT track_id FROM outcomes WHERE outcome = 'lost' ORDER BY track_id LIMIT 5"
_OUTCOMES = f"""
CREATE OR REPLACE TABLE outcomes AS
WITH
    new_rows AS (
        SELECT DISTINCT track_id FROM rows_now
        ANTI JOIN rows_before ON rows_now.track_id = rows_before.track_id AND rows_now.time = rows_before.time
    ),
    failed_now AS (SELECT DISTINCT track_id FROM failures_now WHERE time >= $planned_at),
    recorded AS (SELECT DISTINCT track_id FROM failures_now)
SELECT
    track_id,
    CASE
        WHEN new_rows.track_id IS NOT NULL THEN 'written'
        WHEN state IN {FAILED_STATES} AND recorded.track_id IS NOT NULL THEN 'failed'
        WHEN failed_now.track_id IS NOT NULL THEN 'failed'
        ELSE 'lost'
    END AS outcome
FROM plan
LEFT JOIN new_rows USING (track_id)
LEFT JOIN failed_now USING (track_id)
LEFT JOIN recorded USING (track_id)
WHERE state NOT IN ('unchanged', 'deferred')
"""


def oldest_waiting(connection: duckdb.DuckDBPyConnection) -> datetime.datetime | None:
    """Return when the oldest features were made of the tracks that have no row; None if there are no such tracks.

    `connection` holds the tables of `plan`, and `outcomes` after a run. Tracks of a catalog have no such time.
    """
    has_outcomes = connection.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = 'outcomes'").fetchall()
    written = "ANTI JOIN (SELECT track_id FROM outcomes WHERE outcome = 'written') USING (track_id)"
    ((found,),) = connection.execute(
        f"SELECT min(featurized_at) FROM plan {written if has_outcomes else ''} WHERE existing_uri IS NULL"
    ).fetchall()
    return found if isinstance(found, datetime.datetime) else None


def count_failures(
    connection: duckdb.DuckDBPyConnection, failures_uri: str, planned_at: datetime.datetime
) -> dict[str, int]:
    """Return the number of failed tracks of a run by error, such as `AudioEmptyError`, the most frequent one first.

    `connection` holds the tables of `plan`; failures that are later than `planned_at` belong to the run, and those of
    tracks that are not tried again.
    """
    columns = ("track_id", "error", "failed_at")
    connection.register("recorded_failures", tables.scan(failures_uri, columns))
    rows = connection.execute(_COUNTS, {"planned_at": planned_at}).fetchall()
    connection.unregister("recorded_failures")
    return dict(rows)


_COUNTS = f"""
WITH newest AS (
    SELECT track_id, error, failed_at FROM recorded_failures
    QUALIFY row_number() OVER (PARTITION BY track_id ORDER BY failed_at DESC) = 1
)
SELECT error, count(*) AS n
FROM newest LEFT JOIN plan USING (track_id)
WHERE failed_at >= $planned_at OR state IN {FAILED_STATES}
GROUP BY error
ORDER BY n DESC, error
"""


def delete_resolved_failures(
    connection: duckdb.DuckDBPyConnection, failures_uri: str, planned_at: datetime.datetime, *, prune: bool
) -> None:
    """Delete earlier failures of tracks that are done and of catalog rows; with `prune`, also of unlisted tracks."""

    def remove() -> None:
        connection.execute(_RESOLVED, {"planned_at": planned_at, "prune": prune})
        rewrite.remove_rows(connection, "resolved", failures_uri, "failed_at")

    commits.repeat_after_conflicts(remove, lambda: load_present_failures(connection, failures_uri))


# Failures of tracks that may be listed in what cannot be read stay, as their rows do; see `plan`.
_RESOLVED = f"""
CREATE OR REPLACE TABLE resolved AS
WITH
    earlier AS (SELECT * FROM failures_now WHERE time < $planned_at),
    unlisted_failures AS (
        SELECT DISTINCT track_id FROM earlier ANTI JOIN plan USING (track_id)
        WHERE NOT EXISTS (SELECT 1 FROM problems WHERE hides_any_track)
    ),
    hidden AS ({IN_UNREADABLE_FOLDERS.format(tracks="unlisted_failures")})
SELECT file, earlier.track_id, time
FROM earlier
LEFT JOIN plan USING (track_id)
LEFT JOIN unlisted_failures USING (track_id)
LEFT JOIN hidden USING (track_id)
WHERE state IN ('task', 'unchanged')
    OR ($prune AND unlisted_failures.track_id IS NOT NULL AND hidden.track_id IS NULL)
    OR stage = 'catalog'
"""


def check_failures(account: Account, max_failures: float, failures_uri: str) -> None:
    """Raise `LedgerError` if the share of listed tracks that failed is above `max_failures` (0 to 1)."""
    if account.failed > max_failures * account.listed:
        raise LedgerError(
            f"{account.failed} of {account.listed} tracks failed, more than --max-failures {max_failures} allows: "
            f"see the reasons in {failures_uri}; everything else is written"
        )


def echo_account(
    account: Account, uri: str, failures_uri: str, started: datetime.datetime, cost: Cost | None = None
) -> None:
    """Print the last lines of a job: the account, duration, speed and cost, and the uris of its tables."""
    seconds = (datetime.datetime.now(datetime.UTC) - started).total_seconds()
    text = f"{seconds:.1f} s"
    if account.written:
        text += f", {account.written / seconds * 3600:,.0f} tracks per hour"
    if cost is not None and cost.n_tracks:
        text += f", {cost}"
    if account.failed:
        echo(f"{account.failed:,} failed: the reasons are in {failures_uri}")
    if account.deferred:
        n_runs = "unknown" if account.runs_left is None else f"{account.runs_left:,}"
        echo(f"{account.deferred:,} deferred: the limit of this run was reached; runs left at this rate: {n_runs}")
    echo(f"{account} ({text}); {uri}")
