"""Train on a few labelled tracks of a features table with many files: which files are opened, and how soon?

SPARSE_FILES (40,000) and SPARSE_TRACKS (2,000) are the numbers of files, with four tracks each, and of labelled tracks.
Clips are tiny; a table of real ones has as many files. The start is that of a new process, whose imports count.
"""

import datetime
import functools
import json
import multiprocessing
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake.transaction import AddAction

from musictag.features.config import FeatureConfig
from musictag.features.table import SCHEMA, encode_clips, open_features
from musictag.jobs import progress
from musictag.storage import tables
from musictag.training.config import TrainingConfig
from musictag.training.dataset import Dataset, make_dataset
from sample_tables import find_files

N_FILES = int(os.environ.get("SPARSE_FILES", "40000"))
N_TRACKS = int(os.environ.get("SPARSE_TRACKS", "2000"))
TRACKS_OF_A_FILE = 4
CONFIG = FeatureConfig(n_mels=4, clip_frames=8)
TRAINING = TrainingConfig(clips_per_track=4, batch_size=64)
MAX_FIRST_BATCH_S = 10.0


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a table that is committed at once: commits of this many files are not what is measured."""
    uri = str(tmp_path_factory.mktemp("sparse") / "features")
    table = open_features(uri, CONFIG, None)
    actions = []
    for number in range(N_FILES):
        path = f"part-{number:06d}.parquet"
        pq.write_table(rows(number), f"{uri}/{path}", compression="zstd", write_page_checksum=True)
        size = Path(f"{uri}/{path}").stat().st_size
        actions.append(AddAction(path, size, {}, 0, True, json.dumps({"numRecords": TRACKS_OF_A_FILE})))
    table.create_write_transaction(actions, mode="append", schema=SCHEMA)
    return uri


def rows(number: int) -> pa.Table:
    first = number * TRACKS_OF_A_FILE
    cell = bytes(encode_clips(np.full((4, CONFIG.clip_frames, CONFIG.n_mels), number % 7)))
    fields = {"clips": cell, "n_clips": 4, "start_s": [n * CONFIG.clip_seconds for n in range(4)], "duration_s": 1.0,
              "feature_hash": CONFIG.feature_hash, "featurized_at": datetime.datetime.now(datetime.UTC)}  # fmt: skip
    return pa.Table.from_pylist(
        [{"track_id": f"track-{first + n}", **fields} for n in range(TRACKS_OF_A_FILE)], schema=SCHEMA
    )


def labelled() -> dict[str, dict[str, list[str]]]:
    numbers = np.random.default_rng(0).choice(N_FILES * TRACKS_OF_A_FILE, N_TRACKS, replace=False)
    tags = {f"track-{number}": ["odd" if number % 2 else "even"] for number in numbers.tolist()}
    names = sorted(tags)
    return {"train": {name: tags[name] for name in names[N_TRACKS // 10 :]},
            "validation": {name: tags[name] for name in names[: N_TRACKS // 10]}}  # fmt: skip


def epochs_in_a_worker(dataset: Dataset, started: float, results: "multiprocessing.Queue[tuple[object, ...]]") -> None:
    opened, read_file, lock = set(), tables.read_file, threading.Lock()

    def watched(uri: str, path: str, schema: pa.Schema, track_ids: frozenset[str]):  # type: ignore[no-untyped-def]
        with lock:
            opened.add(path)
        return read_file(uri, path, schema, track_ids)

    tables.read_file = watched
    draw = functools.partial(dataset.draw_batches, fold=0, training=TRAINING)
    next(draw(0))
    first_s = time.time() - started
    began = time.perf_counter()
    n_clips = sum(len(batch.targets) for batch in draw(1))
    results.put((first_s, time.perf_counter() - began, n_clips, len(opened)))


def test_few_files_are_opened_and_the_first_batch_comes_soon(features: str) -> None:
    tags = labelled()
    version = tables.version(features)
    began = time.perf_counter()
    files = find_files(features, [track_id for tracks in tags.values() for track_id in tracks])
    find_s = time.perf_counter() - began
    dataset = make_dataset([tags], None, features_uri=features, files=files, feature_config=CONFIG)
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[tuple[float, float, int, int]] = context.Queue()
    process = context.Process(target=epochs_in_a_worker, args=(dataset, time.time(), results))
    process.start()
    first_s, epoch_s, n_clips, n_opened = results.get(timeout=600)
    process.join()

    began = time.perf_counter()
    n_scanned = sum(1 for _ in tables.read_rows(features, ("track_id", "clips"), tags["train"], version))
    scan_s = time.perf_counter() - began
    assert n_scanned == len(tags["train"])
    progress.echo(
        f"\n{N_TRACKS:,} labelled tracks in {N_FILES:,} files: {len(files):,} files found in {find_s:.1f} s, once, in "
        f"the driver, with {psutil.Process().memory_info().rss >> 20} MiB; a worker opened {n_opened:,} of them; first "
        f"batch {first_s:.1f} s after its start, an epoch of {n_clips:,} clips in {epoch_s:.1f} s; a reader that opens "
        f"every file takes {scan_s:.1f} s"
    )
    train_files = {path for path, track_ids in files.items() if not tags["train"].keys().isdisjoint(track_ids)}
    assert n_opened == len(train_files)
    assert n_clips == len(tags["train"]) * TRAINING.clips_per_track
    assert first_s < MAX_FIRST_BATCH_S, sys.platform
