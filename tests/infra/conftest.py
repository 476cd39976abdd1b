import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import s3fs
import soundfile

from infra import cluster

SAMPLE_RATE = 16_000
CATALOG = "music/catalog.csv"
ORDER = ("test_image", "test_nights", "test_security", "test_training", "test_backup", "test_gpus", "test_faults")
"""The modules are one story: each uses what the one before has left on the cluster."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: ORDER.index(item.path.stem))


@pytest.fixture(scope="session", autouse=True)
def overlay() -> None:
    """The local overlay, applied to the cluster of KUBECONFIG, when all of it is ready."""
    if reason := cluster.is_available():
        pytest.skip(reason)
    cluster.apply()
    cluster.wait_until_ready()


@pytest.fixture(scope="session")
def store(overlay: None) -> Iterator[s3fs.S3FileSystem]:
    """The S3 server of the overlay, with empty buckets; the environment names it too, for our own tables."""
    with cluster.forwarded("service/s3", 8333) as port, pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "musictag",
            "AWS_SECRET_ACCESS_KEY": "only-for-a-try", "AWS_REGION": "us-east-1",
        }.items():  # fmt: skip
            patch.setenv(name, value)
        filesystem = s3fs.S3FileSystem(
            skip_instance_cache=True, use_listings_cache=False, endpoint_url=f"http://127.0.0.1:{port}"
        )
        for bucket in ("music", "mlflow"):
            if not filesystem.exists(bucket):
                filesystem.mkdir(bucket)
        yield filesystem


class Library:
    """A catalog and its audio on S3; what an earlier run of the tests has left there belongs to it."""

    def __init__(self, store: s3fs.S3FileSystem) -> None:
        self.store = store
        self.rows: dict[str, tuple[str, str, str]] = {}
        if store.exists(CATALOG):
            for line in store.cat(CATALOG).decode().splitlines()[1:]:
                track_id, uri, artist, tags = line.split(",")
                self.rows[track_id] = (uri, artist, tags)

    def add(self, *track_ids: str, seed: int = 0, are_tagged: bool = True) -> None:
        for track_id in track_ids:
            n = int(track_id.rpartition("-")[2])
            tags = ["high" if n % 2 else "low"] if are_tagged else []
            self.store.pipe(f"music/songs/{track_id}.flac", self._song(n, seed))
            self.rows[track_id] = (f"songs/{track_id}.flac", f"artist {n // 2}", ";".join(tags))

    def remove(self, *track_ids: str) -> None:
        for track_id in track_ids:
            del self.rows[track_id]

    def write(self) -> None:
        lines = ["track_id,uri,artist,tags", *(",".join([track_id, *row]) for track_id, row in self.rows.items())]
        self.store.pipe(CATALOG, "\n".join(lines).encode())

    def _song(self, n: int, seed: int) -> bytes:
        rng = np.random.default_rng([n, seed])
        seconds = np.arange(8 * SAMPLE_RATE) / SAMPLE_RATE
        pitch = rng.uniform(900, 2_000) if n % 2 else rng.uniform(80, 300)
        waveform = 0.3 * np.sin(2 * np.pi * pitch * seconds) + 0.01 * rng.standard_normal(len(seconds))
        stream = io.BytesIO()
        soundfile.write(stream, waveform.astype(np.float32), SAMPLE_RATE, format="FLAC")
        return stream.getvalue()


@pytest.fixture(scope="session")
def observed() -> dict[str, cluster.Observed]:
    """Ports and command lines of the pods of the first night, by the kind of pod."""
    return {}


@pytest.fixture(scope="session")
def library(store: s3fs.S3FileSystem) -> Any:
    return Library(store)
