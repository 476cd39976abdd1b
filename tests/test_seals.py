import subprocess
from pathlib import Path

import fsspec
import pytest

from musictag import checksums, seals


@pytest.fixture(params=["local", "memory"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "table") if request.param == "local" else f"memory://{tmp_path}/table"


def write(uri: str, path: str, content: bytes) -> str:
    fsspec.core.url_to_fs(uri)[0].makedirs(uri, exist_ok=True)
    with fsspec.open(f"{uri}/{path}", "wb") as file:
        stream = seals.Sealing(file)
        stream.write(content[:3])
        assert stream.tell() == 3
        stream.write(content[3:])
        assert not stream.closed
    return stream.digest


def test_what_is_written_through_a_seal_has_the_digest_of_the_file(uri: str) -> None:
    digest = write(uri, "a.parquet", b"some bytes")
    assert seals.digest(uri, "a.parquet") == digest


def test_seals_are_read_back_and_forgotten(uri: str) -> None:
    assert seals.read_seals(uri) == {}
    digests = {path: write(uri, path, path.encode()) for path in ("a.parquet", "b c.parquet")}
    for path, digest in digests.items():
        seals.seal(uri, path, digest)
    assert seals.read_seals(uri) == digests
    seals.unseal(uri, ["a.parquet"])
    assert list(seals.read_seals(uri)) == ["b c.parquet"]


def test_sha256sum_reads_them(tmp_path: Path) -> None:
    seals.seal(str(tmp_path), "a.parquet", write(str(tmp_path), "a.parquet", b"some bytes"))
    command = ["sha256sum", "--check", "--strict", "_checksums/a.parquet.sha256"]
    assert subprocess.run(command, cwd=tmp_path, check=False, capture_output=True).returncode == 0
    assert seals.digest(str(tmp_path), "a.parquet") == checksums.of_file(tmp_path / "a.parquet")
