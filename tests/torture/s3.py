"""A store that speaks S3, with songs, and a proxy before it that can fail or be stopped."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs

from object_stores import moto, running

N_TRACKS = 24
"""Few: a request without an answer costs 15 to 30 s, which is when clients give up and try again."""
LISTING = "s3://music/songs/catalog.csv"
PROXY = Path(__file__).parent / "faulty_store.py"


@pytest.fixture
def server(catalog: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[int]:
    """Port of a store with the catalog in the bucket `music`; the environment of this process leads to it."""
    with moto(tmp_path, monkeypatch):
        s3fs.S3FileSystem.clear_instance_cache()  # which would lead to the store of the test before
        store = s3fs.S3FileSystem(skip_instance_cache=True)
        lines = catalog.read_text().splitlines()[: 1 + N_TRACKS]
        store.pipe("music/songs/catalog.csv", "\n".join(lines).encode())
        for name in (line.partition(",")[0] for line in lines[1:]):
            store.pipe(f"music/songs/{name}", (catalog.parent / name).read_bytes())
        yield int(os.environ["AWS_ENDPOINT_URL"].rpartition(":")[2])


@contextlib.contextmanager
def proxied(port: int, server: int, failing: float = 0.0, stalling: float = 0.0) -> Iterator[dict[str, str]]:
    """Serve the store also at `port` in the body, with faults; yield the environment that leads there."""
    with running(port, sys.executable, PROXY, port, server, 0, failing, stalling):
        yield {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
