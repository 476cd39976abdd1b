"""Audio and tables on a store that answers 500 and 503, or not at all, on a share of all requests."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs

from musictag.catalog.reader import read_catalog
from musictag.jobs import maintenance
from object_stores import free_port, running
from torture.runs import SCRIPTS, Job, Reference, assert_same_rows, content

N_TRACKS = 24
"""Few: a request without an answer costs 15 to 30 s, which is when clients give up and try again."""
PROXY = Path(__file__).parent / "faulty_store.py"
KEYS = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ALLOW_HTTP": "true",
}


@pytest.fixture
def server(catalog: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Port of a store with the catalog in the bucket `music`; the environment of this process leads to it."""
    port = free_port()
    with running(port, sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", port):
        for name, value in {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}.items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()  # which would lead to the store of the test before
        store = s3fs.S3FileSystem(skip_instance_cache=True)
        store.mkdir("music")
        lines = catalog.read_text().splitlines()[: 1 + N_TRACKS]
        store.pipe("music/songs/catalog.csv", "\n".join(lines).encode())
        for name in (line.partition(",")[0] for line in lines[1:]):
            store.pipe(f"music/songs/{name}", (catalog.parent / name).read_bytes())
        yield port


@pytest.mark.parametrize(("failing", "stalling"), [(0.1, 0.0), (0.0, 0.02)], ids=["500 and 503", "stalls"])
def test_featurize_with_a_faulty_store(
    server: int, featurized: Reference, tmp_path: Path, failing: float, stalling: float
) -> None:
    port, uri = free_port(), "s3://music/features"
    listing = "s3://music/songs/catalog.csv"
    with running(port, sys.executable, PROXY, port, server, 0, failing, stalling):
        url = f"http://127.0.0.1:{port}"
        job = Job(SCRIPTS / "featurize.py", ("--catalog", listing, "--features", uri), uri, {"AWS_ENDPOINT_URL": url})
        started = time.monotonic()
        end = job.run_checked(tmp_path / "log").splitlines()[-1]
        print(f"\n{failing:.0%} fail, {stalling:.0%} stall: {time.monotonic() - started:.0f} s: {end}")  # noqa: T201
    assert maintenance.verify(uri, listing).problems == ()
    place = {"uri", "audio_etag"}
    found, expected = (
        {track_id: {name: value for name, value in row.items() if name not in place} for track_id, row in rows.items()}
        for rows in (content(uri), featurized.rows)
    )
    listed = set(read_catalog(listing).tracks["track_id"].to_pylist())
    assert_same_rows(found, {track_id: row for track_id, row in expected.items() if track_id in listed})
