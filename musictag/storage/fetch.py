"""Audio files by any fsspec url: whether they changed, and their bytes on this machine.

What may pass (a network that fails, a store that is busy) is tried again a few times, each time after a longer pause;
what will not pass (no such file, no permission, no such scheme) is not.
"""

import concurrent.futures
import contextlib
import errno
import http
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec

from musictag.errors import AudioEmptyError, AudioError, AudioUnreachableError
from musictag.storage import urls
from musictag.storage.retry import retry

if TYPE_CHECKING:  # importing it takes time that a local file need not wait for
    import aiohttp

# Etags asked for at once: asking waits for the store, not for a core.
ETAG_THREADS = 32
LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ValueError, ImportError)
"""What fsspec's backends raise where another try would end alike; whatever else they raise may pass."""
BUSY = (http.HTTPStatus.REQUEST_TIMEOUT, http.HTTPStatus.TOO_MANY_REQUESTS)
"""Of a website's answers that find fault with the request, those that may pass."""


@contextlib.contextmanager
def local_audio(uri: str) -> Iterator[Path]:
    """The file behind `uri` as a local path: itself if it is local, else a temporary copy.

    Raises `AudioUnreachableError` if it cannot be read, `AudioEmptyError` if it has no byte.
    """
    with contextlib.ExitStack() as stack:
        with _reaching(uri):
            filesystem, path = _open_store(uri)
            if "file" in filesystem.protocol:
                local = Path(path)
            else:
                local = Path(stack.enter_context(tempfile.TemporaryDirectory())) / Path(path).name
                _copy(filesystem, path, local)
            has_bytes = check_file(local)
        if not has_bytes:
            raise AudioEmptyError(f"{uri}: the file is empty (0 bytes)")
        yield local


def check_file(path: Path) -> bool:
    """Whether a local file has any byte. Raises `OSError` where it is a folder, no file at all, or cannot be read."""
    if path.is_fifo() or path.is_socket() or path.is_char_device() or path.is_block_device():
        raise OSError(errno.EINVAL, "it is a pipe, a socket or a device, not a file")  # to open it may wait for ever
    with path.open("rb") as stream:
        return bool(stream.read(1))


def audio_etag(uri: str) -> str:
    """What changes when the file behind `uri` does: the store's ETag or checksum, else size and time of change.

    Raises `AudioUnreachableError`.
    """
    with _reaching(uri):
        filesystem, path = _open_store(uri)
        info = filesystem.info(path)
    for key in ("ETag", "etag", "md5Hash", "content_md5"):
        if info.get(key):
            return str(info[key]).strip('"')
    changed = info.get("mtime") or info.get("LastModified") or info.get("last_modified") or ""
    return f"{info.get('size')}-{changed}"


def with_etags(track_ids: list[str], track_uris: list[str]) -> Iterator[tuple[str, str, str | None]]:
    """(track_id, uri, etag) of each track; the etag is None where its store does not tell.

    Such a track's own turn finds the same again, and its reason goes into the failures table.
    """

    def etag(uri: str) -> str | None:
        try:
            return audio_etag(uri)
        except AudioUnreachableError:
            return None

    with concurrent.futures.ThreadPoolExecutor(ETAG_THREADS) as pool:
        yield from zip(track_ids, track_uris, pool.map(etag, track_uris), strict=True)


def _open_store(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The store of a uri, and the path in it."""
    options = {"get_client": _http_client} if uri.lower().startswith(("http://", "https://")) else {}
    filesystem, path = fsspec.core.url_to_fs(uri, **options)
    return filesystem, path


async def _http_client(**options: Any) -> "aiohttp.ClientSession":
    import aiohttp

    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(socket_factory=_checked_socket), **options)


def _checked_socket(address: tuple[Any, ...]) -> socket.socket:
    """A socket for an address as `socket.getaddrinfo` gives it.

    `uris.fault` sees the name that a catalog has; only here is it known where that name, or a redirect, leads.
    """
    family, kind, protocol, _, (host, *_) = address
    if urls.is_metadata(host):
        raise ValueError(f"it leads to {host}, where a cloud keeps its machines' credentials")
    return socket.socket(family, kind, protocol)


@contextlib.contextmanager
def _reaching(uri: str) -> Iterator[None]:
    try:
        yield
    except AudioError:
        raise
    except Exception as error:
        reason = str(_cause(error)) or type(error).__name__
        raise AudioUnreachableError(f"{uri}: cannot be read: {reason}") from error


def _cause(error: Exception) -> BaseException:
    """What went wrong: fsspec's HTTP store calls whatever does a missing file."""
    return error.__cause__ or error if isinstance(error, FileNotFoundError) else error


def _may_pass(error: Exception) -> bool:
    cause = _cause(error)
    status = getattr(cause, "status", None)  # what a website answered
    return not isinstance(cause, LASTING) and (status not in range(400, 500) or status in BUSY)


def _copy(filesystem: fsspec.AbstractFileSystem, path: str, local: Path) -> None:
    """Copy a file of a store to this machine, trying again where that may help."""

    def copy() -> None:
        with filesystem.open(path, "rb") as source, local.open("wb") as target:
            shutil.copyfileobj(source, target)

    retry(copy, _may_pass)
