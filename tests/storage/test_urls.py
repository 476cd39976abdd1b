from pathlib import Path

import pytest

from musictag.storage import urls


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://key:secret@bucket/song.mp3", "s3://***@bucket/song.mp3"),
        ("ftp://user@host/a b.mp3", "ftp://***@host/a b.mp3"),
        ("https://host/a.mp3?id=5&X-Amz-Date=1&X-Amz-Signature=abc", "https://host/a.mp3?id=5&X-Amz-Date=***&X-Amz-Signature=***"),
        ("https://host/a.mp3?sig=a%2Fb&sv=2020", "https://host/a.mp3?sig=***&sv=2020"),
        ("https://host/a.mp3?access_token=abc#t=1", "https://host/a.mp3?access_token=***#t=1"),
        ("table s3://k:s@b/t: refused; see https://u:p@h/", "table s3://***@b/t: refused; see https://***@h/"),
        ("s3://bucket/me@home.mp3", "s3://bucket/me@home.mp3"),
        ("/music/what?key=C minor.mp3", "/music/what?key=C minor.mp3"),
    ],
)  # fmt: skip
def test_secrets_are_written_as_stars_and_nothing_else_is(text: str, expected: str) -> None:
    assert urls.redacted(text) == expected
    assert urls.redacted(expected) == expected


@pytest.mark.parametrize("uri", ["/music/a.mp3", "s3://bucket/a.mp3", "https://example.org/a.mp3", "https://8.8.8.8/a"])
def test_any_store_may_be_named(uri: str) -> None:
    assert urls.rejection_reason(uri) is None


@pytest.mark.parametrize(
    "uri", ["simplecache::s3://bucket/a.mp3", "zip://a.mp3::https://host/b.zip", "/music/a::b.mp3"]
)
def test_chains_may_not(uri: str) -> None:
    assert "chains stores" in (urls.rejection_reason(uri) or "")


@pytest.mark.parametrize(
    "host",
    ["169.254.169.254", "169.254.170.2", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.16689662",
     "[fd00:ec2::254]", "[fe80::1]", "[::ffff:169.254.169.254]", "metadata.google.internal",
     "Metadata.Google.Internal.", "100.100.100.200", "user:pass@169.254.169.254", "169.254.169.254:80"],
)  # fmt: skip
def test_what_gives_a_clouds_credentials_may_not(host: str) -> None:
    fault = urls.rejection_reason(f"http://{host}/latest/meta-data/iam") or ""
    assert "credentials" in fault
    assert "pass" not in fault


def test_what_is_no_url_may_not() -> None:
    assert "cannot be read as a url" in (urls.rejection_reason("http://[host/a.mp3") or "")


def test_only_what_is_allowed_may_where_something_is(tmp_path: Path) -> None:
    (tmp_path / "music/inner").mkdir(parents=True)
    (tmp_path / "music2").mkdir()
    allowed = [f"{tmp_path}/music/", "s3://bucket/music"]
    within = [f"{tmp_path}/music/a.mp3", f"{tmp_path}/music/inner/../a.mp3", "s3://bucket/music/a.mp3"]
    assert [urls.rejection_reason(uri, allowed) for uri in within] == [None] * 3
    outside = [
        f"{tmp_path}/music2/a.mp3",
        f"{tmp_path}/music/../music2/a.mp3",
        "/etc/passwd",
        "s3://bucket/music2/a.mp3",
        "s3://bucket/music/../private/a.mp3",
        "s3://bucket2/music/a.mp3",
        "https://bucket/music/a.mp3",
    ]
    for uri in outside:
        assert "is within none of --allow" in (urls.rejection_reason(uri, allowed) or ""), uri


def test_a_link_is_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "music").mkdir()
    (tmp_path / "secret.mp3").touch()
    (tmp_path / "music/a.mp3").symlink_to(tmp_path / "secret.mp3")
    assert "--allow" in (urls.rejection_reason(f"{tmp_path}/music/a.mp3", [f"{tmp_path}/music"]) or "")
