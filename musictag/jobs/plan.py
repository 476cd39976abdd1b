"""The plan of a batch job: which of the listed tracks it processes, and which it skips.

Featurizing and tagging share it. A plan compares what is listed with what the output table holds and with the failures
of earlier runs. It is made by queries over columns, because ten million tracks do not fit into Python objects. The
tables of its connection:

- `listed`: `number, track_id, uri, stored_uri, audio_etag, is_missing, features_file, featurized_at`, a row for each
  track;
- `problems`: the rows of the catalog that cannot be used, with the columns of `validation.PROBLEMS_SCHEMA`;
- `rows_before`: `track_id, uri, audio_etag, producer, time, file`, the rows of the output table before the run, and
  `existing`, the newest of them for each track;
- `failed`: `track_id, uri, audio_etag, error, attempts`, one row for each track that failed in earlier runs;
- `plan`: the columns of `listed`, with the `state` of each track (`task`, `unchanged`, `exhausted`, `missing`, or
  `deferred` to the next run, see `budget`), its `attempts`, the `reason` why it is processed, whether it
  `is_backfill`: only the producer of its row is another one, the `existing_uri` and `existing_time` of its row, and
  whether that row `is_stale`: of other audio;
- `unlisted`: the tracks that have a row but are not listed, and whether that `is_hidden`.

Other modules add `copy_sources` and, after the tasks are processed, `rows_now`, `failures_now`, `outcomes`, `obsolete`
and `resolved` (`run`, `ledger`, `obsolete_rows`).
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping

import duckdb
import pyarrow as pa

from musictag.catalog.folder import describe_left_out
from musictag.errors import AudioMissingError, AudioTooLongError, AudioUnreachableError, CatalogError, LedgerError
from musictag.jobs.progress import counted, echo
from musictag.storage import queries
from musictag.storage.urls import redacted_column

# Errors worth retrying on unchanged audio: the store may answer, the file may exist now, a limit may have been raised,
# or a catalog row may have been corrected.
RETRYABLE_ERRORS = tuple(
    error.__name__ for error in (AudioUnreachableError, AudioMissingError, AudioTooLongError, CatalogError)
)
FAILED_STATES = ("exhausted", "missing")
"""States of tracks that count as failed without another attempt."""

LoadRows = Callable[[duckdb.DuckDBPyConnection, str], None]
"""Creates a table of a connection with the columns of `rows_before`, of the rows that the output table has now."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """The numbers of tracks of a run, by what the run does with them."""

    n_listed: int
    """Listed tracks, including catalog rows that cannot be used."""
    n_problems: int
    """Catalog rows that cannot be used."""
    n_tasks: int
    """Tracks that are new, changed, failed before, or whose row has another producer."""
    n_unchanged: int
    n_exhausted: int
    """Tracks that failed `max_attempts` times on the same audio; they count as failed without another attempt."""
    n_missing: int
    """Tracks whose file was missing in an earlier run and still is; they count as failed without another attempt."""
    n_existing: int
    """Tracks that have a row."""
    n_orphaned: int
    """Tracks that have a row but are no longer listed."""
    n_hidden: int
    """Tracks that have a row and may be listed in a folder or catalog row that cannot be read; the row stays."""
    n_without_etag: int
    """Tasks of which the store does not tell whether the audio has changed."""
    reasons: Mapping[str, int]
    """Why the tasks are processed: the number of tasks by reason, such as "new"."""


def load_listed(connection: duckdb.DuckDBPyConnection, listed: Iterable[pa.RecordBatch | pa.Table]) -> None:
    """Create the table `listed`.

    Args:
        connection: where to create it.
        listed: tables with the columns `track_id, uri, audio_etag`, and `is_missing` if the store was asked. Rows of a
            features table also have `features_file` and `featurized_at`, and of several rows of a track the newest one
            is listed.
    """
    schema = _LISTED_SCHEMA

    def batches() -> Iterator[pa.RecordBatch]:
        n_before = 0
        for table in listed:
            for batch in table.to_batches() if isinstance(table, pa.Table) else [table]:
                numbers = pa.array(range(n_before, n_before + len(batch)), pa.int64())
                n_before += len(batch)
                columns = {"number": numbers, "stored_uri": redacted_column(batch["uri"]), **_columns(batch)}
                arrays = [columns.get(field.name, pa.nulls(len(batch))).cast(field.type) for field in schema]
                yield pa.record_batch(arrays, schema)

    queries.load(connection, "listed", pa.RecordBatchReader.from_batches(schema, batches()))
    (n_featurized,) = connection.execute("SELECT count(featurized_at) FROM listed").fetchall()[0]
    if n_featurized:
        connection.execute(
            "CREATE OR REPLACE TABLE listed AS SELECT * FROM listed "
            "QUALIFY row_number() OVER (PARTITION BY track_id ORDER BY featurized_at DESC, features_file DESC) = 1"
        )


def _columns(batch: pa.RecordBatch) -> dict[str, pa.Array]:
    return dict(zip(batch.schema.names, batch.columns, strict=True))


_LISTED_SCHEMA = pa.schema(
    [
        ("number", pa.int64()),
        *((name, pa.string()) for name in ("track_id", "uri", "stored_uri", "audio_etag", "features_file")),
        ("is_missing", pa.bool_()),
        ("featurized_at", pa.timestamp("us", "UTC")),
    ]
)


def make_plan(connection: duckdb.DuckDBPyConnection, producer: str, max_attempts: int) -> Plan:
    """Compare the listed tracks with the output table and with the failures of earlier runs.

    A track is unchanged if its row has the same uri, etag and producer. If the etag of a track is unknown, the track is
    tried again and an existing row is kept: the audio may be the same although the store did not answer. A file that
    was missing in an earlier run is not tried again before it exists.

    Args:
        connection: holds `listed`, `problems`, `rows_before` and `failed`; `existing`, `plan` and `unlisted` are
            created.
        producer: hash of the settings, or digest of the model, that produces the rows of this run.
        max_attempts: number of runs that may try to decode the same audio.
    """
    ((n_repeated,),) = connection.execute("SELECT count(*) - count(DISTINCT track_id) FROM listed").fetchall()
    if n_repeated:
        raise LedgerError(f"{n_repeated:,} tracks are listed twice: this is a bug of musictag, please report it")
    connection.execute(_EXISTING)
    connection.execute(_PLAN, {"producer": producer, "max_attempts": max_attempts, "retryable": list(RETRYABLE_ERRORS)})
    connection.execute(_UNLISTED)
    counts = dict(connection.execute("SELECT state, count(*) FROM plan GROUP BY state").fetchall())
    (n_problems,) = connection.execute("SELECT count(*) FROM problems").fetchall()[0]
    (n_existing,) = connection.execute("SELECT count(*) FROM existing").fetchall()[0]
    hidden = dict(connection.execute("SELECT is_hidden, count(*) FROM unlisted GROUP BY is_hidden").fetchall())
    (n_without_etag,) = connection.execute(
        "SELECT count(*) FROM plan WHERE state = 'task' AND audio_etag IS NULL"
    ).fetchall()[0]
    reasons = connection.execute("SELECT reason, count(*) FROM plan WHERE state = 'task' GROUP BY reason").fetchall()
    return Plan(
        n_listed=sum(counts.values()) + n_problems,
        n_problems=n_problems,
        n_tasks=counts.get("task", 0),
        n_unchanged=counts.get("unchanged", 0),
        n_exhausted=counts.get("exhausted", 0),
        n_missing=counts.get("missing", 0),
        n_existing=n_existing,
        n_orphaned=hidden.get(False, 0),
        n_hidden=hidden.get(True, 0),
        n_without_etag=n_without_etag,
        reasons=dict(reasons),
    )


# Two simultaneous runs, or a killed one, may have left several rows of a track.
_EXISTING = """
CREATE OR REPLACE TABLE existing AS
SELECT * FROM rows_before
QUALIFY row_number() OVER (PARTITION BY track_id ORDER BY time DESC, file DESC) = 1
"""

# The size in an etag of size and time, bytes; null for other etags.
_SIZE = "CASE WHEN regexp_full_match({etag}, '[0-9]+-.+') THEN split_part({etag}, '-', 1) END"
SIZE_OF_LISTED, SIZE_OF_ROW = _SIZE.format(etag="listed.audio_etag"), _SIZE.format(etag="existing.audio_etag")

_PLAN = f"""
CREATE OR REPLACE TABLE plan AS
SELECT
    listed.*,
    CASE
        WHEN existing.uri = stored_uri AND existing.audio_etag = listed.audio_etag AND producer = $producer
            THEN 'unchanged'
        WHEN is_same_failure AND error NOT IN (SELECT unnest($retryable)) AND listed.audio_etag IS NOT NULL
            AND failed.attempts >= $max_attempts
            THEN 'exhausted'
        WHEN is_same_failure AND error = '{AudioMissingError.__name__}' AND is_missing THEN 'missing'
        ELSE 'task'
    END AS state,
    CASE WHEN is_same_failure THEN failed.attempts ELSE 0 END AS attempts,
    CASE
        WHEN is_same_failure THEN 'failed before'
        WHEN existing.track_id IS NULL THEN 'new'
        WHEN existing.uri <> stored_uri THEN 'with another uri'
        WHEN listed.audio_etag IS NULL THEN 'without an etag'
        WHEN existing.audio_etag = listed.audio_etag
            THEN CASE WHEN producer = '' THEN 'by a deleted model' ELSE 'by another model' END
        WHEN {SIZE_OF_ROW} IS NULL OR {SIZE_OF_LISTED} IS NULL THEN 'with another etag'
        WHEN {SIZE_OF_ROW} = {SIZE_OF_LISTED} THEN 'with another time'
        ELSE 'with another size'
    END AS reason,
    reason LIKE 'by %' AS is_backfill,
    existing.uri AS existing_uri,
    existing.time AS existing_time,
    -- Without an etag, the audio may be that of the row.
    listed.audio_etag IS NOT NULL AND (existing.uri <> stored_uri OR existing.audio_etag <> listed.audio_etag)
        IS TRUE AS is_stale
FROM listed
LEFT JOIN existing USING (track_id)
LEFT JOIN failed USING (track_id),
LATERAL (
    SELECT coalesce(
        failed.uri = stored_uri AND failed.audio_etag IS NOT DISTINCT FROM listed.audio_etag, false
    ) AS is_same_failure
)
"""

# The tracks of a table that may be in a folder that cannot be listed: it may hold every track below it. Joining by each
# folder of a track takes time in proportion to the tracks, not to tracks times folders.
IN_UNREADABLE_FOLDERS = """
    SELECT DISTINCT in_folders.track_id
    FROM (
        SELECT track_id, unnest(list_transform(
            range(1, len(string_split(track_id, '/'))),
            lambda n: array_to_string(string_split(track_id, '/')[1:n], '/') || '/'
        )) AS folder
        FROM {tracks}
        WHERE EXISTS (SELECT 1 FROM problems WHERE row IS NULL)
    ) AS in_folders
    JOIN problems ON folder = problems.track_id AND problems.row IS NULL
"""

# A track is hidden if it may be listed in a part of the catalog that cannot be read. A row without a readable id may be
# any track.
_UNLISTED = f"""
CREATE OR REPLACE TABLE unlisted AS
WITH
    unlisted AS (
        SELECT track_id FROM existing
        ANTI JOIN listed USING (track_id)
        ANTI JOIN problems USING (track_id)
    ),
    hidden AS ({IN_UNREADABLE_FOLDERS.format(tracks="unlisted")})
SELECT
    unlisted.track_id,
    hidden.track_id IS NOT NULL OR EXISTS (SELECT 1 FROM problems WHERE hides_any_track) AS is_hidden
FROM unlisted LEFT JOIN hidden USING (track_id)
"""


def echo_plan(source: str, plan: Plan, purpose: str, *, unlisted: str, left_out: Mapping[str, int]) -> None:
    """Print what a run will do with the tracks of `source`, a catalog or a features table.

    Args:
        source: name of the catalog or table.
        plan: the plan.
        purpose: words after the number of tasks.
        unlisted: words on what becomes of the rows of tracks that are not listed any more.
        left_out: counts the files of a folder that are not listed (see `catalog.folder.FolderListing`).
    """
    reasons = ", ".join(f"{n:,} {reason}" for reason, n in sorted(plan.reasons.items(), key=lambda item: -item[1]))
    echo(f"{source}: {counted(plan.n_listed, 'track')} listed, {plan.n_tasks:,} {purpose}{reasons and f': {reasons}'}")
    if left_out:
        echo(f"left out: {describe_left_out(left_out)}")
    if plan.n_without_etag:
        tracks = counted(plan.n_without_etag, "track")
        echo(f"read again, because the store does not tell whether the audio has changed: {tracks}")
    if plan.n_exhausted:
        n_exhausted = counted(plan.n_exhausted, "listed track")
        echo(f"not tried again, failed --max-attempts times on the same audio: {n_exhausted}")
    if plan.n_missing:
        echo(f"not tried again, because the file is still missing: {counted(plan.n_missing, 'listed track')}")
    if plan.n_orphaned:
        echo(f"not listed any more: {counted(plan.n_orphaned, 'track')}, {unlisted}")
    if plan.n_hidden:
        echo(f"perhaps listed in folders or rows that cannot be read: {counted(plan.n_hidden, 'track')}, kept")
