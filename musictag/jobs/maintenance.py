"""Maintain tables between runs: verify them, restore an older version, list versions, delete unused files."""

import dataclasses
import datetime
from collections.abc import Iterable, Iterator, Mapping

from pyarrow.fs import FileInfo, FileSelector

from musictag.errors import StoreError
from musictag.jobs import row_checks
from musictag.jobs.output import plan_uri
from musictag.jobs.plan_files import delete_plan, planned_runs
from musictag.storage import checksums, folders, heartbeats, rewrite, staging, tables

_FAILURES = tables.companion_uri("", "failures")
_CLOCK_MARGIN = datetime.timedelta(minutes=5)


@dataclasses.dataclass(frozen=True)
class Verification:
    """The result of `verify`."""

    n_files: int
    n_rows: int
    problems: tuple[str, ...]


def verify(uri: str, catalog_uri: str | None = None, *, follow_links: bool = True) -> Verification:
    """Check the table at `uri`: read each file and compare its SHA-256 with the recorded one, then check the rows.

    Each track must have one row. Each row of a features table must have the `feature_hash` of the table and as many
    clips as `n_clips` and `start_s` say. If a catalog is given, each of its tracks must be in the table or in the
    failures table, and the table must have no other tracks. Rows are not checked if a file is missing or damaged.

    Raises:
        StoreError: the table does not exist, or its log cannot be read.
    """
    table = tables.open_table(uri)
    files = tables.files(uri, table.version())
    problems = list(_file_problems(uri, [file.path for file in files]))
    n_rows = sum(file.n_rows for file in files)
    if not problems:  # rows of damaged files cannot be checked
        problems += row_checks.row_problems(uri, table, n_rows)
        if catalog_uri is not None:
            problems += row_checks.catalog_problems(uri, catalog_uri, follow_links=follow_links)
    return Verification(len(files), n_rows, tuple(problems))


def roll_back(uri: str, version: int) -> None:
    """Restore the table at `uri` as it was at `version`.

    The restored state is a new version, so that a rollback can itself be rolled back.

    Raises:
        StoreError: `version` is not earlier than the current one, or `vacuum` has deleted its files.
    """
    table = tables.open_table(uri)
    if not 0 <= version < table.version():
        raise StoreError(f"table {uri} is at version {table.version()}: there is no earlier version {version}")
    with folders.store_errors(uri):
        table.restore(version)


def history(uri: str, n_versions: int) -> list[str]:
    """Return a line for each of the last versions of a table, newest first: number, local time and operation."""
    with folders.store_errors(uri):
        commits = tables.open_table(uri).history(n_versions)
    return [
        f"{commit['version']:>6}  {datetime.datetime.fromtimestamp(commit['timestamp'] / 1000):%Y-%m-%d %H:%M:%S}  "
        f"{commit['operation'].lower()}"
        for commit in commits
    ]


def vacuum(uri: str, keep_hours: int) -> list[str]:
    """Delete the files that the table does not need, with their checksums, and return their paths.

    Deleted are files that no version names, which killed writers left, and files that only versions older than
    `keep_hours` name; these versions can no longer be restored. Files younger than `keep_hours`, or than the start of a
    run that is running, are kept, because a writer may be about to commit them, and so are files that a run has staged:
    the next run commits them. Staged parts and plans of ended runs that began more than `keep_hours` ago are deleted.
    """
    table = tables.open_table(uri)
    started = datetime.datetime.now(datetime.UTC)
    is_running = heartbeats.running_states(uri, planned_runs(plan_uri(uri)) | heartbeats.staged_runs(uri))
    # The store's clock may be behind the drivers'.
    starts = [heartbeats.started_at(run) - _CLOCK_MARGIN for run in _runs_that_write(uri, is_running)]
    for run in is_running:
        if not is_running[run] and heartbeats.started_at(run) < started - datetime.timedelta(hours=keep_hours):
            staging.delete_run(uri, run)
            delete_plan(plan_uri(uri), run)
    staged = set(staging.staged_files(uri))
    with folders.store_errors(uri):
        unused = set(table.vacuum(keep_hours, dry_run=True, enforce_retention_duration=False, full=True))
        folder = folders.open_folder(uri)
        writing_since = min([started, *starts])
        existing = {file.path: file for file in folder.get_file_info(FileSelector(""))}
        unused -= {path for path in unused if path in existing and _written_at(existing[path]) >= writing_since}
        # A run may have committed staged files meanwhile.
        deleted = sorted(unused - staged - {file.path for file in tables.files(uri)})
        folders.delete_files(folder, deleted)
        recorded = checksums.recorded_paths(folder)  # before the files, to which a run may add some
        left = {file.base_name for file in folder.get_file_info(FileSelector(""))}
        checksums.delete_checksums(folder, recorded - left)
    return deleted


def _runs_that_write(uri: str, is_running: Mapping[str, bool]) -> list[str]:
    """Return the running runs that write the table at `uri`; `is_running` is of the runs in its own folder."""
    # A run that writes failures has its heartbeat in the table of its rows.
    of_rows = uri.rstrip("/").removesuffix(_FAILURES)
    if of_rows != uri.rstrip("/"):
        is_running = {**is_running, **heartbeats.running_states(of_rows, heartbeats.staged_runs(of_rows))}
    return [run for run, running in is_running.items() if running]


def compact(uri: str) -> rewrite.Compaction:
    """Join the small files of the table at `uri`, see `rewrite.compact`; a vacuum meanwhile keeps the new ones."""
    tables.open_table(uri)  # raises if there is none, before anything is written
    run = heartbeats.run_name(datetime.datetime.now(datetime.UTC))
    try:
        with heartbeats.running(uri, run):
            return rewrite.compact(uri)
    finally:
        staging.delete_run(uri, run)


def _written_at(file: FileInfo) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(file.mtime_ns / 1e9, datetime.UTC)


def _file_problems(uri: str, paths: Iterable[str]) -> Iterator[str]:
    folder = folders.open_folder(uri)
    recorded = checksums.read_checksums(folder)
    for path in paths:
        try:
            digest = checksums.sha256(folder, path)
        except OSError as error:
            yield f"{path}: cannot be read: {error}"
            continue
        if path not in recorded:
            yield f"{path}: has no checksum ({checksums.FOLDER}/{path}{checksums.SUFFIX} is missing)"
        elif digest != recorded[path]:
            yield f"{path}: changed since it was written"
