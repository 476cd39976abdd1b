"""Helpers of the catalog benchmark: catalogs and features tables of any size, and the steps that read them."""

import datetime
import itertools
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from musictag.catalog.reader import read_catalog
from musictag.catalog.splits import LABEL_COLUMNS
from musictag.features.config import FeatureConfig
from musictag.features.table import SCHEMA, open_features
from musictag.jobs import labels, maintenance
from musictag.storage import commits, data_files

PLAN_COLUMNS = ("track_id", "uri", "etag")
CONFIG = FeatureConfig(n_mels=1, clip_frames=1)
N_TAGS = 50
BATCH_ROWS = 100_000


def batches(n_rows: int, n_tagged: int, broken_share: float = 0.0) -> Iterator[pa.Table]:
    """Yield a catalog as tables of text: random ids of 22 characters, uris of 60; `tags` are separated by `;`.

    The first `n_tagged` rows have tags. Of the broken rows, half have no uri, and half a split that does not exist.
    """
    rng = np.random.default_rng(0)
    for begin in range(0, n_rows, BATCH_ROWS):
        n = min(BATCH_ROWS, n_rows - begin)
        ids = [rng.bytes(11).hex() for _ in range(n)]
        is_broken = rng.random(n) < broken_share
        uris = [f"{each[:2]}/{each[2:4]}/{each}-{each[::-1]}.flac" for each in ids]
        tags = [
            ";".join(f"tag {k}" for k in rng.integers(0, N_TAGS, 3)) if begin + i < n_tagged else "" for i in range(n)
        ]
        yield pa.table(
            {
                "track_id": ids,
                "uri": [
                    "" if broken and i % 2 else uri for i, (uri, broken) in enumerate(zip(uris, is_broken, strict=True))
                ],
                "artist": [f"artist {number}" for number in rng.integers(0, max(n_rows // 10, 1), n)],
                "title": [f"Title {each[:8]}" for each in ids],
                "tags": tags,
                "split": ["holdout" if broken and not i % 2 else "" for i, broken in enumerate(is_broken)],
                "etag": [each[:16] for each in ids],
            }
        )


def write_catalog(folder: Path, kind: str, n_rows: int, n_tagged: int, broken_share: float) -> Path:
    """Write a catalog as a file of a kind: csv, jsonl, parquet or broken, a CSV file with broken rows."""
    path = folder / f"catalog-{kind}.{'csv' if kind == 'broken' else kind}"
    tables = batches(n_rows, n_tagged, broken_share if kind == "broken" else 0)
    first = next(tables)
    if kind == "jsonl":
        with path.open("w") as stream:
            for row in itertools.chain.from_iterable(map(pa.Table.to_pylist, itertools.chain([first], tables))):
                stream.write(json.dumps({**row, "tags": list(filter(None, row["tags"].split(";")))}) + "\n")
    elif kind == "parquet":
        with pq.ParquetWriter(path, in_lists(first).schema) as writer:
            for table in itertools.chain([first], tables):
                writer.write_table(in_lists(table))
    else:
        with pyarrow.csv.CSVWriter(path, first.schema) as writer:
            for table in itertools.chain([first], tables):
                writer.write(table)
    return path


def in_lists(table: pa.Table) -> pa.Table:
    tags = pc.split_pattern(pc.if_else(pc.equal(table["tags"], ""), None, table["tags"]), ";")
    return table.set_column(table.schema.get_field_index("tags"), "tags", tags)


def write_features(uri: str, catalog: Path) -> None:
    """Write a row for each track of the catalog."""
    open_features(uri, CONFIG, 1)
    tracks = read_catalog(str(catalog), columns=PLAN_COLUMNS).tracks
    now = datetime.datetime.now(datetime.UTC)
    files: list[data_files.DataFile] = []
    for batch in tracks.to_batches():
        n = len(batch)
        columns = {
            "track_id": batch["track_id"], "uri": batch["uri"], "audio_etag": batch["etag"],
            "audio_sha256": pc.binary_join_element_wise(batch["track_id"], batch["track_id"], batch["track_id"], ""),
            "duration_s": [1.0] * n, "n_clips": [1] * n, "start_s": [[0.0]] * n, "clips": [b"\0\0"] * n,
            "feature_hash": [CONFIG.feature_hash] * n, "featurized_at": [now] * n,
        }  # fmt: skip
        arrays = [pa.array(columns[field.name]) if field.name in columns else pa.nulls(n) for field in SCHEMA]
        files += data_files.write_batches(uri, SCHEMA, [pa.table(arrays, SCHEMA.names).cast(SCHEMA)])
    commits.add_files(uri, SCHEMA, files)


def read(catalog: str, columns: tuple[str, ...] | None) -> str:
    found = read_catalog(catalog, columns=columns) if columns else read_catalog(catalog)
    return f"{found.tracks.num_rows:,} tracks, {found.problems.num_rows:,} problems"


def read_labels(catalog: str, features: str) -> str:
    return str(labels.read_labels(read_catalog(catalog, columns=LABEL_COLUMNS), features))


def verify(catalog: str, features: str) -> str:
    found = maintenance.verify(features, catalog)
    assert found.problems == ()
    return f"{found.n_rows:,} rows in {found.n_files} files"


def measured(step: Callable[..., str], *arguments: object) -> tuple[str, float, float, float]:
    """Return the result of a step, its seconds, its processor seconds, and the largest GiB of its process."""
    started, cpu_started = time.perf_counter(), time.process_time()
    result = step(*arguments)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    [peak] = re.findall(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return result, seconds, cpu_seconds, int(peak) / 2**20
