"""The failures table, and the account of a run: `listed = written + unchanged + failed`.

The account is computed from the tables after the run, not from counters, so that it is correct on every engine and
after every crash.
"""

import dataclasses
import datetime
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pyarrow as pa

from musictag.catalog.validation import Problem
from musictag.errors import AudioError, AudioUnreachableError, LedgerError
from musictag.jobs.plan import FailedTrack, Plan, Task, hidden_tracks
from musictag.jobs.progress import echo
from musictag.storage import parts, tables
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

    def __str__(self) -> str:
        return (
            f"{self.listed:,} listed = {self.written:,} written + {self.unchanged:,} unchanged + {self.failed:,} failed"
        )


def failure_row(task: Task, error: AudioError) -> dict[str, Any]:
    """Return the row of the failures table for a track that raised `error`."""
    return {
        "track_id": task.track_id,
        "uri": redacted(task.uri),
        "audio_etag": task.audio_etag,
        "stage": "fetch" if isinstance(error, AudioUnreachableError) else "decode",
        "error": type(error).__name__,
        "message": printable(redacted(str(error))),
        "attempts": task.attempts + 1,
        "failed_at": datetime.datetime.now(datetime.UTC),
    }


def read_failed(failures_uri: str) -> dict[str, FailedTrack]:
    """Read the failures table; if a track has several rows, use the row with the most attempts."""
    columns = ("track_id", "uri", "audio_etag", "error", "attempts")
    failed: dict[str, FailedTrack] = {}
    for row in tables.read_columns(failures_uri, columns).to_pylist():
        previous = failed.get(row["track_id"])
        if previous is None or row["attempts"] > previous.attempts:
            failed[row["track_id"]] = FailedTrack(row["uri"], row["audio_etag"], row["error"], row["attempts"])
    return failed


def record_failures(failures_uri: str, part: str, rows: Sequence[Mapping[str, Any]], since_version: int) -> None:
    """Commit failures as the part `part`, unless it was committed at or after the version `since_version`."""
    table = pa.Table.from_pylist(list(rows), FAILURES_SCHEMA)
    parts.write_table(failures_uri, part, FAILURES_SCHEMA, table, since_version)


def record_problems(failures_uri: str, problems: Sequence[Problem], failed: Mapping[str, FailedTrack]) -> None:
    """Commit catalog rows that cannot be used as failures of this run."""
    now = datetime.datetime.now(datetime.UTC)
    rows = [
        {
            "track_id": problem.track_id,
            "uri": redacted(problem.uri),
            "stage": "catalog",
            "error": "CatalogError",
            "message": printable(redacted(problem.reason)),
            "attempts": failed[problem.track_id].attempts + 1 if problem.track_id in failed else 1,
            "failed_at": now,
        }
        for problem in problems
    ]
    part = f"catalog-{now:%Y%m%dT%H%M%S%f}"
    parts.write_table(failures_uri, part, FAILURES_SCHEMA, pa.Table.from_pylist(rows, FAILURES_SCHEMA))


def reconcile(
    plan: Plan,
    problems: Sequence[Problem],
    written: Collection[str],
    failures_uri: str,
    started: datetime.datetime,
    *,
    prune: bool = False,
) -> Account:
    """Return the account of a run that began at `started`, and delete the failures that it resolved.

    Args:
        plan: the plan of the run.
        problems: catalog rows that cannot be used.
        written: tracks whose row now has the producer of the run.
        failures_uri: the failures table.
        started: the start of the run; later failures belong to it.
        prune: delete also the failures of tracks that are no longer listed.

    Raises:
        LedgerError: a task is neither written nor failed; the message names some.
    """
    failures = tables.read_columns(failures_uri, ("track_id", "failed_at")).to_pylist()
    recorded = {row["track_id"] for row in failures}
    failed_now = {row["track_id"] for row in failures if row["failed_at"] >= started}
    if missing := missing_tracks(plan, set(written), recorded, failed_now):
        raise LedgerError(
            f"{len(missing)} of {plan.n_listed} tracks are neither written nor failed, such as "
            f"{', '.join(sorted(missing)[:5])}: run again; if they stay missing, report a bug (failures: "
            f"{failures_uri})"
        )
    _delete_resolved_failures(plan, problems, recorded, failures_uri, started, prune=prune)
    tables.record_missing_checksums(failures_uri)
    return make_account(plan, len(problems), failed_now)


def missing_tracks(plan: Plan, written: set[str], recorded: set[str], failed_now: set[str]) -> set[str]:
    """Return tasks that are neither written nor failed in this run, and exhausted tracks without a recorded failure."""
    tasks = {task.track_id for task in plan.tasks}
    return (tasks - failed_now - written) | (plan.exhausted - recorded)


def make_account(plan: Plan, n_problems: int, failed_now: set[str]) -> Account:
    """Count the outcomes of a run without missing tracks; `failed_now` are the tracks that failed in it."""
    n_failed = sum(task.track_id in failed_now for task in plan.tasks)
    return Account(
        listed=plan.n_listed,
        written=len(plan.tasks) - n_failed,
        unchanged=len(plan.unchanged),
        failed=n_failed + len(plan.exhausted) + n_problems,
    )


def _delete_resolved_failures(
    plan: Plan,
    problems: Sequence[Problem],
    recorded: set[str],
    failures_uri: str,
    started: datetime.datetime,
    *,
    prune: bool,
) -> None:
    """Delete earlier failures of tracks that are done; with `prune`, also those of unlisted tracks."""
    is_earlier = f"failed_at < {tables.timestamp(started)}"
    if recorded and not prune:
        tables.delete_rows(failures_uri, f"{is_earlier} AND stage = 'catalog'")
    done = plan.unchanged.union(task.track_id for task in plan.tasks)
    resolved = recorded & done
    if prune:
        unlisted = recorded - done - plan.exhausted
        resolved |= unlisted - hidden_tracks(unlisted, problems)
    tables.delete_tracks(failures_uri, resolved, is_earlier)


def check_failures(account: Account, max_failures: float, failures_uri: str) -> None:
    """Raise `LedgerError` if the share of listed tracks that failed is above `max_failures` (0 to 1)."""
    if account.failed > max_failures * account.listed:
        raise LedgerError(
            f"{account.failed} of {account.listed} tracks failed, more than --max-failures {max_failures} allows: "
            f"see the reasons in {failures_uri}; everything else is written"
        )


def echo_account(account: Account, uri: str, failures_uri: str, started: datetime.datetime) -> None:
    """Print the last lines of a job: the account, duration and speed, and the uris of its tables."""
    seconds = (datetime.datetime.now(datetime.UTC) - started).total_seconds()
    cost = f"{seconds:.1f} s"
    if account.written:
        cost += f", {account.written / seconds * 3600:,.0f} tracks per hour"
    if account.failed:
        echo(f"{account.failed:,} failed: the reasons are in {failures_uri}")
    echo(f"{account} ({cost}); {uri}")
