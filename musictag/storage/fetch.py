"""Audio files at any fsspec URL: local copies of their bytes.

Transient errors (network, busy store) are retried a few times with growing pauses; permanent ones (no such file, no
permission, unknown scheme) are not. A store that is gone is waited for (`outages`).
"""

import contextlib
import errno
import http
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import fsspec

from musictag.errors import AudioEmptyError, AudioMissingError, AudioUnreachableError, MusictagError, StoreError
from musictag.storage import outages, stores, urls

Result = TypeVar("Result")

ETAG_THREADS = 32
"""Requests for single files in parallel: a request waits for the store, not for a core."""
PERMANENT_ERRORS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ValueError, ImportError)
"""Errors of fsspec's backends that are not retried."""
PERMANENT_CODES = (errno.EINVAL, errno.ELOOP, errno.ENAMETOOLONG)
"""Codes of `OSError` that are not retried."""
COPY_BYTES = 1 << 20
"""Bytes that are copied at once."""
RETRYABLE_STATUSES = (http.HTTPStatus.REQUEST_TIMEOUT, http.HTTPStatus.TOO_MANY_REQUESTS)
"""Retryable 4xx statuses."""
_MISSING_STATUSES = (http.HTTPStatus.NOT_FOUND, http.HTTPStatus.GONE)


@contextlib.contextmanager
def local_audio(uri: str, store_timeout_s: float = 0.0) -> Iterator[Path]:
    """Yield a local path of the file at `uri`: the file itself if it is local, else a temporary copy.

    A store that does not answer is waited for `store_timeout_s`.

    Raises:
        AudioUnreachableError: the file cannot be read; if there is no such file, an `AudioMissingError`.
        AudioEmptyError: the file is empty.
        StoreError: the folder for temporary files is full.
    """
    with contextlib.ExitStack() as stack:
        with unreachable_errors(uri):
            filesystem, path = stores.open_filesystem(uri)
            if "file" in filesystem.protocol:
                local = Path(path)
                is_empty = not ask_store(uri, lambda: has_content(local), store_timeout_s)
            else:
                with temporary_file_errors():
                    folder = stack.enter_context(tempfile.TemporaryDirectory())
                local = Path(folder) / f"audio{_suffix(path)}"
                ask_store(uri, lambda: _copy(filesystem, path, local), store_timeout_s)
                is_empty = not has_content(local)
        if is_empty:
            raise AudioEmptyError(f"{uri}: the file is empty (0 bytes)")
        yield local


def ask_store(uri: str, fn: Callable[[], Result], store_timeout_s: float) -> Result:
    """Call `fn`, which reads the file at `uri`; retry transient errors, and wait for a store that does not answer."""
    return outages.ask_store(uri, fn, _is_transient, store_timeout_s)


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
    """Raise `AudioUnreachableError` for an error of a store in the body; `MemoryError` and our errors stay.

    If the store says that there is no such file, it is an `AudioMissingError`.
    """
    try:
        yield
    except (MusictagError, MemoryError):
        raise
    except Exception as error:  # fsspec's filesystems raise errors of many libraries
        cause = _cause(error)
        kind = AudioMissingError if _is_missing(cause) else AudioUnreachableError
        raise kind(f"{uri}: cannot be read: {str(cause) or type(error).__name__}") from error


def _is_missing(cause: BaseException) -> bool:
    is_no_file = isinstance(cause, FileNotFoundError | NotADirectoryError)
    return is_no_file or getattr(cause, "status", None) in _MISSING_STATUSES


@contextlib.contextmanager
def temporary_file_errors() -> Iterator[None]:
    """Raise `StoreError` for an `OSError` in the body, which writes a temporary file."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{tempfile.gettempdir()}: {error.strerror or error}; set TMPDIR to another folder") from error


def _cause(error: BaseException) -> BaseException:
    """Return the cause of an error: fsspec's HTTP filesystem raises `FileNotFoundError` for any error."""
    is_wrapped = isinstance(error, FileNotFoundError | AudioUnreachableError) and error.__cause__
    return _cause(error.__cause__) if is_wrapped and error.__cause__ else error


def _is_transient(error: Exception) -> bool:
    cause = _cause(error)
    if isinstance(cause, (*PERMANENT_ERRORS, MusictagError, MemoryError)):
        return False
    if isinstance(cause, OSError) and cause.errno in PERMANENT_CODES:
        return False
    status = getattr(cause, "status", None)  # of an HTTP response
    return status not in range(400, 500) or status in RETRYABLE_STATUSES


def _copy(filesystem: fsspec.AbstractFileSystem, path: str, local: Path) -> None:
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(filesystem.open(path, "rb"))
        with temporary_file_errors():
            target = stack.enter_context(local.open("wb"))
        while block := source.read(COPY_BYTES):
            with temporary_file_errors():
                target.write(block)
                target.flush()
