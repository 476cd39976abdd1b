import subprocess
from pathlib import Path

import pytest
from pyarrow.fs import SubTreeFileSystem

from musictag.storage import checksums, folders


@pytest.fixture
def table(tmp_path: Path) -> SubTreeFileSystem:
    return folders.open_folder(str(tmp_path))


def write(table: SubTreeFileSystem, path: str, content: bytes) -> str:
    with table.open_output_stream(path) as file:
        stream = checksums.HashingStream(file)
        stream.write(content[:3])
        assert stream.tell() == 3
        stream.write(content[3:])
        assert not stream.closed
    return stream.digest


def test_hashing_stream_has_the_checksum_of_the_file(table: SubTreeFileSystem) -> None:
    digest = write(table, "a.parquet", b"some bytes")
    assert checksums.sha256(table, "a.parquet") == digest


def test_checksums_are_read_and_deleted(table: SubTreeFileSystem) -> None:
    assert checksums.read_checksums(table) == {}
    digests = {path: write(table, path, path.encode()) for path in ("a.parquet", "b c.parquet")}
    for path, digest in digests.items():
        checksums.record_checksum(table, path, digest)
    assert checksums.read_checksums(table) == digests
    assert checksums.recorded_paths(table) == set(digests)
    checksums.delete_checksums(table, ["a.parquet"])
    assert list(checksums.read_checksums(table)) == ["b c.parquet"]


def test_sha256sum_reads_checksum_files(table: SubTreeFileSystem, tmp_path: Path) -> None:
    checksums.record_checksum(table, "a.parquet", write(table, "a.parquet", b"some bytes"))
    command = ["sha256sum", "--check", "--strict", "_checksums/a.parquet.sha256"]
    assert subprocess.run(command, cwd=tmp_path, check=False, capture_output=True).returncode == 0
    assert checksums.sha256(table, "a.parquet") == checksums.file_sha256(tmp_path / "a.parquet")
