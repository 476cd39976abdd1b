"""The life of a run: plan, process, reconcile. What differs between jobs is handed in."""

import dataclasses
import datetime
from collections.abc import Callable, Iterable, Sequence

from musictag.catalog.reader import Problem
from musictag.jobs.ledger import check_failures, echo_account, read_failed, reconcile, record_problems
from musictag.jobs.plan import ExistingRow, Plan, delete_obsolete_rows, echo_plan, make_plan
from musictag.storage import tables


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """What a run reads and writes; its tables exist."""

    source: str
    """Catalog or features table, as messages name it."""
    listed: Iterable[tuple[str, str, str | None]]
    """`(track_id, uri, audio_etag)` of each listed track."""
    problems: Sequence[Problem] = ()
    """Catalog rows that cannot be used."""
    uri: str
    """The output table."""
    failures_uri: str
    producer: str
    """Hash of the settings, or name and version of the model, that produces the rows."""
    read_existing: Callable[[], dict[str, ExistingRow]]
    """Reads the output table."""
    time_column: str
    """Column of the output table that says when a row was made."""
    max_attempts: int | None
    """Runs that may try to decode the same audio; None where nothing is decoded."""
    max_failures: float
    """Share of the listed tracks (0 to 1) that may fail."""
    prune: bool
    """Whether to delete the rows of tracks that are no longer listed."""
    started: datetime.datetime


def execute(run: Run, process: Callable[[Plan], None], purpose: str) -> None:
    """Plan the run, have `process` write rows and failures for the plan's tasks, and check the account.

    `process` is the engine's step. It is not called where there is no task. `purpose` is what the first message says
    of the tasks, such as "to do".

    Raises:
        LedgerError: a task is neither written nor failed, or more tracks failed than `max_failures` allows.
    """
    failed = {} if run.max_attempts is None else read_failed(run.failures_uri)
    plan = make_plan(run.listed, run.read_existing(), run.producer, failed, run.max_attempts or 1, run.problems)
    echo_plan(run.source, plan, purpose, prune=run.prune)
    record_problems(run.failures_uri, run.problems, failed)
    delete_obsolete_rows(plan, run.uri, prune=run.prune)
    if plan.tasks:
        process(plan)
    tables.deduplicate(run.uri, run.time_column)  # two runs at once may have written a track twice
    tables.record_missing_checksums(run.uri)  # a killed run may have left files without
    written = [track_id for track_id, row in run.read_existing().items() if row.producer == run.producer]
    account = reconcile(plan, run.problems, written, run.failures_uri, run.started, prune=run.prune)
    echo_account(account, run.uri, run.failures_uri, run.started)
    check_failures(account, run.max_failures, run.failures_uri)
