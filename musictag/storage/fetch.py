"""Audio files at any fsspec URL: local copies of their bytes.

When a file is copied, transient errors (network, busy store) are retried a few times with growing pauses; permanent
ones (no such file, no permission, unknown scheme) are not.
"""

import contextlib
import errno
import http
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pyarrow as pa

from musictag.errors import AudioEmptyError, AudioError, AudioUnreachableError
from musictag.storage import stores, urls
from musictag.storage.retry import retry

ETAG_THREADS = 32
"""Requests for single files in parallel: a request waits for the store, not for a core."""
PERMANENT_ERRORS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ValueError, ImportError)
"""Errors of fsspec's backends that are not retried."""
RETRYABLE_STATUSES = (http.HTTPStatus.REQUEST_TIMEOUT, http.HTTPStatus.TOO_MANY_REQUESTS)
"""Retryable 4xx statuses."""
_MISSING_STATUSES = (http.HTTPStatus.NOT_FOUND, http.HTTPStatus.GONE)


@contextlib.contextmanager
def local_audio(uri: str) -> Iterator[Path]:
    """Yield a local path of the file at `uri`: the file itself if it is local, else a temporary copy.

    Raises `AudioUnreachableError` if it cannot be read, `AudioEmptyError` if it is empty.
    """
    with contextlib.ExitStack() as stack:
        with unreachable_errors(uri):
            filesystem, path = stores.open_filesystem(uri)
            if "file" in filesystem.protocol:
                local = Path(path)
            else:
                folder = stack.enter_context(tempfile.TemporaryDirectory())
                local = Path(folder) / f"audio{_suffix(path)}"
                _copy(filesystem, path, local)
            is_empty = not has_content(local)
        if is_empty:
            raise AudioEmptyError(f"{uri}: the file is empty (0 bytes)")
        yield local


def is_missing(error: AudioUnreachableError) -> bool:
    """Return whether `local_audio` raised this error because there is no such file."""
    if not isinstance(error.__cause__, Exception):
        return False
    cause = _cause(error.__cause__)
    return (
        isinstance(cause, FileNotFoundError | NotADirectoryError) or getattr(cause, "status", None) in _MISSING_STATUSES
    )


def _suffix(path: str) -> str:
    """Return the suffix of a file's name without the query: presigned URLs are longer than a file name may be."""
    found = re.search(r"\.\w{1,5}$", urls.without_query(path).rstrip("/"), re.ASCII)
    return found[0] if found else ""


def has_content(path: Path) -> bool:
    """Return whether a local file is not empty. Raises `OSError` if it is not a regular file or cannot be read."""
    if path.is_fifo() or path.is_socket() or path.is_char_device() or path.is_block_device():
        raise OSError(errno.EINVAL, "it is a pipe, a socket or a device, not a file")  # opening it may block for ever
    with path.open("rb") as stream:
        return bool(stream.read(1))


@contextlib.contextmanager
def unreachable_errors(uri: str) -> Iterator[None]:
    """Raise errors of a store in the body as `AudioUnreachableError` with the file's uri."""
    try:
        yield
    except AudioError:
        raise
    except Exception as error:  # fsspec's filesystems raise errors of many libraries
        reason = str(_cause(error)) or type(error).__name__
        raise AudioUnreachableError(f"{uri}: cannot be read: {reason}") from error


def _cause(error: Exception) -> BaseException:
    """Return the cause of an error: fsspec's HTTP filesystem raises `FileNotFoundError` for any error."""
    return error.__cause__ or error if isinstance(error, FileNotFoundError) else error


def _is_transient(error: Exception) -> bool:
    cause = _cause(error)
    status = getattr(cause, "status", None)  # of an HTTP response
    return not isinstance(cause, PERMANENT_ERRORS) and (status not in range(400, 500) or status in RETRYABLE_STATUSES)


def _copy(filesystem: fsspec.AbstractFileSystem, path: str, local: Path) -> None:
    """Copy a file to this machine, retrying transient errors."""

    def copy() -> None:
        with filesystem.open(path, "rb") as source, local.open("wb") as target:
            shutil.copyfileobj(source, target)

    retry(copy, _is_transient)
