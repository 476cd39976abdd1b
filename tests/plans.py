"""Plans of a few tracks, made as a job makes them."""

import contextlib
import datetime
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import duckdb
import pyarrow as pa

from musictag.catalog.validation import Problem, problems_table
from musictag.jobs import plan
from musictag.jobs.copy_sources import create_copy_sources
from musictag.jobs.plan import Plan
from musictag.storage import queries

BEFORE = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC)
LISTED_SCHEMA = pa.schema([(name, pa.string()) for name in ("track_id", "uri", "audio_etag")])
ROWS_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("track_id", "uri", "audio_etag", "producer")),
        ("time", pa.timestamp("us", "UTC")),
        ("file", pa.string()),
    ]
)
FAILED_SCHEMA = pa.schema(
    [*((name, pa.string()) for name in ("track_id", "uri", "audio_etag", "error")), ("attempts", pa.int32())]
)


class ExistingRow(NamedTuple):
    uri: str
    audio_etag: str
    producer: str


class FailedTrack(NamedTuple):
    uri: str
    audio_etag: str | None
    error: str
    attempts: int


class Made(NamedTuple):
    """A plan and its tables."""

    connection: duckdb.DuckDBPyConnection
    plan: Plan

    def tracks(self, where: str, table: str = "plan") -> set[str]:
        return {
            track_id for (track_id,) in self.connection.sql(f"SELECT track_id FROM {table} WHERE {where}").fetchall()
        }

    @property
    def tasks(self) -> list[tuple[str, str, str | None, int]]:
        rows = self.connection.sql(
            "SELECT track_id, uri, audio_etag, attempts FROM plan WHERE state = 'task' ORDER BY number"
        )
        return rows.fetchall()

    @property
    def task_ids(self) -> list[str]:
        return [track_id for track_id, *_ in self.tasks]

    @property
    def unchanged(self) -> set[str]:
        return self.tracks("state = 'unchanged'")

    @property
    def exhausted(self) -> set[str]:
        return self.tracks("state = 'exhausted'")

    @property
    def stale(self) -> set[str]:
        return self.tracks("is_stale")

    @property
    def orphaned(self) -> set[str]:
        return self.tracks("NOT is_hidden", "unlisted")

    @property
    def hidden(self) -> set[str]:
        return self.tracks("is_hidden", "unlisted")


Listed = Sequence[tuple[str, str, str | None]]


def table_of(rows: Sequence[tuple], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema)


@contextlib.contextmanager
def planned(
    listed: Listed,
    existing: Mapping[str, ExistingRow] | None = None,
    failed: Mapping[str, FailedTrack] | None = None,
    problems: Sequence[Problem] = (),
    *,
    missing: Collection[str] = (),
    producer: str = "producer",
    max_attempts: int = 3,
    file: str = "part.parquet",
    copied_from: str | None = None,
) -> Iterator[Made]:
    """Make a plan; rows are copied from the table `copied_from`, in whose file `file` the existing rows are.

    The store says that the files of the tracks `missing` are missing.
    """
    rows = [(track_id, *row, BEFORE, file) for track_id, row in (existing or {}).items()]
    with queries.connect() as connection:
        queries.load(connection, "problems", problems_table(problems))
        queries.load(connection, "rows_before", table_of(rows, ROWS_SCHEMA))
        failures = [(track_id, *row) for track_id, row in (failed or {}).items()]
        queries.load(connection, "failed", table_of(failures, FAILED_SCHEMA))
        tracks = table_of(listed, LISTED_SCHEMA)
        are_missing = pa.array([track_id in missing for track_id, *_ in listed], pa.bool_())
        plan.load_listed(connection, [tracks.append_column("is_missing", are_missing)])
        made = plan.make_plan(connection, producer, max_attempts)
        create_copy_sources(connection, producer, copied_from)
        yield Made(connection, made)
