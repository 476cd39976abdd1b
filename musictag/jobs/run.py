"""Execute a run: plan, process, clean up, account. Each job passes a function that processes tasks by its engine."""

import contextlib
import dataclasses
import datetime
import time
from collections.abc import Callable, Iterable

import duckdb
import pyarrow as pa

from musictag.catalog.reader import Catalog
from musictag.catalog.validation import PROBLEMS_SCHEMA
from musictag.errors import LedgerError
from musictag.jobs.budget import WORK_TO_DO, Budget, defer_tasks
from musictag.jobs.committer import Committer
from musictag.jobs.copy_sources import count_known_audio, create_copy_sources
from musictag.jobs.cost import Cost
from musictag.jobs.ledger import (
    FAILURES_SCHEMA,
    Account,
    check_failures,
    count_failures,
    delete_resolved_failures,
    echo_account,
    load_earlier_failures,
    load_present_failures,
    make_account,
    oldest_waiting,
    record_problems,
)
from musictag.jobs.obsolete_rows import remove_obsolete_rows
from musictag.jobs.output import Output
from musictag.jobs.plan import LoadRows, Plan, echo_plan, load_listed, make_plan
from musictag.jobs.plan_files import (
    PlanFiles,
    count_parts,
    delete_plan,
    planned_runs,
    write_plan,
)
from musictag.jobs.progress import counted, echo
from musictag.jobs.report import finished_report, planned_report, write_report
from musictag.jobs.sharing import check_not_shared
from musictag.jobs.staged_parts import StagedParts
from musictag.storage import heartbeats, queries, rewrite, staging, tables
from musictag.storage.outages import ask_table_store

MANY_FILES = 200
"""Number of small files from which on joining them is suggested; opening a file takes a millisecond or more."""


@dataclasses.dataclass(frozen=True)
class Workers:
    """The workers, cores and GPUs of an engine."""

    n: int
    """Workers that process parts at the same time."""
    n_cores: int
    n_gpus: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """The input, the output and the settings of a run."""

    source: str
    """Name of the catalog or features table in messages."""
    listed: Iterable[pa.RecordBatch | pa.Table]
    """The columns of each listed track that `plan.load_listed` reads."""
    catalog: Catalog | None
    """The catalog that lists the tracks; None if a table lists them."""
    output: Output
    """The table that the run writes, which must exist."""
    load_rows: LoadRows
    copies_rows: bool
    """Whether `process` copies the row of a task with the same audio instead of decoding it."""
    task_bytes: int
    """Estimated bytes that the clips of a task have."""
    engine: Callable[[], contextlib.AbstractContextManager[Workers]]
    """Starts the engine while the body runs; not called if there is no task."""
    max_attempts: int | None
    """Number of runs that may try to decode the same audio; None for a job that does not decode audio."""
    max_failures: float
    """Share of the listed tracks (0 to 1) that may fail."""
    prune: bool
    """Whether to delete the rows of tracks that are no longer listed."""
    prune_limit: float
    """Largest share of the rows (0 to 1) that `prune` may delete."""
    store_timeout_s: float
    """How long to wait for a store that does not answer."""
    replace: bool
    """Whether the rows of a track may be replaced although other audio is still at their uri."""
    started: datetime.datetime
    """The start of the run."""
    budget: Budget
    report_uri: str | None
    """Where to write the outcome as JSON (`jobs.report`); None writes none."""


Process = Callable[[PlanFiles, Committer], None]
"""Makes a row or a failure of each task, and stages it or hands it to the committer."""


def plan_only(run: Run, *, purpose: str) -> int:
    """Print what a run would do, and write it to `report_uri`; return 0 if nothing is to do, else `WORK_TO_DO`.

    Nothing is changed, except that tables that do not exist are created. No engine is started.
    """
    tables.create_table(run.output.failures_uri, FAILURES_SCHEMA)
    uri = run.output.uri
    n_left = len(planned_runs(run.output.plan_uri) | heartbeats.staged_runs(uri))
    with queries.connect() as connection:
        plan = _plan(connection, run)
        waiting_since = oldest_waiting(connection)
        _echo_plan(run, plan, purpose)
    if n_left:
        echo(f"{uri}: {counted(n_left, 'other run')} may be running, or has left what the next run takes over")
    n_failed = plan.n_exhausted + plan.n_missing + plan.n_problems
    fails = n_failed > run.max_failures * plan.n_listed  # the run says so by its exit code
    has_work = bool(plan.n_tasks or n_left or (run.prune and plan.n_orphaned) or plan.n_problems or fails)
    write_report(run.report_uri, planned_report(plan, waiting_since, has_work=has_work))
    return WORK_TO_DO if has_work else 0


def execute(run: Run, process: Process, *, purpose: str) -> None:
    """Plan the run, process its tasks, and check the account.

    Args:
        run: the run.
        process: processes the tasks; not called if there is none.
        purpose: words after the number of tasks in the first message, such as "to do".

    Raises:
        UsageError: the output table holds the rows of another catalog.
        LedgerError: a task is neither written nor failed, more tracks failed than `max_failures` allows, or more rows
            are of unlisted tracks than `prune_limit` allows; then none of these rows is deleted.
    """
    _ask_store(run, lambda: tables.create_table(run.output.failures_uri, FAILURES_SCHEMA))
    name = heartbeats.run_name(run.started)
    with heartbeats.running(run.output.uri, name):
        _ask_store(run, lambda: adopt_staged(run, name))
        with queries.connect() as connection:
            planned_at = datetime.datetime.now(datetime.UTC)
            plan = _plan(connection, run)
            exceeds_limit = _exceeds_prune_limit(run, plan)
            prune = run.prune and not exceeds_limit
            _echo_plan(run, plan, purpose)
            record_problems(connection, run.output.failures_uri)
            n_to_do = plan.n_tasks
            if run.budget.max_tracks is not None:
                n_to_do -= defer_tasks(connection, run.budget.max_tracks)
            if run.budget.is_over:
                n_to_do = 0
            cost = _process(connection, run, n_to_do, process, name) if n_to_do else None
            account = _finish(connection, run, plan, planned_at, prune=prune)
            waiting_since = oldest_waiting(connection)
            failures = count_failures(connection, run.output.failures_uri, planned_at) if account.failed else {}
        _ask_store(run, lambda: staging.delete_run(run.output.uri, name))
    suggest_compaction(run.output.uri)
    write_report(run.report_uri, finished_report(account, failures, waiting_since, run.started, cost))
    echo_account(account, run.output.uri, run.output.failures_uri, run.started, cost)
    check_failures(account, run.max_failures, run.output.failures_uri)
    if exceeds_limit:
        raise LedgerError(
            f"{run.source}: {plan.n_orphaned:,} of the {plan.n_existing:,} tracks in {run.output.uri} are not listed "
            f"any more, more than --prune-limit {run.prune_limit:g} allows: they were kept. If they are really gone, "
            "raise the limit"
        )


def _ask_store(run: Run, fn: Callable[[], object]) -> None:
    """Call `fn`, which reads or writes tables, and may be called again; wait for a store that does not answer."""
    ask_table_store(fn, run.store_timeout_s)


def adopt_staged(run: Run, name: str) -> None:
    """Commit what the workers of ended runs have staged; delete their plans and whatever else they left."""
    n_tracks = 0
    plans = run.output.plan_uri
    uri = run.output.uri
    states = heartbeats.running_states(uri, planned_runs(plans) | heartbeats.staged_runs(uri))
    for ended in [other for other, is_running in states.items() if not is_running]:
        staged = StagedParts(run.output, ended, is_taken_over=True)
        staged.collect()
        n_tracks += staged.commit()
        staged.discard()
        delete_plan(plans, ended)
    if n_tracks:
        echo(f"taken over from a run that was stopped: {counted(n_tracks, 'track')}")


def suggest_compaction(uri: str) -> None:
    """Print how to join the small files of the table at `uri`, if these are so many that reading becomes slow."""
    files = tables.files(uri)
    n_small = sum(len(group) for group in rewrite.small_groups(files))
    if n_small >= MANY_FILES:
        echo(f"{n_small:,} of the {len(files):,} files are small; to join them: musictag compact {uri}")


def _exceeds_prune_limit(run: Run, plan: Plan) -> bool:
    """Return whether the rows of too many tracks would be pruned."""
    return run.prune and plan.n_orphaned > run.prune_limit * plan.n_existing


def _echo_plan(run: Run, plan: Plan, purpose: str) -> None:
    if _exceeds_prune_limit(run, plan):
        unlisted = f"kept, because they are more than --prune-limit {run.prune_limit:g} allows"
    elif run.prune:
        has_limit = run.budget.max_tracks is not None or run.budget.deadline is not None
        unlisted = "removed, unless a deferred track may have their audio" if has_limit else "removed"
    else:
        unlisted = "kept (--prune removes them)"
    left_out = run.catalog.left_out if run.catalog else {}
    echo_plan(run.source, plan, purpose, unlisted=unlisted, left_out=left_out)


def _plan(connection: duckdb.DuckDBPyConnection, run: Run) -> Plan:
    """Make the plan, with the rows that may be copied, as tables of the connection."""
    queries.load(connection, "problems", run.catalog.problems if run.catalog else PROBLEMS_SCHEMA.empty_table())
    # A job that does not decode audio ignores earlier failures and tries all tracks again.
    failures_uri = None if run.max_attempts is None else run.output.failures_uri
    _ask_store(run, lambda: load_earlier_failures(connection, failures_uri))
    _ask_store(run, lambda: run.load_rows(connection, "rows_before"))
    load_listed(connection, run.listed)
    plan = make_plan(connection, run.output.producer, run.max_attempts or 1)
    if not run.replace:
        check_not_shared(connection, run.source, run.output.uri)
    create_copy_sources(connection, run.output.producer, run.output.uri if run.copies_rows else None)
    return plan


def _process(connection: duckdb.DuckDBPyConnection, run: Run, n_tasks: int, process: Process, name: str) -> Cost:
    """Process the tasks, while what is staged is committed; return the cost."""
    with run.engine() as workers:
        n_parts = count_parts(n_tasks, run.task_bytes, workers.n)
        files = write_plan(connection, run.output.plan_uri, name, n_parts, run.store_timeout_s)
        committer = Committer(run.output, name, workers.n_cores, run.store_timeout_s)
        started = time.monotonic()
        with committer.running(), run.budget.stopping(files):
            process(files, committer)
        seconds = time.monotonic() - started
    _ask_store(run, lambda: delete_plan(files.uri, name))
    return Cost(committer.n_tracks, committer.core_seconds, workers.n_gpus * seconds)


def _finish(
    connection: duckdb.DuckDBPyConnection, run: Run, plan: Plan, planned_at: datetime.datetime, *, prune: bool
) -> Account:
    """Remove the rows and failures that the run has replaced, and return its account."""
    if plan.n_tasks:
        _ask_store(run, lambda: run.load_rows(connection, "rows_now"))
    else:
        connection.execute("CREATE TABLE rows_now AS SELECT * FROM rows_before")
    failures_uri = run.output.failures_uri
    _ask_store(run, lambda: load_present_failures(connection, failures_uri))
    was_stopped = run.budget.is_over
    account = make_account(connection, plan, failures_uri, planned_at, was_stopped=was_stopped)
    _ask_store(run, lambda: remove_obsolete_rows(connection, run.output, run.load_rows, prune=prune))
    _ask_store(run, lambda: delete_resolved_failures(connection, failures_uri, planned_at, prune=prune))
    if n_known := count_known_audio(connection, run.output.uri):
        echo(f"with the audio of an earlier row: {counted(n_known, 'track')}")
    return account
