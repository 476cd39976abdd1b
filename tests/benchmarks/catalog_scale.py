"""One step of `test_catalog_scale`, in a process of its own, whose last line is its figures as JSON.

python tests/benchmarks/catalog_scale.py STEP FOLDER N_ROWS
"""

import contextlib
import datetime
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from musictag.catalog.reader import read_catalog
from musictag.features import table
from musictag.features.config import FeatureConfig
from musictag.jobs.budget import Budget
from musictag.jobs.committer import Committer
from musictag.jobs.output import Output
from musictag.jobs.plan_files import PlanFiles
from musictag.jobs.run import Run, Workers, execute
from musictag.storage import commits, data_files, tables
from musictag.tagging.table import TAGS_SCHEMA, load_rows

CONFIG = FeatureConfig()
ROWS_OF_A_FILE = 350
NEW_SHARE = 0.01
N_TAGS = 50
MOMENT = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC)
BATCH = 100_000


def peak_gib() -> float:
    """Return the peak memory of this process, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)


def tracks(n_rows: int) -> Iterator[pa.RecordBatch]:
    """Yield the `track_id`, `uri` and `etag` of tracks: random ids and uris, the same ones for each call."""
    rng = np.random.default_rng(0)
    for begin in range(0, n_rows, BATCH):
        numbers = rng.integers(1 << 63, size=(min(BATCH, n_rows - begin), 2))
        ids = [f"{first:016x}{second & 0xFFFFFF:06x}" for first, second in numbers.tolist()]
        uris = [f"s3://music/{name[:2]}/{name[2:4]}/an album of some name/{name}.mp3" for name in ids]
        yield pa.record_batch({"track_id": ids, "uri": uris, "etag": [f"{name}-1" for name in ids]})


def write_catalog(folder: Path, n_rows: int, *, is_broken: bool = False) -> Path:
    """Write a catalog of made tracks; with `is_broken`, every tenth row has no uri."""
    path, writer = folder / "catalog.parquet", None
    for batch in tracks(n_rows):
        if is_broken:
            uris = [uri if number % 10 else None for number, uri in enumerate(batch["uri"].to_pylist())]
            batch = batch.set_column(1, "uri", pa.array(uris, pa.string()))
        writer = writer or pq.ParquetWriter(path, batch.schema)
        writer.write_batch(batch)
    writer.close()
    return path


def make_features(folder: Path, n_rows: int) -> dict[str, Any]:
    """Write a features table of all tracks but a hundredth, with cells of a few bytes, and their catalog."""
    write_catalog(folder, n_rows)
    uri, n_old = str(folder / "features"), int(n_rows * (1 - NEW_SHARE))
    table.open_features(uri, CONFIG, 10)
    schema, files = table.SCHEMA, []
    started, n_before = time.perf_counter(), 0
    for batch in tracks(n_rows):
        rows = features_rows(batch.slice(0, n_old - n_before))
        n_before += len(rows)
        for begin in range(0, len(rows), ROWS_OF_A_FILE):
            files += data_files.write_batches(uri, schema, [rows.slice(begin, ROWS_OF_A_FILE)])
        if n_before == n_old:
            break
    commits.add_files(uri, schema, files)
    return {"seconds": time.perf_counter() - started, "n_files": len(files)}


def features_rows(batch: pa.RecordBatch) -> pa.Table:
    n = len(batch)
    columns = {
        "track_id": batch["track_id"],
        "uri": batch["uri"],
        "audio_etag": batch["etag"],
        "audio_sha256": [f"{name:0>64}" for name in batch["track_id"].to_pylist()],
        "duration_s": np.full(n, 30.0),
        "n_clips": np.full(n, 10),
        "start_s": [[3.0 * clip for clip in range(10)]] * n,
        "clips": [b"12345678"] * n,
        "feature_hash": [CONFIG.feature_hash] * n,
        "featurized_at": [MOMENT] * n,
        "silent": np.zeros(n, bool),
        "damaged_s": np.zeros(n),
    }
    return pa.table([pa.array(columns[field.name], field.type) for field in table.SCHEMA], schema=table.SCHEMA)


def listed(folder: Path) -> tuple[Any, Iterator[pa.RecordBatch]]:
    """Read the catalog; return it and its tracks with their etags."""
    catalog = read_catalog(str(folder / "catalog.parquet"))
    names = ["track_id", "uri", "audio_etag"]
    return catalog, iter(catalog.tracks.select(["track_id", "uri", "etag"]).rename_columns(names).to_batches(BATCH))


def run_of(
    folder: Path, name: str, schema: pa.Schema, producer: str, load: Callable[..., None], *, time_column: str
) -> Run:
    catalog, batches = listed(folder)
    output = Output(str(folder / name), schema, time_column, producer)
    return Run(
        source="catalog.parquet", listed=batches, catalog=catalog, output=output, load_rows=load, copies_rows=False,
        task_bytes=table.estimated_row_bytes(CONFIG, 10),
        engine=lambda: contextlib.nullcontext(Workers(2, n_cores=2)), max_attempts=3, max_failures=1.0, prune=False,
        prune_limit=1.0, replace=False, store_timeout_s=0.0, started=datetime.datetime.now(datetime.UTC),
        budget=Budget(), report_uri=None,
    )  # fmt: skip


class Planned(Exception):  # noqa: N818 # it is no error
    """The plan was made and written."""


def plan(folder: Path, n_rows: int) -> dict[str, Any]:
    """Read the catalog and the features table, and write the plan of the new tracks."""

    def process(files: PlanFiles, committer: Committer) -> None:
        raise Planned(files)

    def load(connection: duckdb.DuckDBPyConnection, name: str) -> None:
        table.load_rows(connection, name, str(folder / "features"), CONFIG)

    started = time.perf_counter()
    run = run_of(folder, "features", table.SCHEMA, CONFIG.feature_hash, load, time_column="featurized_at")
    read_s = time.perf_counter() - started
    try:
        execute(run, process, purpose="to do")
    except Planned as planned:
        (files,) = planned.args
    return {
        "read the catalog s": read_s,
        "seconds": time.perf_counter() - started,
        "n_tasks": files.n_tasks,
        "n_parts": files.n_parts,
        "peak GiB": peak_gib(),
    }


def broken(folder: Path, n_rows: int) -> dict[str, Any]:
    """Plan a catalog whose every tenth row is broken, and write these rows to the failures table."""
    home = folder / "broken"
    home.mkdir()
    write_catalog(home, n_rows, is_broken=True)
    table.open_features(str(home / "features"), CONFIG, 10)
    figures = plan(home, n_rows)
    return figures | {"n_failures": tables.open_table(str(home / "features-failures")).count()}


def tag(folder: Path, n_rows: int) -> dict[str, Any]:
    """Tag all tracks by made scores, then by another model; the scores alone are not counted."""
    uri = str(folder / "tags")
    tables.create_table(uri, TAGS_SCHEMA)
    return {f"model {digest} s": tag_by(folder, uri, digest) for digest in ("1", "2")} | {"peak GiB": peak_gib()}


def tag_by(folder: Path, uri: str, digest: str) -> float:
    made_s = 0.0

    def process(files: PlanFiles, committer: Committer) -> None:
        nonlocal made_s
        for shard in range(files.n_shards):
            for _, tasks in files.read_shard(shard):
                started = time.perf_counter()
                rows = tags_rows([task.track_id for task in tasks], [task.uri for task in tasks], digest)
                made_s += time.perf_counter() - started
                committer.add(rows, [])

    started = time.perf_counter()
    run = run_of(
        folder, "tags", TAGS_SCHEMA, digest, lambda connection, name: load_rows(connection, name, uri, no_digest),
        time_column="tagged_at",
    )  # fmt: skip
    execute(run, process, purpose=f"to tag by {digest}")
    return time.perf_counter() - started - made_s


def night(folder: Path, digest: int) -> dict[str, Any]:
    """Tag what is new in the catalog, or all of it if the model is new."""
    uri = str(folder / "tags")
    tables.create_table(uri, TAGS_SCHEMA)
    return {"seconds": tag_by(folder, uri, str(digest))}


def no_digest(name: str, version: str) -> None:
    raise AssertionError(name, version)


def tags_rows(track_ids: list[str], uris: list[str], digest: str) -> pa.Table:
    n, now = len(track_ids), datetime.datetime.now(datetime.UTC)
    scores = np.random.default_rng(n).random((n, N_TAGS), np.float32)
    columns = {
        "track_id": track_ids,
        "uri": uris,
        "audio_etag": [f"{name}-1" for name in track_ids],
        "audio_sha256": [f"{name:0>64}" for name in track_ids],
        "model": ["musictag"] * n,
        "model_version": [digest] * n,
        "feature_hash": [CONFIG.feature_hash] * n,
        "n_clips": np.full(n, 10),
        "scores": list(scores),
        "tags": [[{"tag": "calm", "score": 0.9}]] * n,
        "tagged_at": [now] * n,
        "model_digest": [digest] * n,
        "silent": np.zeros(n, bool),
        "damaged_s": np.zeros(n),
    }
    return pa.table([pa.array(columns[field.name], field.type) for field in TAGS_SCHEMA], schema=TAGS_SCHEMA)


STEPS = {function.__name__: function for function in (make_features, plan, broken, tag, night)}

if __name__ == "__main__":
    step, folder, n_rows = sys.argv[1:]
    print(json.dumps(STEPS[step](Path(folder), int(n_rows))))  # noqa: T201
