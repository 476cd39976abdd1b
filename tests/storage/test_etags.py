"""An etag changes whenever a store tells that a file changed; there is none if the store tells nothing."""

import http.server
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from musictag.errors import AudioUnreachableError
from musictag.storage import etags, fetch, outages, retry
from websites import serving

Headers = dict[str, str]


class Shop(http.server.BaseHTTPRequestHandler):
    """A website whose one file, of any path, has the headers and the content that a test sets."""

    headers_sent: Headers
    content: bytes

    def send_file(self) -> None:
        self.send_response(200)
        for name, value in self.headers_sent.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(self.content)

    do_GET = do_HEAD = send_file  # noqa: N815 # the names of http.server

    def log_message(self, *message: object) -> None:
        """Print nothing."""


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Callable[..., None]]]:
    """The url of a file, and a function that sets its headers."""
    with serving(Shop) as url:

        def fill(headers: Headers, content: bytes = b"some bytes") -> None:
            monkeypatch.setattr(Shop, "headers_sent", headers, raising=False)
            monkeypatch.setattr(Shop, "content", content, raising=False)

        yield f"{url}/a.mp3", fill


SIZE = {"Content-Length": "10"}
MONDAY, TUESDAY = ({"Last-Modified": f"{day}, 0{n} Jun 2026 10:00:00 GMT"} for n, day in ((1, "Mon"), (2, "Tue")))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({**SIZE, "ETag": '"1"'}, {**SIZE, "ETag": '"2"'}),
        ({**SIZE, "Content-MD5": "a"}, {**SIZE, "Content-MD5": "b"}),
        ({**SIZE, **MONDAY}, {**SIZE, **TUESDAY}),
        (MONDAY, TUESDAY),
        ({**SIZE, **MONDAY}, {"Content-Length": "11", **MONDAY}),
    ],
)
def test_etag_changes_with_what_the_server_tells(
    shop: tuple[str, Callable[..., None]], before: Headers, after: Headers
) -> None:
    uri, fill = shop
    fill(before)
    etag = etags.audio_etag(uri)
    assert etag == etags.audio_etag(uri)
    fill(after)
    assert None not in (etag, etags.audio_etag(uri))
    assert etags.audio_etag(uri) != etag


def test_store_that_another_request_gave_up_is_an_error_of_this_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    outage = retry.Outage(0.0, time.monotonic(), ConnectionError("no route to the store"), n_given_up=2)
    monkeypatch.setattr(outages, "_outages", {"s3://": outage})
    with pytest.raises(AudioUnreachableError, match=r"s3://bucket/a\.mp3: cannot be read: no route to the store"):
        etags.audio_etag("s3://bucket/a.mp3", store_timeout_s=5.0)


@pytest.mark.parametrize("headers", [{}, SIZE])
def test_there_is_no_etag_if_the_server_tells_nothing_that_would_change(
    shop: tuple[str, Callable[..., None]], headers: Headers
) -> None:
    uri, fill = shop
    fill(headers)
    assert etags.audio_etag(uri) is None


def test_stores_that_tell_a_time_by_another_name_have_an_etag(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/etags/a.mp3", b"one")
    before = etags.audio_etag("memory://etags/a.mp3")
    memory.pipe("/etags/a.mp3", b"two")
    assert None not in (before, etags.audio_etag("memory://etags/a.mp3"))
    assert etags.audio_etag("memory://etags/a.mp3") != before


def test_local_etag_changes_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    path.write_text("one")
    before = etags.audio_etag(str(path))
    assert etags.audio_etag(str(path)) == before
    path.write_text("one more")
    assert etags.audio_etag(str(path)) != before


PRESIGNED = "?X-Amz-Credential=AKIASECRET%2F20260601&X-Amz-Security-Token={}&X-Amz-Signature=" + "0f" * 32


@pytest.mark.parametrize(
    ("path", "name"),
    [("/etags/No.1#2.mp3", "audio.mp3"), ("/etags/What.Is.This?.flac", "audio.flac"), ("/etags/a.b/c", "audio")],
)
def test_temporary_name_has_the_suffix_alone(path: str, name: str) -> None:
    fsspec.filesystem("memory").pipe(path, b"x")
    with fetch.local_audio(f"memory:/{path}") as local:
        assert local.name == name


@pytest.mark.parametrize("name", ["a.mp3", "a.mp3/", "a", "What%3F.flac"])
def test_presigned_url_of_any_length_is_fetched(shop: tuple[str, Callable[..., Any]], name: str) -> None:
    uri, fill = shop
    fill(SIZE)
    with fetch.local_audio(uri.removesuffix("a.mp3") + name + PRESIGNED.format("t" * 1_500)) as path:
        assert path.read_bytes() == b"some bytes"
        assert "SECRET" not in str(path)
        assert path.name in ("audio", "audio.mp3", "audio.flac")
