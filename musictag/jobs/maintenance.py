"""What a table's owner does between runs: see whether it is whole, go back to how it was, and clear away leftovers."""

import dataclasses
import datetime
from collections.abc import Iterable, Iterator

import deltalake
import pyarrow.compute as pc
from pyarrow.fs import FileSelector

from musictag.catalog.reader import read_catalog
from musictag.errors import StoreError
from musictag.features.config import FeatureConfig
from musictag.features.table import CELL_DTYPE, CONFIG_KEY, feature_config
from musictag.jobs import ledger
from musictag.storage import checksums, tables

# Of what is wrong with many tracks, so many are named.
NAMED = 5


@dataclasses.dataclass(frozen=True)
class Verification:
    """What `verify` saw of a table."""

    n_files: int
    n_rows: int
    problems: tuple[str, ...]


def verify(uri: str, catalog_uri: str | None = None) -> Verification:
    """Read every byte of the table at `uri` and compare it with what was recorded as it was written.

    Each file must be there, with the SHA-256 that it had; each track must have one row; a features table must hold
    cells of the shape and of the settings that it says. With a catalog, each of its tracks must be in the table or
    among the failures beside it, and no other in the table. Raises `StoreError` if there is no table, or if its log
    cannot be read.
    """
    table = tables.open_table(uri)
    files = tables.files(table)
    problems = list(_file_problems(uri, files))
    n_rows = sum(files.values())
    if not problems:  # rows of a damaged file cannot be judged
        problems += _row_problems(uri, table, n_rows)
        if catalog_uri is not None:
            problems += _account_problems(uri, catalog_uri)
    return Verification(len(files), n_rows, tuple(problems))


def roll_back(uri: str, version: int) -> None:
    """Make the table what it was at a version.

    That is a commit like any other: the version left can be returned to as well. Raises `StoreError` where there is no
    such version, or where `vacuum` has removed its files.
    """
    table = tables.open_table(uri)
    if not 0 <= version < table.version():
        raise StoreError(f"table {uri}: is at version {table.version()} and has no version {version} to return to")
    with tables.store_errors(uri):
        table.restore(version)


def history(uri: str, n_versions: int) -> list[str]:
    """The last versions of a table, newest first, each as a line: number, time, what was done."""
    with tables.store_errors(uri):
        commits = tables.open_table(uri).history(n_versions)
    return [
        f"{commit['version']:>6}  {datetime.datetime.fromtimestamp(commit['timestamp'] / 1000):%Y-%m-%d %H:%M:%S}  "
        f"{commit['operation'].lower()}"
        for commit in commits
    ]


def vacuum(uri: str, keep_hours: int) -> list[str]:
    """Remove the files that the table does not need, with their digests: what killed writers and old versions left.

    Files younger than `keep_hours` stay, lest a part be removed that is being written; so do those that versions of
    that time need. Versions before can no longer be returned to.
    """
    with tables.store_errors(uri):
        removed = tables.open_table(uri).vacuum(keep_hours, dry_run=False, enforce_retention_duration=False, full=True)
        folder = tables.folder(uri)
        there = {file.base_name for file in folder.get_file_info(FileSelector(""))}
        checksums.delete_checksums(folder, checksums.recorded_paths(folder) - there)
    return removed


def _file_problems(uri: str, paths: Iterable[str]) -> Iterator[str]:
    folder = tables.folder(uri)
    sealed = checksums.read_checksums(folder)
    for path in paths:
        try:
            found = checksums.sha256(folder, path)
        except OSError as error:
            yield f"{path}: cannot be read: {error}"
            continue
        if path not in sealed:
            record = f"{checksums.FOLDER}/{path}{checksums.SUFFIX}"
            yield f"{path}: nothing says what it was when it was written ({record} is gone)"
        elif found != sealed[path]:
            yield f"{path}: changed since it was written"


def _row_problems(uri: str, table: deltalake.DeltaTable, n_recorded: int) -> Iterator[str]:
    names = [field.name for field in table.schema().fields]
    found = tables.read_columns(uri, names[:1])
    if found.num_rows != n_recorded:
        yield f"{found.num_rows:,} rows, the log says {n_recorded:,}"
    if names[0] == "track_id" and names != ledger.FAILURES_SCHEMA.names:  # the splits table has artists
        counts = pc.value_counts(found["track_id"]).to_pylist()
        if repeated := [count["values"] for count in counts if count["counts"] > 1]:
            yield f"more than one row of {_named(repeated)}"
    if CONFIG_KEY in table.metadata().configuration:
        yield from _cell_problems(uri, feature_config(table))


def _cell_problems(uri: str, config: FeatureConfig) -> Iterator[str]:
    clip_bytes = CELL_DTYPE.itemsize * config.clip_frames * config.n_mels
    foreign, misshapen = [], []
    columns = ("track_id", "feature_hash", "n_clips", "start_s", "clips")
    for row in tables.read_rows(uri, columns, tables.track_ids(uri)):
        if row["feature_hash"] != config.feature_hash:
            foreign.append(row["track_id"])
        if not row["n_clips"] == len(row["start_s"]) == len(row["clips"]) / clip_bytes:
            misshapen.append(row["track_id"])
    if foreign:
        yield f"features of other settings than the table's: {_named(foreign)}"
    if misshapen:
        yield f"clips that are not as many as the row says: {_named(misshapen)}"


def _account_problems(uri: str, catalog_uri: str) -> Iterator[str]:
    catalog = read_catalog(catalog_uri)
    listed = {*catalog.tracks["track_id"].to_pylist(), *(problem.track_id for problem in catalog.problems)}
    held = tables.track_ids(uri)
    if lost := listed - held - tables.track_ids(tables.companion_uri(uri, "failures")):
        yield f"listed in {catalog_uri}, yet neither in the table nor among its failures: {_named(sorted(lost))}"
    if left := held - listed:
        yield f"in the table, yet not listed in {catalog_uri} (--prune removes them): {_named(sorted(left))}"


def _named(track_ids: list[str]) -> str:
    rest = len(track_ids) - NAMED
    return ", ".join(track_ids[:NAMED]) + (f" and {rest:,} more" if rest > 0 else "")
