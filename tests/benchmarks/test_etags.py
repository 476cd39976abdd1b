"""Seconds, requests and memory of the etags of many files: an S3 server, a store of twelve million keys, a local disk.

Sizes by variables: S3_OBJECTS, LISTED_KEYS, LOCAL_FILES.
"""

import asyncio
import concurrent.futures
import multiprocessing
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from musictag.storage import etags, stores
from object_stores import STORES

S3_OBJECTS = int(os.environ.get("S3_OBJECTS", 200_000))
LISTED_KEYS = int(os.environ.get("LISTED_KEYS", 12_000_000))
LOCAL_FILES = int(os.environ.get("LOCAL_FILES", 100_000))
N_SINGLE = 2_000
WRITERS = 64
# Of the keys of the made store, so many are tracks: a catalog of a million in a bucket of 1.2 million.
TRACK_SHARE = 1 / 1.2
MAX_LOCAL_S = 60  # a million
MAX_MEMORY_GIB = 4  # ten million


def key(number: int) -> str:
    return f"songs/{number:08d}.mp3"


class MadeBucket:
    """A store of keys that are computed; each page takes the time of a request to S3."""

    request_s = 0.05

    def __init__(self, n_keys: int) -> None:
        self.n_keys = n_keys

    def list(self, prefix: str | None, *, offset: str, chunk_size: int, return_arrow: bool) -> Iterator[pa.RecordBatch]:
        time.sleep(self.request_s)
        begin = int(offset[6:14])
        begin += key(begin) <= offset
        keys = [key(number) for number in range(begin, min(begin + chunk_size, self.n_keys))]
        if keys:
            yield pa.record_batch([keys, [f'"{name:0>32}"' for name in keys]], ["path", "e_tag"])


def measured(uris: Callable[[], pa.ChunkedArray], bucket: MadeBucket | None = None) -> dict[str, float]:
    """Ask for the etags of files in this process; return seconds, requests, files without an etag, and memory."""
    counts, lock = {"pages": 0, "singles": 0}, threading.Lock()

    def counted(name: str, function: Callable) -> Callable:
        def call(*arguments: object) -> object:
            with lock:
                counts[name] += 1
            return function(*arguments)

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(etags, "_page", counted("pages", etags._page))
        patch.setattr(etags, "_ask_once", counted("singles", etags._ask_once))
        if bucket:
            patch.setattr(stores, "object_store", lambda url: bucket)
        of_uris = uris()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        started, cpu = time.perf_counter(), time.process_time()
        found = etags.etags_of(of_uris)
        seconds, cpu_s = time.perf_counter() - started, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    figures = {"files": len(found), "s": seconds, "CPU s": cpu_s, **counts, "null": found["etag"].null_count}
    return figures | {"GiB with the uris": before, "GiB at most": peak}


def made_uris() -> pa.ChunkedArray:
    """Return the uris of a share of the keys, in no order."""
    numbers = np.random.default_rng(0).permutation(LISTED_KEYS)[: int(LISTED_KEYS * TRACK_SHARE)]
    blocks = np.array_split(numbers, max(1, len(numbers) // 100_000))
    return pa.chunked_array([[f"s3://bucket/{key(number)}" for number in block.tolist()] for block in blocks])


def of_made_bucket() -> dict[str, float]:
    return measured(made_uris, MadeBucket(LISTED_KEYS))


def of_uris(pattern: str, n_files: int, step: int = 1) -> dict[str, float]:
    """Measure files whose uri is `pattern` with a number."""
    return measured(lambda: pa.chunked_array([[pattern.format(number) for number in range(0, n_files, step)]]))


def apart(function: Callable[..., dict[str, float]], *arguments: object) -> dict[str, float]:
    """Measure in a process of its own, whose memory holds nothing else; print the figures."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, context) as processes:
        figures = processes.submit(function, *arguments).result()
    text = "  ".join(f"{name} {value:,.2f}" if "s" in name.split() or "GiB" in name else f"{name} {value:,.0f}"
                     for name, value in figures.items())  # fmt: skip
    print(f"\n{text}  files/s {figures['files'] / figures['s']:,.0f}")  # noqa: T201
    return figures


def test_made_bucket_needs_its_pages_and_bounded_memory() -> None:
    figures = apart(of_made_bucket)
    n_ranges = LISTED_KEYS * TRACK_SHARE / etags.RANGE_KEYS
    assert figures["pages"] <= LISTED_KEYS / 1_000 + 2 * n_ranges
    assert (figures["singles"], figures["null"]) == (0, 0)
    assert figures["GiB at most"] <= MAX_MEMORY_GIB


def test_local_files(tmp_path: Path) -> None:
    for number in range(LOCAL_FILES):
        folder = tmp_path / f"{number // 1_000:04d}"
        if number % 1_000 == 0:
            folder.mkdir()
        (folder / f"{number:08d}.mp3").touch()
    uris = [str(path) for folder in sorted(tmp_path.iterdir()) for path in sorted(folder.iterdir())]
    figures = apart(of_local, uris)
    assert figures["null"] == 0
    assert figures["s"] * 1_000_000 / LOCAL_FILES <= MAX_LOCAL_S


def of_local(uris: list[str]) -> dict[str, float]:
    return measured(lambda: pa.chunked_array([uris]))


def test_s3_server(tmp_path: Path) -> None:
    async def fill(root: str) -> None:
        url = stores.object_url(f"{root}/x")
        assert url
        store, numbers = stores.object_store(url), iter(range(S3_OBJECTS))

        async def write() -> None:
            for number in numbers:
                await store.put_async(key(number), b"x")

        await asyncio.gather(*(write() for _ in range(WRITERS)))

    with pytest.MonkeyPatch.context() as patch, STORES["seaweedfs"](tmp_path, patch) as root:
        started = time.perf_counter()
        asyncio.run(fill(root))
        print(f"\n{S3_OBJECTS:,} objects were written in {time.perf_counter() - started:.0f} s")  # noqa: T201
        pattern = root + "/songs/{:08d}.mp3"
        figures = apart(of_uris, pattern, S3_OBJECTS)
        assert figures["null"] == 0
        assert figures["pages"] <= S3_OBJECTS / 1_000 + 2 * S3_OBJECTS / etags.RANGE_KEYS + 2
        figures = apart(of_uris, pattern, S3_OBJECTS, S3_OBJECTS // N_SINGLE)
        assert figures["null"] == 0
        assert figures["pages"] + figures["singles"] <= N_SINGLE * 1.1
