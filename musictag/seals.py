"""The SHA-256 of each file of a table, in a folder of the table: what the file was when it was written.

`_checksums/NAME.sha256` is a line that `sha256sum --check` reads in the table's folder. To Delta, whose names do not
begin with `_` but for its log, that folder is not there.
"""

import hashlib
from collections.abc import Iterable
from typing import IO

import fsspec

FOLDER = "_checksums"
SUFFIX = ".sha256"


class Sealing:
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


def digest(uri: str, path: str) -> str:
    """Hex digest of the file at `path` in the table at `uri` as it is now. Raises `OSError` if it cannot be read."""
    with fsspec.open(_join(uri, path), "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def seal(uri: str, path: str, sha256: str) -> None:
    """Record the digest of a file of the table."""
    filesystem, root = fsspec.core.url_to_fs(_join(uri, FOLDER))
    filesystem.makedirs(root, exist_ok=True)
    filesystem.pipe_file(f"{root}/{path}{SUFFIX}", f"{sha256}  {path}\n".encode())


def sealed(uri: str) -> set[str]:
    """Paths of the files whose digest is recorded."""
    filesystem, root = fsspec.core.url_to_fs(_join(uri, FOLDER))
    if not filesystem.exists(root):
        return set()
    return {path.rpartition("/")[2].removesuffix(SUFFIX) for path in filesystem.find(root)}


def read_seals(uri: str) -> dict[str, str]:
    """Path to hex digest of every file whose digest is recorded; what a killed writer left of one is no digest."""
    filesystem, root = fsspec.core.url_to_fs(_join(uri, FOLDER))
    if not filesystem.exists(root):
        return {}
    contents = filesystem.cat(filesystem.find(root))
    return {
        path.rpartition("/")[2].removesuffix(SUFFIX): content.decode("utf-8", "replace").partition("  ")[0]
        for path, content in contents.items()
    }


def unseal(uri: str, paths: Iterable[str]) -> None:
    """Forget the digests of files that are gone."""
    filesystem, root = fsspec.core.url_to_fs(_join(uri, FOLDER))
    for path in paths:
        filesystem.rm_file(f"{root}/{path}{SUFFIX}")


def _join(uri: str, path: str) -> str:
    return f"{uri.rstrip('/')}/{path}"
