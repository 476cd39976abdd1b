"""Execute a run: plan, process, reconcile. Each job passes a function that processes the tasks by its engine."""

import dataclasses
import datetime
from collections.abc import Callable, Iterable

from musictag.catalog.reader import Catalog
from musictag.catalog.validation import iter_problems
from musictag.errors import LedgerError
from musictag.jobs.copy_sources import echo_known_audio, with_copy_sources
from musictag.jobs.ledger import check_failures, echo_account, read_failed, reconcile, record_problems
from musictag.jobs.plan import ExistingRow, Plan, delete_obsolete_rows, echo_plan, make_plan
from musictag.jobs.sharing import check_not_shared, moved_tasks
from musictag.storage import tables


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """What a run reads and writes. The tables must exist."""

    source: str
    """Name of the catalog or features table in messages."""
    listed: Iterable[tuple[str, str, str | None]]
    """`(track_id, uri, audio_etag)` of each listed track."""
    catalog: Catalog | None
    """The catalog that lists the tracks; None if a table lists them."""
    output_uri: str
    """The table to write."""
    failures_uri: str
    producer: str
    """Hash of the settings, or name and version of the model, that produces the rows."""
    read_existing: Callable[[], dict[str, ExistingRow]]
    """Returns the existing row of each track, by track_id; called before and after processing."""
    copies_rows: bool
    """Whether `process` copies the row of a task with the same audio instead of decoding it."""
    time_column: str
    """Column of the output table with the time at which a row was made."""
    max_attempts: int | None
    """Number of runs that may try to decode the same audio; None for a job that does not decode audio."""
    max_failures: float
    """Share of the listed tracks (0 to 1) that may fail."""
    prune: bool
    """Whether to delete the rows of tracks that are no longer listed."""
    prune_limit: float
    """Largest share of the rows (0 to 1) that `prune` may delete."""
    replace: bool
    """Whether the rows of a track may be replaced although other audio is still at their uri."""
    started: datetime.datetime
    """The start of the run; failures recorded after it belong to this run."""


def execute(run: Run, process: Callable[[Plan], None], *, purpose: str) -> None:
    """Plan the run, process its tasks, and check the account.

    Args:
        run: the run.
        process: writes a row or a failure for each task of the plan; not called if there is no task.
        purpose: words after the number of tasks in the first message, such as "to do".

    Raises:
        UsageError: the output table holds the rows of another catalog.
        LedgerError: a task is neither written nor failed, more tracks failed than `max_failures` allows, or more rows
            are of unlisted tracks than `prune_limit` allows; then none of these rows is deleted.
    """
    problems, left_out = (tuple(iter_problems(run.catalog.problems)), run.catalog.left_out) if run.catalog else ((), {})
    # A job that does not decode audio ignores earlier failures and tries all tracks again.
    failed = {} if run.max_attempts is None else read_failed(run.failures_uri)
    existing = run.read_existing()
    plan = make_plan(run.listed, existing, run.producer, failed, run.max_attempts or 1, problems)
    if not run.replace:
        check_not_shared(moved_tasks(plan, existing), run.source, run.output_uri)
    exceeds_limit = run.prune and len(plan.orphaned) > run.prune_limit * len(existing)
    prune = run.prune and not exceeds_limit
    echo_plan(run.source, plan, purpose, prune=prune, left_out=left_out)
    if run.copies_rows:
        plan = with_copy_sources(plan, existing, run.producer, run.output_uri)
    record_problems(run.failures_uri, problems, failed)
    delete_obsolete_rows(plan, run.output_uri, prune=prune)
    if plan.tasks:
        process(plan)
    tables.deduplicate(run.output_uri, run.time_column)  # two simultaneous runs may have written a track twice
    tables.record_missing_checksums(run.output_uri)  # a killed delete may have left files without a checksum
    echo_known_audio(plan, run.output_uri)
    written = [track_id for track_id, row in run.read_existing().items() if row.producer == run.producer]
    account = reconcile(plan, problems, written, run.failures_uri, run.started, prune=prune)
    echo_account(account, run.output_uri, run.failures_uri, run.started)
    check_failures(account, run.max_failures, run.failures_uri)
    if exceeds_limit:
        raise LedgerError(
            f"{run.source}: {len(plan.orphaned):,} of the {len(existing):,} tracks in {run.output_uri} are not listed "
            f"any more, more than --prune-limit {run.prune_limit:g} allows: they were kept. If they are really gone, "
            "raise the limit"
        )
