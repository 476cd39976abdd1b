import subprocess
from pathlib import Path

import pytest
from pyarrow.fs import SubTreeFileSystem

from musictag.storage import checksums as storage_checksums
from musictag.storage import digests as storage_digests
from musictag.storage import tables


@pytest.fixture
def table(tmp_path: Path) -> SubTreeFileSystem:
    return tables.folder(str(tmp_path))


def write(table: SubTreeFileSystem, path: str, content: bytes) -> str:
    with table.open_output_stream(path) as file:
        stream = storage_checksums.Sealing(file)
        stream.write(content[:3])
        assert stream.tell() == 3
        stream.write(content[3:])
        assert not stream.closed
    return stream.digest


def test_what_is_written_through_a_seal_has_the_digest_of_the_file(table: SubTreeFileSystem) -> None:
    digest = write(table, "a.parquet", b"some bytes")
    assert storage_checksums.digest(table, "a.parquet") == digest


def test_seals_are_read_back_and_forgotten(table: SubTreeFileSystem) -> None:
    assert storage_checksums.read_seals(table) == {}
    digests = {path: write(table, path, path.encode()) for path in ("a.parquet", "b c.parquet")}
    for path, digest in digests.items():
        storage_checksums.seal(table, path, digest)
    assert storage_checksums.read_seals(table) == digests
    assert storage_checksums.sealed(table) == set(digests)
    storage_checksums.unseal(table, ["a.parquet"])
    assert list(storage_checksums.read_seals(table)) == ["b c.parquet"]


def test_sha256sum_reads_them(table: SubTreeFileSystem, tmp_path: Path) -> None:
    storage_checksums.seal(table, "a.parquet", write(table, "a.parquet", b"some bytes"))
    command = ["sha256sum", "--check", "--strict", "_checksums/a.parquet.sha256"]
    assert subprocess.run(command, cwd=tmp_path, check=False, capture_output=True).returncode == 0
    assert storage_checksums.digest(table, "a.parquet") == storage_digests.of_file(tmp_path / "a.parquet")
