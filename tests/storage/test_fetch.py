import http.server
import os
import re
import resource
import socket
import types
from collections.abc import Iterator

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from musictag.errors import AudioMissingError, AudioUnreachableError, StoreError
from musictag.storage import checksums, etags, retry
from musictag.storage import fetch as storage_fetch
from websites import serving


def fetch(uri):
    with storage_fetch.local_audio(uri) as path:
        return path.read_bytes()


def test_remote_audio_is_copied_while_it_is_read(tmp_path, music, write_audio):
    path = write_audio(tmp_path / "a.flac", music(1.0), 44_100)
    fsspec.filesystem("memory").pipe("/shelf/a.flac", path.read_bytes())
    with storage_fetch.local_audio("memory://shelf/a.flac") as copy:
        assert checksums.file_sha256(copy) == checksums.file_sha256(path)
    assert not copy.exists()


def test_pipe_or_device_is_refused_without_opening_it(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp3")
    (tmp_path / "device.mp3").symlink_to("/dev/zero")
    for name in ("pipe.mp3", "device.mp3"):
        with pytest.raises(AudioUnreachableError, match=f"{name}: cannot be read: .*not a file"):
            fetch(str(tmp_path / name))


def test_circular_link_is_unreachable(tmp_path):
    (tmp_path / "a.mp3").symlink_to(tmp_path / "b.mp3")
    (tmp_path / "b.mp3").symlink_to(tmp_path / "a.mp3")
    with pytest.raises(AudioUnreachableError, match="symbolic links"):
        fetch(str(tmp_path / "a.mp3"))


def test_only_a_file_that_does_not_exist_is_missing(tmp_path, moody, monkeypatch):
    (tmp_path / "a.mp3").touch()
    for name in ("none.mp3", "a.mp3/none.mp3"):
        with pytest.raises(AudioMissingError, match=name):
            fetch(str(tmp_path / name))
    for other in (PermissionError("denied"), ValueError("unknown scheme")):
        monkeypatch.setattr(Moody, "failures", iter([other]))
        with pytest.raises(AudioUnreachableError) as error:
            fetch("moody://song.wav")
        assert not isinstance(error.value, AudioMissingError)


class Statuses(http.server.BaseHTTPRequestHandler):
    """Answers with the status that the path names."""

    def do_GET(self):
        self.send_error(int(self.path[1:4]))

    def do_HEAD(self):
        self.do_GET()

    def log_message(self, *message):
        """Print nothing."""


@pytest.mark.slow
@pytest.mark.parametrize(("status", "is_missing"), [(404, True), (410, True), (401, False), (403, False), (503, False)])
def test_only_statuses_404_and_410_mean_that_a_file_is_missing(moody, status, is_missing):
    with serving(Statuses) as url, pytest.raises(AudioUnreachableError) as error:
        fetch(f"{url}/{status}.mp3")
    assert isinstance(error.value, AudioMissingError) == is_missing


class Moody(MemoryFileSystem):
    """A store that fails as often as it was told to before it gives a file."""

    protocol = "moody"
    cachable = False
    failures: Iterator = iter(())
    asked = 0

    def open(self, path, mode="rb", **kwargs):
        Moody.asked += 1
        if (error := next(Moody.failures, None)) is not None:
            raise error
        return fsspec.filesystem("memory").open("/moody.wav", mode)


@pytest.fixture
def moody(monkeypatch):
    fsspec.register_implementation("moody", Moody, clobber=True)
    fsspec.filesystem("memory").pipe("/moody.wav", b"some bytes")
    monkeypatch.setattr(Moody, "asked", 0)
    pauses = []
    monkeypatch.setattr(retry, "time", types.SimpleNamespace(sleep=pauses.append))
    return pauses


PASSING = [OSError("SlowDown"), TimeoutError("stalled"), RuntimeError("503"), ConnectionResetError("gone")]


@pytest.mark.parametrize("n_failures", [0, 1, 3])
def test_transient_error_is_retried_with_growing_pauses(moody, monkeypatch, n_failures):
    monkeypatch.setattr(Moody, "failures", iter(PASSING[:n_failures]))
    assert fetch("moody://song.wav") == b"some bytes"
    assert Moody.asked == n_failures + 1
    assert len(moody) == n_failures
    assert all(0.25 * 2**n <= pause <= 0.5 * 2**n for n, pause in enumerate(moody))


def test_last_transient_error_is_raised(moody, monkeypatch):
    monkeypatch.setattr(Moody, "failures", iter(PASSING))
    with pytest.raises(AudioUnreachableError, match=r"moody://song\.wav: cannot be read: gone"):
        fetch("moody://song.wav")
    assert Moody.asked == retry.TRIES


@pytest.mark.parametrize("error", [FileNotFoundError("no such file"), PermissionError("denied"), ValueError("what?")])
def test_permanent_error_is_not_retried(moody, monkeypatch, error):
    monkeypatch.setattr(Moody, "failures", iter([error]))
    with pytest.raises(AudioUnreachableError, match=re.escape(str(error))):
        fetch("moody://song.wav")
    assert (Moody.asked, moody) == (1, [])


class Redirecting(http.server.BaseHTTPRequestHandler):
    """Has `/song.wav`, which is busy as often as it was told to be, and leads elsewhere from any other path."""

    busy = 0
    elsewhere = ""

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        if self.path != "/song.wav":
            self.send_response(302)
            self.send_header("Location", Redirecting.elsewhere)
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif Redirecting.busy:
            Redirecting.busy -= 1
            self.send_error(503)
        else:
            self.send_response(200)
            self.send_header("Content-Length", "10")
            self.end_headers()
            self.wfile.write(b"some bytes" if self.command == "GET" else b"")

    def log_message(self, *args):
        pass


@pytest.fixture
def website(monkeypatch):
    """Its url."""
    with serving(Redirecting) as url:
        monkeypatch.setattr(Redirecting, "elsewhere", f"{url}/song.wav")
        monkeypatch.setattr(Redirecting, "busy", 0)
        yield url


def test_redirect_is_followed(website):
    assert fetch(f"{website}/moved.wav") == b"some bytes"


@pytest.mark.parametrize("host", ["169.254.169.254", "[fe80::1]", "[::ffff:a9fe:a9fe]", "[fd00:ec2::254]"])
def test_redirect_to_a_metadata_service_is_refused(website, monkeypatch, host):
    monkeypatch.setattr(Redirecting, "elsewhere", f"http://{host}/latest/meta-data/")
    for ask in (fetch, etags.audio_etag):
        with pytest.raises(
            AudioUnreachableError, match=f"moved.wav: cannot be read: it leads to {re.escape(host.strip('[]'))}"
        ):
            ask(f"{website}/moved.wav")


def test_name_of_a_metadata_service_is_refused(monkeypatch):
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", 80))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: found)
    with pytest.raises(AudioUnreachableError, match=r"it leads to 169\.254\.169\.254"):
        fetch("http://songs.example/a.mp3")


def test_busy_website_is_retried(website, monkeypatch):
    monkeypatch.setattr(retry, "time", types.SimpleNamespace(sleep=lambda seconds: None))
    monkeypatch.setattr(Redirecting, "busy", 3)
    assert fetch(f"{website}/song.wav") == b"some bytes"


def test_missing_page_is_not_retried(website, monkeypatch):
    monkeypatch.setattr(Redirecting, "do_HEAD", lambda handler: handler.send_error(404))
    monkeypatch.setattr(Redirecting, "do_GET", lambda handler: handler.send_error(404))
    # Of this module alone: other threads sleep too.
    monkeypatch.setattr(retry, "time", types.SimpleNamespace(sleep=lambda seconds: pytest.fail("asked again")))
    with pytest.raises(AudioUnreachableError, match="song"):
        fetch(f"{website}/song.wav")


def test_full_folder_for_temporary_files_is_no_failure_of_the_track():
    fsspec.filesystem("memory").pipe("/shelf/a.flac", bytes(100_000))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))
    try:
        with pytest.raises(StoreError, match="File too large; set TMPDIR to another folder"):
            fetch("memory://shelf/a.flac")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_memory_error_is_not_an_error_of_the_track(moody, monkeypatch):
    monkeypatch.setattr(Moody, "failures", iter([MemoryError()]))
    with pytest.raises(MemoryError):
        fetch("moody://song.wav")
    assert moody == []


class Proxy(http.server.BaseHTTPRequestHandler):
    """An HTTP proxy: it answers for one host, which only it knows, and redirects from its page `moved.wav`."""

    asked: list[str]

    def do_GET(self):
        Proxy.asked.append(self.path)
        if self.path.endswith("moved.wav"):
            self.send_response(302)
            self.send_header("Location", "http://169.254.169.254/latest/meta-data/")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.send_response(200)
            self.send_header("Content-Length", "10")
            self.end_headers()
            self.wfile.write(b"some bytes" if self.command == "GET" else b"")

    do_HEAD = do_GET  # noqa: N815 # the name of http.server

    def log_message(self, *args):
        pass


@pytest.fixture
def proxy(monkeypatch):
    """The uris that a proxy was asked for."""
    monkeypatch.setattr(Proxy, "asked", [], raising=False)
    with serving(Proxy) as url:
        monkeypatch.setenv("http_proxy", url)
        yield Proxy.asked


def test_websites_are_asked_through_the_proxy_of_the_environment(proxy):
    assert fetch("http://songs.example/a.wav") == b"some bytes"
    assert set(proxy) == {"http://songs.example/a.wav"}


def test_no_proxy_is_obeyed(proxy, website, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert fetch(f"{website}/song.wav") == b"some bytes"
    assert proxy == []


def test_redirect_to_a_metadata_service_is_refused_behind_a_proxy(proxy):
    with pytest.raises(AudioUnreachableError, match=r"moved.wav: cannot be read: it leads to 169\.254\.169\.254"):
        fetch("http://songs.example/moved.wav")
    assert set(proxy) == {"http://songs.example/moved.wav"}
