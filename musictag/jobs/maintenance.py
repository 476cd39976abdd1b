"""Maintain tables between runs: verify them, restore an older version, list versions, delete unused files."""

import concurrent.futures
import dataclasses
import datetime
import re
from collections.abc import Collection, Iterable, Iterator

import deltalake
import pyarrow.compute as pc
from pyarrow.fs import FileSelector

from musictag.catalog.reader import read_catalog
from musictag.catalog.validation import Problem
from musictag.errors import StoreError
from musictag.features.config import FeatureConfig
from musictag.features.table import CELL_DTYPE, CONFIG_KEY, feature_config
from musictag.jobs import ledger
from musictag.jobs.plan_files import delete_plan, plan_uri, run_name_at
from musictag.storage import checksums, drivers, staging, tables
from musictag.storage.urls import redacted

# Maximum number of track ids in a message.
_N_NAMED = 5


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
    files = tables.files(table)
    problems = list(_file_problems(uri, files))
    n_rows = sum(files.values())
    if not problems:  # rows of damaged files cannot be checked
        problems += _row_problems(uri, table, n_rows)
        if catalog_uri is not None:
            problems += _catalog_problems(uri, catalog_uri, follow_links)
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
    with tables.store_errors(uri):
        table.restore(version)


def history(uri: str, n_versions: int) -> list[str]:
    """Return a line for each of the last versions of a table, newest first: number, local time and operation."""
    with tables.store_errors(uri):
        commits = tables.open_table(uri).history(n_versions)
    return [
        f"{commit['version']:>6}  {datetime.datetime.fromtimestamp(commit['timestamp'] / 1000):%Y-%m-%d %H:%M:%S}  "
        f"{commit['operation'].lower()}"
        for commit in commits
    ]


def vacuum(uri: str, keep_hours: int) -> list[str]:
    """Delete the files that the table does not need, with their checksums, and return their paths.

    Deleted are files that no version names, which killed writers left, and files that only versions older than
    `keep_hours` name; these versions can no longer be restored. Files younger than `keep_hours` are kept, because a
    writer may be about to commit them, and so are files that a run has staged: the next run commits them. What runs
    that ended more than `keep_hours` ago have staged and planned is deleted.
    """
    table = tables.open_table(uri)
    _delete_ended_runs(uri, datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=keep_hours))
    with tables.store_errors(uri):
        unused = table.vacuum(keep_hours, dry_run=True, enforce_retention_duration=False, full=True)
        deleted = sorted(set(unused) - set(staging.staged_files(uri)))
        folder = tables.folder(uri)
        with concurrent.futures.ThreadPoolExecutor(tables.DELETE_THREADS) as threads:
            list(threads.map(folder.delete_file, deleted))
        existing = {file.base_name for file in folder.get_file_info(FileSelector(""))}
        checksums.delete_checksums(folder, checksums.recorded_paths(folder) - existing)
    return deleted


def _delete_ended_runs(uri: str, before: datetime.datetime) -> None:
    """Delete what runs that began before a time, and have ended, have staged and planned."""
    for run in drivers.ended_runs(uri):
        if run < run_name_at(before):
            staging.delete_run(uri, run)
            delete_plan(plan_uri(uri), run)


def _file_problems(uri: str, paths: Iterable[str]) -> Iterator[str]:
    folder = tables.folder(uri)
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


def _row_problems(uri: str, table: deltalake.DeltaTable, n_expected: int) -> Iterator[str]:
    names = [field.name for field in table.schema().fields]
    rows = tables.read_columns(uri, names[:1])
    if rows.num_rows != n_expected:
        yield f"{rows.num_rows:,} rows were read, but the table's log says {n_expected:,}"
    # The splits table has groups instead of tracks, and a failures table may have several rows of a track.
    if names[0] == "track_id" and names != ledger.FAILURES_SCHEMA.names:
        counts = pc.value_counts(rows["track_id"]).to_pylist()
        if repeated := [count["values"] for count in counts if count["counts"] > 1]:
            yield f"more than one row of the tracks {_first_names(repeated)}"
    if CONFIG_KEY in table.metadata().configuration:
        yield from _cell_problems(uri, feature_config(table))


def _cell_problems(uri: str, config: FeatureConfig) -> Iterator[str]:
    clip_bytes = CELL_DTYPE.itemsize * config.clip_frames * config.n_mels
    other_settings, wrong_shape = [], []
    columns = ("track_id", "feature_hash", "n_clips", "start_s", "clips")
    for row in tables.read_rows(uri, columns, tables.track_ids(uri)):
        if row["feature_hash"] != config.feature_hash:
            other_settings.append(row["track_id"])
        if not row["n_clips"] == len(row["start_s"]) == len(row["clips"]) / clip_bytes:
            wrong_shape.append(row["track_id"])
    if other_settings:
        yield f"feature_hash is not that of the table: {_first_names(other_settings)}"
    if wrong_shape:
        yield f"n_clips, start_s and clips disagree: {_first_names(wrong_shape)}"


def _catalog_problems(uri: str, catalog_uri: str, follow_links: bool) -> Iterator[str]:
    catalog = read_catalog(catalog_uri, follow_links=follow_links)
    uris = dict(zip(*(catalog.tracks[name].to_pylist() for name in ("track_id", "uri")), strict=True))
    listed = {*uris, *(problem.track_id for problem in catalog.problems)}
    rows = tables.read_columns(uri, ("track_id", "uri")).to_pylist()
    existing = {row["track_id"] for row in rows}
    if missing := listed - existing - tables.track_ids(tables.companion_uri(uri, "failures")):
        yield f"listed in {catalog_uri}, but neither in the table nor in its failures: {_first_names(sorted(missing))}"
    elsewhere = {row["track_id"] for row in rows if redacted(uris.get(row["track_id"], row["uri"])) != row["uri"]}
    if elsewhere:
        names = _first_names(sorted(elsewhere))
        yield f"in the table with another uri than in {catalog_uri} (moved, or of another catalog): {names}"
    unlisted = existing - listed
    if orphaned := unlisted - hidden_tracks(unlisted, catalog.problems):
        names = _first_names(sorted(orphaned))
        yield f"in the table, but not listed in {catalog_uri} (a run with --prune deletes them): {names}"


def hidden_tracks(track_ids: Collection[str], problems: Collection[Problem]) -> set[str]:
    """Return the tracks that may be listed in what could not be read: a folder, or a row without a readable id."""
    if any(problem.hides_any_track for problem in problems):
        return set(track_ids)
    folders = {problem.track_id for problem in problems if problem.row is None}
    return {track_id for track_id in track_ids if folders and not folders.isdisjoint(_folders_of(track_id))}


def _folders_of(track_id: str) -> Iterator[str]:
    """Yield the folders of a relative path, such as `a/` and `a/b/` of `a/b/c.mp3`."""
    for slash in re.finditer("/", track_id):
        yield track_id[: slash.end()]


def _first_names(track_ids: list[str]) -> str:
    """Return the first track ids, followed by "and N more" if there are more."""
    n_others = len(track_ids) - _N_NAMED
    return ", ".join(track_ids[:_N_NAMED]) + (f" and {n_others:,} more" if n_others > 0 else "")
