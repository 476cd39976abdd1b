"""The folder of a table, in its store."""

import concurrent.futures
import contextlib
import urllib.parse
import uuid
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

import obstore
import obstore.exceptions
import pyarrow.fs
from deltalake.exceptions import DeltaError

from musictag.errors import StoreError
from musictag.storage import stores
from musictag.storage.text import store_reason

# Files that are deleted in parallel: a deletion waits for the store, not for a core.
_DELETE_THREADS = 16


@contextlib.contextmanager
def store_errors(uri: str) -> Iterator[None]:
    """Raise errors of deltalake or of the store in the body as `StoreError` with the table's uri."""
    try:
        yield
    except (DeltaError, OSError, ValueError) as error:
        raise StoreError(f"table {uri}: {store_reason(error)}") from error


def open_folder(uri: str) -> pyarrow.fs.SubTreeFileSystem:
    """Return the folder of the table at `uri` as one of Arrow's own filesystems.

    With fsspec's or deltalake's filesystems, Arrow's threads would call Python, which aborts the process if Python
    exits meanwhile ("terminate called without an active exception"). Moreover, s3fs waits for ever if a server does not
    send "100 Continue", because aiohttp's timeout begins after it.
    """
    with store_errors(uri):
        filesystem, path = stores.arrow_filesystem(uri)
    return pyarrow.fs.SubTreeFileSystem(path.rstrip("/"), filesystem)


def delete_folder(uri: str, path: str) -> None:
    """Delete a folder in that of a table; nothing if it does not exist."""
    with store_errors(uri):
        parent = open_folder(uri)
        # Object stores have no folders, at most objects in their place: the files are deleted one by one.
        found = parent.get_file_info(pyarrow.fs.FileSelector(path, allow_not_found=True, recursive=True))
        delete_files(parent, [each.path for each in found if each.is_file])
        with contextlib.suppress(FileNotFoundError):
            if parent.get_file_info(path).type == pyarrow.fs.FileType.Directory:
                parent.delete_dir(path)


def delete_files(table: pyarrow.fs.FileSystem, paths: Iterable[str]) -> None:
    """Delete files in parallel; files that do not exist are ignored, because another process may delete the same."""

    def delete(path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            table.delete_file(path)

    with concurrent.futures.ThreadPoolExecutor(_DELETE_THREADS) as threads:
        list(threads.map(delete, paths))


def write_file(uri: str, path: str, content: bytes) -> None:
    """Write a file of the table's folder at once: in no store does a reader ever see an empty file or a part of one."""
    with store_errors(f"{uri}/{path}"):
        url = stores.object_url(uri)
        if url and url.scheme in stores.AZURE:
            _put(url, path, content)
            return
        table = open_folder(uri)
        if not isinstance(table.base_fs, pyarrow.fs.LocalFileSystem):
            with table.open_output_stream(path) as stream:
                stream.write(content)
            return
        table.create_dir(str(PurePosixPath(path).parent))
        temporary = f"{path}.{uuid.uuid4().hex[:12]}.tmp"
        with table.open_output_stream(temporary) as stream:
            stream.write(content)
        table.move(temporary, path)


def _put(url: stores.ObjectUrl, path: str, content: bytes) -> None:
    """Write an object by one request: on Azure, Arrow writes an empty object first."""
    key = f"{urllib.parse.unquote(url.key).rstrip('/')}/{path}"
    try:
        obstore.put(stores.object_store(url), key, content)
    except obstore.exceptions.BaseError as error:
        raise OSError(str(error)) from error
