"""Etags of many files: few requests, the etags of single requests, and no listing that fails in silence."""

import bisect
import http.server
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import fsspec
import obstore.exceptions
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musictag.errors import AudioUnreachableError, StoreError
from musictag.storage import etags, stores
from object_stores import free_port, set_environment
from websites import serving


class Bucket:
    """A store of keys, of which a page of a listing shows as many as it is asked for."""

    def __init__(self, keys: Sequence[str], errors: Sequence[Exception] = (), last_shown: str | None = None) -> None:
        self.keys, self.errors, self.last_shown = sorted(keys), list(errors), last_shown
        self.pages: list[str] = []
        self.singles: list[str] = []

    def list(self, prefix: str | None, *, offset: str, chunk_size: int, return_arrow: bool) -> Iterator[object]:
        assert return_arrow
        assert not etags.is_odd_key(offset)  # obstore would refuse it
        self.pages.append(offset)
        if self.errors:
            raise self.errors.pop(0)
        begin = bisect.bisect_right(self.keys, offset)
        shown = [key for key in self.keys[begin : begin + chunk_size] if key.startswith(f"{prefix}/" if prefix else "")]
        if self.last_shown is not None:  # the store ends its listing early
            shown = [key for key in shown if key <= self.last_shown]
        if shown:
            yield pa.record_batch([shown, [f'"{key}"' for key in shown]], ["path", "e_tag"])

    def single(self, uri: str) -> str:
        key = uri.removeprefix("s3://bucket/")
        self.singles.append(key)
        if key not in self.keys:
            raise AudioUnreachableError(uri)
        return key


def ask(bucket: Bucket, keys: Sequence[str], page: int = etags.PAGE_KEYS) -> list[str | None]:
    """Return the etags of keys of the bucket."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stores, "object_store", lambda url: bucket)
        patch.setattr(etags, "single_etag", bucket.single)
        patch.setattr(etags, "PAGE_KEYS", page)
        uris = pa.chunked_array([[f"s3://bucket/{key}" for key in keys]], pa.string())
        return etags.etags_of(uris)["etag"].to_pylist()


KEYS = [f"songs/{number:05}.mp3" for number in range(20_000)]


def test_all_keys_of_a_bucket_need_its_pages_alone() -> None:
    bucket = Bucket(KEYS)
    assert ask(bucket, KEYS[::-1]) == KEYS[::-1]
    n_ranges = -(-len(KEYS) // etags.RANGE_KEYS)
    assert len(bucket.pages) <= len(KEYS) / 1_000 + n_ranges
    assert bucket.singles == []


def test_few_keys_of_a_large_bucket_do_not_list_it() -> None:
    bucket = Bucket([f"{number:07}.mp3" for number in range(500_000)])
    wanted = bucket.keys[::2_500]
    assert ask(bucket, wanted) == wanted
    assert len(bucket.pages) + len(bucket.singles) <= len(wanted) + 1
    assert len(bucket.pages) <= 1 + len(wanted) / etags.SINGLE_KEYS


def test_a_folder_of_a_large_bucket_is_listed_alone() -> None:
    others = [f"{folder}/{number:05}.mp3" for folder in ("a", "z") for number in range(50_000)]
    bucket = Bucket([*others, *KEYS])
    assert ask(bucket, KEYS[:3_000]) == KEYS[:3_000]
    assert (len(bucket.pages), bucket.singles) == (3, [])


def test_a_key_that_the_listing_does_not_show_gets_a_single_request() -> None:
    bucket = Bucket(KEYS, last_shown=KEYS[2_499])
    missing = [f"{key}.gone" for key in KEYS[100:105]]
    wanted = [*KEYS[:4_000], *missing]
    assert ask(bucket, wanted) == [*KEYS[:4_000], *[None] * 5]
    assert sorted(bucket.singles) == sorted([*KEYS[2_500:4_000], *missing])


def test_few_tracks_are_not_listed() -> None:
    bucket = Bucket(KEYS)
    assert ask(bucket, KEYS[:3]) == KEYS[:3]
    assert (bucket.pages, sorted(bucket.singles)) == ([], KEYS[:3])


def test_keys_that_a_listing_cannot_name_get_single_requests() -> None:
    odd = ["a//b.mp3", "a/../b.mp3", "./a.mp3", "a\tb.mp3", "a/", "/a.mp3", "a.mp3?versionId=1", "a::b", ""]
    bucket = Bucket([*KEYS[:100], *odd])
    wanted = [*odd, *KEYS[:100]]
    assert ask(bucket, wanted) == wanted
    assert (len(bucket.pages), sorted(bucket.singles)) == (1, sorted(odd))


def test_a_page_with_a_key_that_cannot_be_named_is_passed_over() -> None:
    error = obstore.exceptions.GenericError('Encountered object with invalid path: Path "a//b" contained empty path')
    bucket = Bucket(KEYS, errors=[error])
    assert ask(bucket, KEYS[:3_000]) == KEYS[:3_000]
    assert sorted(bucket.singles) == KEYS[: etags.SINGLE_KEYS]


REFUSALS = [
    obstore.exceptions.GenericError(
        "Error performing GET http://s: Server returned non-2xx status code: 403 Forbidden"
    ),
    obstore.exceptions.GenericError(
        "Error performing GET http://s: Server returned non-2xx status code: 404 Not Found"
    ),
    obstore.exceptions.PermissionDeniedError("denied"),
    FileNotFoundError("no bucket"),
    obstore.exceptions.GenericError("Received redirect without LOCATION: an incorrectly configured region"),
]


@pytest.mark.parametrize("refusal", REFUSALS)
def test_credentials_that_may_not_list_ask_for_each_file(refusal: Exception) -> None:
    bucket = Bucket(KEYS[:50], errors=[refusal])
    assert ask(bucket, KEYS[:50]) == KEYS[:50]
    assert (len(bucket.pages), sorted(bucket.singles)) == (1, KEYS[:50])


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_listing_that_fails_is_an_error(status: int) -> None:
    text = f"Error performing GET http://s/?X-Amz-Signature=0f0f - Server returned non-2xx status code: {status} Busy"
    error = obstore.exceptions.GenericError(text)
    bucket = Bucket(KEYS, errors=[error])
    with pytest.raises(
        StoreError, match=r"^s3://bucket/: its files cannot be listed; run the job again: .*status code"
    ) as raised:
        ask(bucket, KEYS[:50])
    assert "0f0f" not in str(raised.value)


def test_places_that_have_no_client_have_no_etags(monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, {})
    uris = [f"az://container/{key}" for key in KEYS[:20]]
    assert etags.etags_of(pa.chunked_array([uris]))["etag"].null_count == 20


def test_a_store_that_cannot_be_reached_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    place = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}", "AWS_ACCESS_KEY_ID": "k"}
    set_environment(monkeypatch, {**place, "AWS_SECRET_ACCESS_KEY": "s"})
    monkeypatch.setattr(stores, "MAX_RETRIES", 1)
    uris = pa.chunked_array([[f"s3://bucket/{key}" for key in KEYS[:50]]])
    with pytest.raises(StoreError, match="s3://bucket/: its files cannot be listed"):
        etags.etags_of(uris)


PART = st.text(st.sampled_from("ab0 /~.\u00fc\ue000\U0001f3b5"), min_size=1, max_size=4)
BUCKETS = st.lists(PART, max_size=60, unique=True)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(BUCKETS, BUCKETS, st.integers(1, 9))
def test_etags_are_those_of_single_requests(keys: list[str], others: list[str], page: int) -> None:
    keys = [key for key in keys if not etags.is_odd_key(key)]  # a store may hold others: they are tested above
    bucket = Bucket(keys)
    wanted = [*others, *keys[::2]]
    assert ask(bucket, wanted, page) == [key if key in keys else None for key in wanted]
    assert len(bucket.pages) <= len(wanted)


def test_an_order_of_the_stores_own_costs_requests_and_no_etag() -> None:
    bucket = Bucket(KEYS[:5_000])
    bucket.keys.sort(key=lambda key: key[::-1])
    bucket.list = (
        lambda prefix, offset, **_: iter(  # type: ignore[method-assign]
            [pa.record_batch([bucket.keys[:1_000], bucket.keys[:1_000]], ["path", "e_tag"])]
        )
    )
    assert ask(bucket, KEYS[:5_000]) == KEYS[:5_000]


def test_no_tracks_have_no_etags() -> None:
    found = etags.etags_of(pa.chunked_array([], pa.string()))
    assert (found["etag"].type, found["is_missing"].type, len(found)) == (pa.string(), pa.bool_(), 0)


class Page(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_response(200 if self.path.startswith("/song") else 404)
        self.send_header("Content-Length", "10")
        self.send_header("ETag", f'"{self.path}"')
        self.end_headers()

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *message: object) -> None:
        """Print nothing."""


def test_places_of_all_kinds_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "a b.mp3").write_bytes(b"abc")
    fsspec.filesystem("memory").pipe("/kinds/a.mp3", b"x")
    with serving(Page) as url:
        uris = [
            f"{url}/song-2.mp3", f"{tmp_path}/a b.mp3", "gopher://x/y", f"{url}/none", "memory://kinds/a.mp3",
            f"file://{tmp_path}/a%20b.mp3", f"{url}/song-1.mp3", f"{tmp_path}/none.mp3", "a\0b", f"{tmp_path}/x::y",
            f"{url}/song-2.mp3", f"file://localhost{tmp_path}/a%20b.mp3", f"file:{tmp_path}/a%20b.mp3",
        ]  # fmt: skip
        answers = etags.etags_of(pa.chunked_array([uris[:3], uris[3:]]))
    found = answers["etag"].to_pylist()
    local = etags.audio_etag(f"{tmp_path}/a b.mp3")
    assert found[:4] == ["/song-2.mp3", local, None, None]
    assert found[4] == etags.audio_etag("memory://kinds/a.mp3")
    assert found[5:] == [local, "/song-1.mp3", None, None, None, "/song-2.mp3", local, local]
    missing = [f"{url}/none", f"{tmp_path}/none.mp3", f"{tmp_path}/x::y"]
    assert answers["is_missing"].to_pylist() == [uri in missing for uri in uris]


def test_local_etag_is_that_of_fsspec(tmp_path: Path) -> None:
    (tmp_path / "a b.mp3").write_bytes(b"abc")
    (tmp_path / "link.mp3").symlink_to("a b.mp3")
    (tmp_path / "folder").mkdir()
    (tmp_path / "old.mp3").write_bytes(b"x")
    os.utime(tmp_path / "old.mp3", (0, 0))
    (tmp_path / "gone.mp3").symlink_to("none")
    local = fsspec.filesystem("file")
    for name, time in (("a b.mp3", "mtime"), ("link.mp3", "mtime"), ("folder/", "mtime"), ("old.mp3", "created")):
        info = local.info(f"{tmp_path}/{name}")
        assert etags.audio_etag(f"{tmp_path}/{name}") == f"{info['size']}-{info[time]}"
    for name in ("gone.mp3", "a b.mp3/x", "none"):
        with pytest.raises(AudioUnreachableError, match=name):
            etags.audio_etag(f"{tmp_path}/{name}")


def test_tracks_are_yielded_with_the_etags_of_the_catalog_or_of_the_store(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    uris = [f"{tmp_path}/missing", f"{tmp_path}/a", f"{tmp_path}/of the catalog"]
    tracks = pa.table({"track_id": ["M", "A", "C"], "uri": uris, "etag": pa.array([None, None, "e"], pa.string())})
    (batch,) = etags.with_etags(tracks)
    assert batch.to_pydict() == {
        "track_id": ["M", "A", "C"],
        "uri": uris,
        "audio_etag": [None, etags.audio_etag(uris[1]), "e"],
        "is_missing": [True, False, False],
    }


def test_a_catalog_that_tells_all_etags_asks_no_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etags, "etags_of", lambda uris: pytest.fail("asked"))
    (batch,) = etags.with_etags(pa.table({"track_id": ["A"], "uri": ["s3://b/a.mp3"], "etag": ["e"]}))
    assert batch["audio_etag"].to_pylist() == ["e"]
