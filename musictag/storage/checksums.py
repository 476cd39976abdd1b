"""The SHA-256 of each file of a table, in a folder of the table: what the file was when it was written.

`_checksums/NAME.sha256` is a line that `sha256sum --check` reads in the table's folder. To Delta, whose names do not
begin with `_` but for its log, that folder is not there.
"""

import concurrent.futures
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from pyarrow.fs import FileSelector, LocalFileSystem, SubTreeFileSystem

FOLDER = "_checksums"
SUFFIX = ".sha256"
# Records read at once: reading them waits for the store, not for a core.
THREADS = 16


class HashingStream:
    """A stream to write to, as pyarrow takes one, that knows the SHA-256 of what was written."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._sha256 = stream, hashlib.sha256()

    @property
    def digest(self) -> str:
        """In hex, of all bytes so far."""
        return self._sha256.hexdigest()

    @property
    def closed(self) -> bool:
        """As of the stream itself."""
        return self._stream.closed

    def write(self, data: bytes) -> int:
        """As the stream itself."""
        self._sha256.update(data)
        return self._stream.write(data)

    def tell(self) -> int:
        """As of the stream itself."""
        return self._stream.tell()

    def flush(self) -> None:
        """As the stream itself."""
        self._stream.flush()


def sha256(table: SubTreeFileSystem, path: str) -> str:
    """Hex digest of the file at `path` in a table's folder as it is now. Raises `OSError` if it cannot be read."""
    with table.open_input_stream(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def record_checksum(table: SubTreeFileSystem, path: str, sha256: str) -> None:
    """Record the digest of a file of the table."""
    if isinstance(table.base_fs, LocalFileSystem):  # other stores know no empty folders
        table.create_dir(FOLDER)
    with table.open_output_stream(_record(path)) as stream:
        stream.write(f"{sha256}  {path}\n".encode())


def recorded_paths(table: SubTreeFileSystem) -> set[str]:
    """Paths of the files whose digest is recorded."""
    found = table.get_file_info(FileSelector(FOLDER, allow_not_found=True))
    return {record.base_name.removesuffix(SUFFIX) for record in found if record.is_file}


def read_checksums(table: SubTreeFileSystem) -> dict[str, str]:
    """Path to hex digest of every file whose digest is recorded; what a killed writer left of one is no digest."""

    def read(path: str) -> str:
        with table.open_input_stream(_record(path)) as stream:
            return str(stream.read(), "utf-8", "replace").partition("  ")[0]

    paths = sorted(recorded_paths(table))
    with concurrent.futures.ThreadPoolExecutor(THREADS) as threads:
        return dict(zip(paths, threads.map(read, paths), strict=True))


def delete_checksums(table: SubTreeFileSystem, paths: Iterable[str]) -> None:
    """Forget the digests of files that are gone."""
    for path in paths:
        table.delete_file(_record(path))


def _record(path: str) -> str:
    return f"{FOLDER}/{path}{SUFFIX}"


def file_sha256(path: Path) -> str:
    """Hex digest of a local file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
