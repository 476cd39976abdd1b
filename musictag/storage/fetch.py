"""Audio files at any fsspec URL: their etags, and local copies of their bytes.

When a file is copied, transient errors (network, busy store) are retried a few times with growing pauses; permanent
ones (no such file, no permission, unknown scheme) are not.
"""

import concurrent.futures
import contextlib
import errno
import http
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec

from musictag.errors import AudioEmptyError, AudioError, AudioUnreachableError
from musictag.storage import urls
from musictag.storage.retry import retry

if TYPE_CHECKING:  # its import is slow, and local files do not need it
    import aiohttp

# Etags requested in parallel: a request waits for the store, not for a core.
ETAG_THREADS = 32
PERMANENT_ERRORS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ValueError, ImportError)
"""Errors of fsspec's backends that are not retried."""
# Keys of a file's information in fsspec's filesystems. The first are checksums, or change with the content.
CHECKSUM_KEYS = ("ETag", "etag", "md5Hash", "content_md5", "Content-MD5", "Digest", "sha")
TIME_KEYS = (
    "mtime", "LastModified", "last_modified", "Last-Modified", "modified", "modify", "last_write_time", "created",
)  # fmt: skip
RETRYABLE_STATUSES = (http.HTTPStatus.REQUEST_TIMEOUT, http.HTTPStatus.TOO_MANY_REQUESTS)
"""Retryable 4xx statuses."""
_MISSING_STATUSES = (http.HTTPStatus.NOT_FOUND, http.HTTPStatus.GONE)


@contextlib.contextmanager
def local_audio(uri: str) -> Iterator[Path]:
    """Yield a local path of the file at `uri`: the file itself if it is local, else a temporary copy.

    Raises `AudioUnreachableError` if it cannot be read, `AudioEmptyError` if it is empty.
    """
    with contextlib.ExitStack() as stack:
        with _unreachable_errors(uri):
            filesystem, path = _open_store(uri)
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


def audio_etag(uri: str) -> str | None:
    """Return a text that changes when the file at `uri` does: the store's ETag or checksum, else size and time.

    Return None if the store tells nothing that changes with the file's content. Raises `AudioUnreachableError`.
    """
    with _unreachable_errors(uri):
        filesystem, path = _open_store(uri)
        return etag_of(filesystem.info(path))


def etag_of(info: Mapping[str, Any]) -> str | None:
    """Return the etag in a file's information, as fsspec's filesystems give it; see `audio_etag`."""
    if checksum := checksum_of(info):
        return checksum
    modified = next((info[key] for key in TIME_KEYS if info.get(key)), None)
    size = info.get("size")
    # Two files may have the same size, so that the size alone tells nothing.
    return None if modified is None else f"{'' if size is None else size}-{modified}"


def checksum_of(info: Mapping[str, Any]) -> str | None:
    """Return the store's ETag or checksum in a file's information, which is the same in listings and single answers."""
    return next((str(info[key]).strip('"') for key in CHECKSUM_KEYS if info.get(key)), None)


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
def _unreachable_errors(uri: str) -> Iterator[None]:
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
