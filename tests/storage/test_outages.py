"""Stores that are gone are told from files that are missing or refused."""

import errno
import http.server
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.exceptions
import obstore.exceptions
import pytest
import s3fs.errors

from musictag.errors import AudioUnreachableError, StoreError
from musictag.storage import fetch, outages, retry
from websites import serving

WAIT_S = 600.0


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has asked no store yet."""
    monkeypatch.setattr(outages, "_answered", set())
    outages._outages.clear()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses take no time, but the clock says that they did."""
    slept: list[float] = []

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return sum(slept)

        sleep = staticmethod(slept.append)

    monkeypatch.setattr(retry, "time", Clock)
    return slept


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.parametrize(
    ("uri", "store"),
    [
        ("s3://bucket/a/b.mp3", "s3://"),
        ("S3://other/b.mp3", "s3://"),
        ("gs://bucket/a.mp3", "gs://"),
        ("abfs://music@account/a.mp3", "abfs://music@account"),
        ("https://Host.example:8443/a.mp3?token=b", "https://host.example:8443"),
        ("/a.mp3", "/"),
        ("file:///a.mp3", "/"),
    ],
)
def test_store_is_the_endpoint_the_host_or_the_mount(uri: str, store: str) -> None:
    assert outages.store_of(uri) == store


def raised(error: Exception, cause: Exception | None = None) -> Exception:
    error.__cause__ = cause
    return error


def of_library(name: str, *bases: type) -> Exception:
    return type(name, bases or (Exception,), {})("a message")  # type: ignore[no-any-return]


def of_s3fs(status: int) -> Exception:
    """Return the error that s3fs makes of an answer of S3."""
    response = {"Error": {"Code": str(status)}, "ResponseMetadata": {"HTTPStatusCode": status}}
    error = botocore.exceptions.ClientError(response, "HeadObject")  # type: ignore[arg-type]
    return s3fs.errors.translate_boto_error(error)  # type: ignore[no-any-return]


def with_status(status: int) -> Exception:
    """Return an error like those of aiohttp for an answer."""
    error = of_library("ClientResponseError")
    error.status = status  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize(
    ("error", "is_gone"),
    [
        (ConnectionRefusedError(), True),
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (socket.gaierror(), True),
        (OSError(errno.EHOSTUNREACH, "no route"), True),
        (of_library("EndpointConnectionError", type("ConnectionError", (Exception,), {})), True),
        (of_library("ReadTimeoutError", type("HTTPClientError", (Exception,), {})), True),
        (raised(FileNotFoundError("http://a/b"), of_library("ClientConnectionError")), True),
        (raised(AudioUnreachableError("a"), raised(FileNotFoundError(), ConnectionRefusedError())), True),
        (of_library("SSLError", type("ConnectionError", (Exception,), {})), False),
        (FileNotFoundError(), False),
        (PermissionError(), False),
        (OSError(errno.EIO, "input/output error"), False),
        (of_library("ClientResponseError"), False),
        (with_status(503), True),
        (with_status(504), True),
        (with_status(500), False),
        (with_status(404), False),
        *[(of_s3fs(status), True) for status in (502, 503, 504)],
        *[(of_s3fs(status), False) for status in (404, 409, 500)],
        (OSError(errno.EBUSY, "Device or resource busy"), False),
        (obstore.exceptions.GenericError("Server returned non-2xx status code: 503 Service Unavailable"), True),
        (obstore.exceptions.GenericError("Error after 5 retries: error sending request"), True),
        (obstore.exceptions.GenericError("Server returned non-2xx status code: 400 Bad Request"), False),
        (ValueError("unknown scheme"), False),
        (raised(StoreError("the folder for temporary files"), TimeoutError()), False),
    ],
)
def test_no_answer_means_that_a_store_is_gone(error: Exception, is_gone: bool) -> None:
    assert outages.is_gone(error) == is_gone


class Site(http.server.BaseHTTPRequestHandler):
    """Answers a request for any path with some bytes, and one for `/missing` with 404."""

    def do_GET(self) -> None:
        if self.path == "/missing":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", "10")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(b"some bytes")

    do_HEAD = do_GET  # noqa: N815 # the names of http.server

    def log_message(self, *message: Any) -> None:
        """Print nothing."""


def fetch_file(uri: str) -> bytes:
    with fetch.local_audio(uri, WAIT_S) as path:
        return path.read_bytes()


def test_website_that_has_never_answered_is_not_waited_for(pauses: list[float]) -> None:
    with pytest.raises(AudioUnreachableError, match="Cannot connect"):
        fetch_file(f"http://127.0.0.1:{closed_port()}/a.mp3")
    assert sum(pauses) < 5


@pytest.mark.parametrize("path", ["a.mp3", "missing"])
def test_website_that_has_answered_is_waited_for(pauses: list[float], path: str) -> None:
    with serving(Site) as url:
        if path == "missing":  # also an answer
            with pytest.raises(AudioUnreachableError):
                fetch_file(f"{url}/missing")
        else:
            assert fetch_file(f"{url}/a.mp3") == b"some bytes"
        assert pauses == []
    with pytest.raises(AudioUnreachableError, match="Cannot connect"):
        fetch_file(f"{url}/a.mp3")
    assert sum(pauses) == pytest.approx(WAIT_S)


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is a mount, as far as anybody can tell, while `mounted` is in it."""
    is_mount, folder = os.path.ismount, tmp_path / "mount"
    (folder / "mounted").mkdir(parents=True)
    (folder / "a.mp3").write_bytes(b"some bytes")
    monkeypatch.setattr(
        os.path, "ismount", lambda path: (folder / "mounted").exists() if path == str(folder) else is_mount(path)
    )
    return folder


def test_missing_file_of_a_mount_is_not_waited_for(mount: Path, pauses: list[float]) -> None:
    assert fetch_file(str(mount / "a.mp3")) == b"some bytes"
    with pytest.raises(AudioUnreachableError, match="No such file"):
        fetch_file(str(mount / "b.mp3"))
    assert pauses == []


def test_mount_that_is_gone_is_waited_for(mount: Path, pauses: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    assert fetch_file(str(mount / "a.mp3")) == b"some bytes"
    (mount / "mounted").rmdir()
    (mount / "a.mp3").unlink()
    with pytest.raises(AudioUnreachableError, match="No such file"):
        fetch_file(str(mount / "a.mp3"))
    assert sum(pauses) == pytest.approx(WAIT_S)

    def mount_again(seconds: float) -> None:
        (mount / "mounted").mkdir(exist_ok=True)
        (mount / "a.mp3").write_bytes(b"some bytes")

    outages._outages.clear()
    monkeypatch.setattr(retry.time, "sleep", mount_again)
    assert fetch_file(str(mount / "a.mp3")) == b"some bytes"


@pytest.mark.parametrize("code", [errno.ENOTCONN, errno.ESTALE])
def test_dead_mount_is_waited_for(
    tmp_path: Path, pauses: list[float], monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    stat = os.stat

    def stat_dead(path: Any, **options: Any) -> os.stat_result:
        if str(path).startswith(str(tmp_path)):
            raise OSError(code, os.strerror(code))
        return stat(path, **options)

    monkeypatch.setattr(os, "stat", stat_dead)
    with pytest.raises(AudioUnreachableError, match="cannot be read"):
        fetch_file(str(tmp_path / "a.mp3"))
    assert sum(pauses) == pytest.approx(WAIT_S)


@pytest.mark.parametrize(
    ("cause", "is_gone"),
    [
        (OSError("AWS Error NETWORK_CONNECTION during PutObject operation: curlCode: 7, Could not connect"), True),
        (
            OSError("Kernel error: error sending request: client error: Connection refused (os error 111)"),
            True,
        ),
        (OSError("Kernel error: error sending request: dns error: failed to lookup address information"), True),
        (OSError(errno.ESTALE, "Stale file handle"), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), False),
        (OSError("AWS Error ACCESS_DENIED during PutObject operation: Access denied"), False),
        (
            OSError("Generic S3 error: after 10 retries: Server returned non-2xx status code: 503 Service Unavailable"),
            True,
        ),
        (OSError("AWS Error UNKNOWN (HTTP status 503) during ListObjectsV2 operation: No response body."), True),
        (OSError("AWS Error SLOW_DOWN during PutObject operation: Please reduce your request rate."), True),
        (OSError("CommitBlockList failed. Azure Error: [ServerBusy] 503 The server is busy."), True),
        (OSError("AWS Error UNKNOWN (HTTP status 500) during ListObjectsV2 operation: No response body."), False),
        (OSError("wrote 503 bytes of part-502.parquet"), False),
        (ValueError("connection refused"), False),
        (None, False),
    ],
)
def test_store_of_tables_is_gone_if_its_clients_had_no_answer(cause: Exception | None, is_gone: bool) -> None:
    error = StoreError("table s3://b/t: why")
    error.__cause__ = cause
    assert outages.is_table_store_gone(error) == is_gone
