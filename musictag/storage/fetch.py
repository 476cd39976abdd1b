"""Audio files at any fsspec URL: their etags, and local copies of their bytes.

Transient errors (network, busy store) are retried a few times with growing pauses; permanent ones (no such file, no
permission, unknown scheme) are not. A store that does not answer at all is waited for (`outages`).
"""

import concurrent.futures
import contextlib
import errno
import http
import re
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import fsspec

from musictag.errors import AudioEmptyError, AudioUnreachableError, MusictagError, StoreError
from musictag.storage import outages, urls

if TYPE_CHECKING:  # its import is slow, and local files do not need it
    import aiohttp

Result = TypeVar("Result")

# Etags requested in parallel: a request waits for the store, not for a core.
ETAG_THREADS = 32
PERMANENT_ERRORS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ValueError, ImportError)
"""Errors of fsspec's backends that are not retried."""
PERMANENT_CODES = (errno.EINVAL, errno.ELOOP, errno.ENAMETOOLONG)
"""Codes of `OSError` that are not retried."""
COPY_BYTES = 1 << 20
"""Bytes that are copied at once."""
# Keys of a file's information in fsspec's filesystems. The first are checksums, or change with the content.
CHECKSUM_KEYS = ("ETag", "etag", "md5Hash", "content_md5", "Content-MD5", "Digest", "sha")
TIME_KEYS = (
    "mtime", "LastModified", "last_modified", "Last-Modified", "modified", "modify", "last_write_time", "created",
)  # fmt: skip
RETRYABLE_STATUSES = (http.HTTPStatus.REQUEST_TIMEOUT, http.HTTPStatus.TOO_MANY_REQUESTS)
"""Retryable 4xx statuses."""
_MISSING_STATUSES = (http.HTTPStatus.NOT_FOUND, http.HTTPStatus.GONE)


@contextlib.contextmanager
def local_audio(uri: str, store_timeout_s: float = 0.0) -> Iterator[Path]:
    """Yield a local path of the file at `uri`: the file itself if it is local, else a temporary copy.

    A store that does not answer is waited for `store_timeout_s`.

    Raises:
        AudioUnreachableError: the file cannot be read.
        AudioEmptyError: the file is empty.
        StoreError: the folder for temporary files is full.
    """
    with contextlib.ExitStack() as stack:
        with unreachable_errors(uri):
            filesystem, path = _open_store(uri)
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


def audio_etag(uri: str) -> str | None:
    """Return a text that changes when the file at `uri` does: the store's ETag or checksum, else size and time.

    Return None if the store tells nothing that changes with the file's content. Raises `AudioUnreachableError`.
    """
    with unreachable_errors(uri):
        filesystem, path = _open_store(uri)
        info = filesystem.info(path)
        for key in CHECKSUM_KEYS:
            if info.get(key):
                return str(info[key]).strip('"')
        modified = next((info[key] for key in TIME_KEYS if info.get(key)), None)
    size = info.get("size")
    # Two files may have the same size, so that the size alone tells nothing.
    return None if modified is None else f"{'' if size is None else size}-{modified}"


def with_etags(track_ids: list[str], track_uris: list[str]) -> Iterator[tuple[str, str, str | None]]:
    """Yield (track_id, uri, etag) of each track; the etag is None if the store does not answer, or tells nothing.

    Such a track is processed nevertheless; if it fails, that failure is recorded with its reason.
    """

    def etag(uri: str) -> str | None:
        try:
            return audio_etag(uri)
        except AudioUnreachableError:
            return None

    with concurrent.futures.ThreadPoolExecutor(ETAG_THREADS) as pool:
        yield from zip(track_ids, track_uris, pool.map(etag, track_uris), strict=True)


def _open_store(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the filesystem of a uri, and the path in it."""
    options = {"get_client": _http_client} if uri.lower().startswith(("http://", "https://")) else {}
    filesystem, path = fsspec.core.url_to_fs(urls.local_path(uri) or uri, **options)
    return filesystem, path


async def _http_client(**options: Any) -> "aiohttp.ClientSession":
    import aiohttp

    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(socket_factory=_checked_socket), **options)


def _checked_socket(address: tuple[Any, ...]) -> socket.socket:
    """Return a socket for an address of `socket.getaddrinfo`; raise `ValueError` for a metadata service.

    `urls.rejection_reason` checks the host name in the catalog; the address that a name or a redirect leads to is known
    only here.
    """
    family, kind, protocol, _, (host, *_) = address
    if urls.is_metadata(host):
        raise ValueError(f"it leads to {host}, where a cloud keeps its machines' credentials")
    return socket.socket(family, kind, protocol)


@contextlib.contextmanager
def unreachable_errors(uri: str) -> Iterator[None]:
    """Raise `AudioUnreachableError` for an error of a store in the body; `MemoryError` and our errors stay."""
    try:
        yield
    except (MusictagError, MemoryError):
        raise
    except Exception as error:  # fsspec's filesystems raise errors of many libraries
        reason = str(_cause(error)) or type(error).__name__
        raise AudioUnreachableError(f"{uri}: cannot be read: {reason}") from error


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
