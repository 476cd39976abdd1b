"""The tasks of a plan as Parquet files, from which workers read their shares.

An engine distributes numbers alone, so that its job is as small for ten million tracks as for ten. A *part* is what a
worker stages as a whole, and what is lost if it is killed before. A *shard* is a file of parts, one row group each, and
one number for the engine. The files of a run are in the folder `RUN` of the table's companion `-plan`.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileSelector, FileType, LocalFileSystem

from musictag.errors import StoreError
from musictag.storage.data_files import FILE_BYTES
from musictag.storage.folders import delete_folder, open_folder, store_errors
from musictag.storage.outages import ask_table_store

MAX_SHARDS = 1_000
PARTS_PER_WORKER = 4
"""Least number of parts for each worker, so that workers end at about the same time."""
_SCHEMA = pa.schema(
    [
        ("track_id", pa.string()),
        ("uri", pa.string()),
        ("audio_etag", pa.string()),
        ("attempts", pa.int32()),
        ("features_file", pa.string()),
        ("source_track_id", pa.string()),
        ("source_sha256", pa.string()),
        ("source_file", pa.string()),
    ]
)
_RUN_KEY = b"musictag.run"
_STOP = "stop"


@dataclasses.dataclass(frozen=True, slots=True)
class CopySource:
    """A row of the output table whose audio may be that of a task (see `copy_sources`)."""

    track_id: str
    audio_sha256: str
    file: str
    """The file of the table that holds the row."""


@dataclasses.dataclass(frozen=True, slots=True)
class Task:
    """One track that a run has to process."""

    track_id: str
    uri: str
    audio_etag: str | None
    """Changes whenever the audio does; None if the store does not tell it."""
    attempts: int = 0
    """Number of earlier runs that failed on the same audio."""
    features_file: str | None = None
    """The file of the features table that holds the track, if the job reads one."""
    copy_source: CopySource | None = None
    """A row that is copied if the audio has its digest."""


Part = tuple[int, list[Task]]
"""The number of a part in its shard, and its tasks."""


class Shards(Protocol):
    """Tasks in shards, of which each worker reads some."""

    @property
    def n_shards(self) -> int:
        """Number of shards."""

    def read_shard(self, shard: int) -> Iterator[Part]:
        """Yield the parts of a shard."""


@dataclasses.dataclass(frozen=True)
class PlanFiles:
    """The place of a written plan: all that workers need to read their tasks. It is `Shards`."""

    uri: str
    """The folder of all plans of the table."""
    run: str
    n_tasks: int
    n_shards: int
    n_parts: int
    store_timeout_s: float = 0.0
    """How long workers wait for the store of a table that does not answer."""

    def read_shard(self, shard: int) -> Iterator[Part]:
        """Yield the parts of a shard until the run is stopped; memory holds one.

        Raises:
            StoreError: the file is missing, or is that of another run.
        """
        for part in range(_n_parts_of(shard, self.n_shards, self.n_parts)):
            if ask_table_store(self.is_stopped, self.store_timeout_s):
                return
            yield part, ask_table_store(functools.partial(self._read_part, shard, part), self.store_timeout_s)

    def stop(self) -> None:
        """Let the workers begin no further part."""
        with store_errors(self.uri), open_folder(self.uri).open_output_stream(f"{self.run}/{_STOP}") as stream:
            stream.write(b"")

    def is_stopped(self) -> bool:
        """Return whether `stop` was called."""
        with store_errors(self.uri):
            return bool(open_folder(self.uri).get_file_info(f"{self.run}/{_STOP}").type == FileType.File)

    def _read_part(self, shard: int, part: int) -> list[Task]:
        path = _path(self.run, shard)
        with store_errors(self.uri):
            plans = open_folder(self.uri)
            if plans.get_file_info(path).type != FileType.File:
                raise StoreError(
                    f"{self.uri}/{path}: the plan is gone; another run took this one for ended: run again, and if this "
                    "happens often, look whether the machines reach the store"
                )
            with plans.open_input_file(path) as stream:
                file = pq.ParquetFile(stream)
                if (run := (file.schema_arrow.metadata or {}).get(_RUN_KEY)) != self.run.encode():
                    raise StoreError(f"{self.uri}/{path}: is the plan of another run, {run!r}")
                return [_task(row) for row in file.read_row_group(part).to_pylist()]


@dataclasses.dataclass(frozen=True)
class TaskList:
    """A few tasks that are in memory: `Shards` of one part each."""

    shards: tuple[tuple[Task, ...], ...]

    @classmethod
    def of(cls, tasks: Sequence[Task], n_workers: int) -> "TaskList":
        """Divide tasks into shards of nearly equal size, a few for each worker."""
        n_shards = min(PARTS_PER_WORKER * n_workers, len(tasks))
        in_order = sorted(tasks, key=lambda task: task.features_file or "")
        ends = [len(tasks) * n // n_shards for n in range(n_shards + 1)]
        return cls(tuple(tuple(in_order[begin:end]) for begin, end in itertools.pairwise(ends)))

    @property
    def n_shards(self) -> int:
        return len(self.shards)

    def read_shard(self, shard: int) -> Iterator[Part]:
        """Yield the part of a shard."""
        yield 0, list(self.shards[shard])


def count_parts(n_tasks: int, task_bytes: int, n_workers: int) -> int:
    """Return the number of parts: each of at most `FILE_BYTES` by estimate, at least `PARTS_PER_WORKER` a worker.

    Args:
        n_tasks: number of tasks.
        task_bytes: estimated bytes of the row of a task.
        n_workers: number of workers.
    """
    n_parts = max(math.ceil(n_tasks * task_bytes / FILE_BYTES), PARTS_PER_WORKER * n_workers)
    if n_parts > MAX_SHARDS:  # so that all shards have equally many
        n_parts = math.ceil(n_parts / MAX_SHARDS) * MAX_SHARDS
    return min(n_parts, n_tasks)


def write_plan(
    connection: duckdb.DuckDBPyConnection, uri: str, run: str, n_parts: int, store_timeout_s: float = 0.0
) -> PlanFiles:
    """Write the tasks of the plan of `connection` (see `plan` and `copy_sources`) below the folder `uri`.

    Tasks of one features file are in one part or in successive ones; else they are in the order of the catalog. Tasks
    whose row is only of another model come last, in the last shards.
    """
    (n_tasks,) = connection.execute("SELECT count(*) FROM plan WHERE state = 'task'").fetchall()[0]
    n_shards = min(n_parts, MAX_SHARDS)
    part_ends = [n_tasks * part // n_parts for part in range(1, n_parts + 1)]
    rows = connection.sql(_TASKS).to_arrow_reader()
    with store_errors(uri):
        plans = open_folder(uri)
        if isinstance(plans.base_fs, LocalFileSystem):
            plans.create_dir(run)
        parts = iter(_cut(rows, part_ends))
        for shard in range(n_shards):
            schema = _SCHEMA.with_metadata({_RUN_KEY: run.encode()})
            with plans.open_output_stream(_path(run, shard)) as stream, pq.ParquetWriter(stream, schema) as writer:
                for _ in range(_n_parts_of(shard, n_shards, n_parts)):
                    writer.write_table(next(parts).cast(schema))
    return PlanFiles(uri, run, n_tasks, n_shards, n_parts, store_timeout_s)


def _n_parts_of(shard: int, n_shards: int, n_parts: int) -> int:
    """Return the number of parts of a shard."""
    return n_parts * (shard + 1) // n_shards - n_parts * shard // n_shards


def delete_plan(uri: str, run: str) -> None:
    """Delete the files of the plan of a run."""
    delete_folder(uri, run)


def planned_runs(uri: str) -> set[str]:
    """Return the runs that have a plan in the folder `uri`."""
    with store_errors(uri):
        # Object stores have no folders that could be listed; some keep that of a deleted plan for a while.
        found = open_folder(uri).get_file_info(FileSelector("", allow_not_found=True, recursive=True))
    return {each.path.split("/")[0] for each in found if each.is_file and "/" in each.path}


_TASKS = """
SELECT track_id, uri, audio_etag, attempts, features_file, source_track_id, source_sha256, source_file
FROM plan LEFT JOIN copy_sources USING (track_id)
WHERE state = 'task'
ORDER BY is_backfill, features_file, number
"""


def _cut(rows: pa.RecordBatchReader, ends: list[int]) -> Iterator[pa.Table]:
    """Yield the rows as tables that end at these row numbers."""
    pending: list[pa.RecordBatch] = []
    n_read = n_cut = 0
    for end in ends:
        while n_read < end:
            pending.append(rows.read_next_batch())
            n_read += len(pending[-1])
        table = pa.Table.from_batches(pending)
        yield table.slice(0, end - n_cut)
        pending = table.slice(end - n_cut).to_batches()
        n_cut = end


def _task(row: dict[str, Any]) -> Task:
    track_id, sha256, file = (row.pop(f"source_{name}") for name in ("track_id", "sha256", "file"))
    return Task(**row, copy_source=CopySource(track_id, sha256, file) if sha256 else None)


def _path(run: str, shard: int) -> str:
    return f"{run}/shard-{shard:04d}.parquet"
