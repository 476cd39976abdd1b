"""The SHA-256 of each file of a table, recorded when the file is written.

The file `_checksums/NAME.sha256` in the table's folder holds one line in the format of `sha256sum --check`. Delta
ignores folders whose name begins with `_`.
"""

import concurrent.futures
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from pyarrow.fs import FileSelector, LocalFileSystem, SubTreeFileSystem

from musictag.storage.folders import delete_files

FOLDER = "_checksums"
SUFFIX = ".sha256"
# Checksum files read in parallel: reading waits for the store, not for a core.
THREADS = 16


class HashingStream:
    """A writable stream for pyarrow that counts the bytes written to it and computes their SHA-256."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._sha256 = stream, hashlib.sha256()
        self.n_written = 0

    @property
    def digest(self) -> str:
        """SHA-256 of all bytes written so far, in hex."""
        return self._sha256.hexdigest()

    @property
    def closed(self) -> bool:
        return self._stream.closed

    def write(self, data: bytes) -> int:
        self._sha256.update(data)
        self.n_written += len(data)
        return self._stream.write(data)

    def tell(self) -> int:
        return self._stream.tell()

    def flush(self) -> None:
        self._stream.flush()


def sha256(table: SubTreeFileSystem, path: str) -> str:
    """Return the SHA-256 of a file in a table's folder, in hex. Raises `OSError` if it cannot be read."""
    with table.open_input_stream(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def record_checksum(table: SubTreeFileSystem, path: str, sha256: str) -> None:
    """Write the checksum file of a file of the table."""
    if isinstance(table.base_fs, LocalFileSystem):  # object stores have no empty folders
        table.create_dir(FOLDER)
    with table.open_output_stream(_checksum_path(path)) as stream:
        stream.write(f"{sha256}  {path}\n".encode())


def recorded_paths(table: SubTreeFileSystem) -> set[str]:
    """Return the paths of the files that have a checksum file."""
    found = table.get_file_info(FileSelector(FOLDER, allow_not_found=True))
    return {record.base_name.removesuffix(SUFFIX) for record in found if record.is_file}


def read_checksums(table: SubTreeFileSystem) -> dict[str, str]:
    """Return path to SHA-256 (hex) of each file that has a checksum file.

    The checksum file of a killed writer may be empty or incomplete; its text is returned as it is.
    """

    def read(path: str) -> str:
        with table.open_input_stream(_checksum_path(path)) as stream:
            return str(stream.read(), "utf-8", "replace").partition("  ")[0]

    paths = sorted(recorded_paths(table))
    with concurrent.futures.ThreadPoolExecutor(THREADS) as threads:
        return dict(zip(paths, threads.map(read, paths), strict=True))


def delete_checksums(table: SubTreeFileSystem, paths: Iterable[str]) -> None:
    """Delete the checksum files of deleted files."""
    delete_files(table, map(_checksum_path, paths))


def _checksum_path(path: str) -> str:
    return f"{FOLDER}/{path}{SUFFIX}"


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a local file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
