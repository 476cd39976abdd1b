import posixpath
import re
import string
import time
import urllib.parse
from pathlib import Path

import pyarrow as pa
import pytest
import yarl
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

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
        ("https://user:p@ss@host/a.mp3", "https://***@host/a.mp3"),
        ("https://host/a.mp3#access_token=abc", "https://host/a.mp3#access_token=***"),
        ("https://host/a.mp3?id=5;token=abc", "https://host/a.mp3?id=5;token=***"),
        ("https://host/a;token=abc/b;v=1/c.mp3", "https://host/a;token=***/b;v=1/c.mp3"),
        ("https://host/a;token=abc?id=5", "https://host/a;token=***?id=5"),
        ("s3://bucket/me@home.mp3", "s3://bucket/me@home.mp3"),
        ("s3://bucket/Tune#key=C.mp3", "s3://bucket/Tune#key=C.mp3"),
        ("s3://bucket/Song;keys=2.mp3?versionId=1", "s3://bucket/Song;keys=2.mp3?versionId=1"),
        ("s3://bucket/a.mp3?id=5&token=a/b", "s3://bucket/a.mp3?id=5&token=***"),
        ("/music/what?key=C minor.mp3", "/music/what?key=C minor.mp3"),
        ("https://host/a.mp3?id=5;token=a;b&n=1", "https://host/a.mp3?id=5;token=***&n=1"),
        ("https://cdn/a?Policy=eyJ&Signature=x~&Key-Pair-Id=K1", "https://cdn/a?Policy=***&Signature=***&Key-Pair-Id=***"),
        ("https://host/a?X%2DAmz%2DSignature=abc&%74oken=d", "https://host/a?X%2DAmz%2DSignature=***&%74oken=***"),
        ("https://app/a.mp3?code=abc&barcode=12", "https://app/a.mp3?code=***&barcode=12"),
        ("File name too long: '/tmp/x/a.mp3?X-Amz-Credential=AK/1&X-Amz-Signature=0f'",
         "File name too long: '/tmp/x/a.mp3?X-Amz-Credential=***&X-Amz-Signature=***"),
        ("https://host/a.php;jsessionid=0F?id=1;sid=2", "https://host/a.php;jsessionid=***?id=1;sid=***"),
        ("https://host/rest/stream.view?u=me&p=pw&t=26&s=c1&v=1.16&c=app&id=5",
         "https://host/rest/stream.view?u=***&p=***&t=***&s=***&v=1.16&c=app&id=5"),
        ("https://host/a?t=12&s=3&u=2&p=4", "https://host/a?t=12&s=3&u=2&p=4"),
        ("https://host/a?id=1&file=b&name=c&format=d&version=2&page=3&author=e&passage=f&compass=g&title=sessions",
         "https://host/a?id=1&file=b&name=c&format=d&version=2&page=3&author=e&passage=f&compass=g&title=sessions"),
        ("https://cdn/get?u=https%3A%2F%2Fhost%2Fa.mp3%3Fsv%3D1%26sig%3Dabc&w=5", "https://cdn/get?u=***&w=5"),
        ("https://cdn/get?u=https%3A%2F%2Fhost%2Fa.mp3%3Fid%3D1&w=5%25",
         "https://cdn/get?u=https%3A%2F%2Fhost%2Fa.mp3%3Fid%3D1&w=5%25"),
        ("cannot open //me:pw@host/a.mp3", "cannot open //***@host/a.mp3"),
        ("/music//a:b@c.mp3 //host:80/@me", "/music//a:b@c.mp3 //host:80/@me"),
        ("{'Authorization': 'Bearer eyJ.x-y', 'a': 1}", "{'Authorization': 'Bearer ***', 'a': 1}"),
        ("sent authorization: basic dTpw", "sent authorization: basic ***"),
    ],
)  # fmt: skip
def test_only_secrets_are_redacted(text: str, expected: str) -> None:
    assert urls.redacted(text) == expected
    assert urls.redacted(expected) == expected


@pytest.mark.parametrize("uri", ["/music/a.mp3", "s3://bucket/a.mp3", "https://example.org/a.mp3", "https://8.8.8.8/a"])
def test_any_scheme_is_allowed_by_default(uri: str) -> None:
    assert urls.rejection_reason(uri) is None


@pytest.mark.parametrize(
    "uri", ["simplecache::s3://bucket/a.mp3", "zip://a.mp3::https://host/b.zip", "/music/a::b.mp3"]
)
def test_chained_urls_are_rejected(uri: str) -> None:
    assert "chains filesystems" in (urls.rejection_reason(uri) or "")


@pytest.mark.parametrize(
    "host",
    ["169.254.169.254", "169.254.170.2", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.16689662",
     "[fd00:ec2::254]", "[fe80::1]", "[::ffff:169.254.169.254]", "metadata.google.internal",
     "Metadata.Google.Internal.", "100.100.100.200", "user:pass@169.254.169.254", "169.254.169.254:80"],
)  # fmt: skip
def test_metadata_services_are_rejected(host: str) -> None:
    fault = urls.rejection_reason(f"http://{host}/latest/meta-data/iam") or ""
    assert "credentials" in fault
    assert "pass" not in fault


def test_invalid_url_is_rejected() -> None:
    assert "is not a valid URL" in (urls.rejection_reason("http://[host/a.mp3") or "")


def test_only_allowed_places_are_accepted(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("uri", ["s3://bucket/a.mp3", "https://host/a.mp3", "file:///music/a.mp3", "memory://a.mp3"])
def test_whole_scheme_can_be_allowed(uri: str) -> None:
    scheme = uri.partition("//")[0]
    assert urls.rejection_reason(uri, [f"{scheme}//"]) is None
    assert "--allow" in (urls.rejection_reason(uri, ["gs://"]) or "")


def test_links_are_followed_before_comparing(tmp_path: Path) -> None:
    (tmp_path / "music").mkdir()
    (tmp_path / "secret.mp3").touch()
    (tmp_path / "music/a.mp3").symlink_to(tmp_path / "secret.mp3")
    assert "--allow" in (urls.rejection_reason(f"{tmp_path}/music/a.mp3", [f"{tmp_path}/music"]) or "")


@pytest.mark.parametrize(
    "uri",
    [
        "https://evil.example/../host/music/a.mp3",
        "https://evil.example?/../host/music/a.mp3",
        "https://host/private?q=/../music/a.mp3",
        "https://host/music/%2e%2e/private/a.mp3",
        "https://host/music/..%2fprivate/a.mp3",
        "https://host/music/..\\private/a.mp3",
        "s3://evil/../bucket/music/a.mp3",
        "s3://bucket/private/../music/a.mp3",
    ],
)
def test_another_host_bucket_or_folder_is_never_within_an_allowed_one(uri: str) -> None:
    assert "--allow" in (urls.rejection_reason(uri, ["https://host/music", "s3://bucket/music"]) or "")


def test_links_of_file_urls_are_followed(tmp_path: Path) -> None:
    (tmp_path / "music").mkdir()
    (tmp_path / "secret.mp3").touch()
    (tmp_path / "music/a.mp3").symlink_to(tmp_path / "secret.mp3")
    assert "--allow" in (urls.rejection_reason(f"file://{tmp_path}/music/a.mp3", [f"file://{tmp_path}/music"]) or "")


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:///music/a.mp3", "/music/a.mp3"),
        ("file:///music/What%3F%20100%25%20K%C3%B6ln.mp3", "/music/What? 100% Köln.mp3"),
        ("file:///music/100% What? #1.mp3", "/music/100% What? #1.mp3"),
        ("file://localhost/music/a.mp3", "/music/a.mp3"),
        ("FILE://LOCALHOST/music/a.mp3", "/music/a.mp3"),
        ("file:/music/a.mp3", "/music/a.mp3"),
        ("file://nas/music/a.mp3", None),
        ("/music/a%20b.mp3", None),
        ("file.mp3", None),
        ("https://host/file:///a.mp3", None),
    ],
)
def test_file_urls_are_read_as_browsers_write_them(uri: str, path: str | None) -> None:
    assert urls.local_path(uri) == path


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))
def test_file_url_of_any_path_leads_back_to_it(path: str) -> None:
    assert urls.local_path(Path(f"/{path}").as_uri()) == str(Path(f"/{path}"))


def test_file_url_of_another_machine_is_rejected() -> None:
    assert "names a file of another machine" in (urls.rejection_reason("file://nas/music/a.mp3") or "")


@pytest.mark.parametrize("uri", ["file:///srv/music/%2e%2e/private/a.mp3", "file:/srv/private/a.mp3"])
def test_encoded_file_url_is_compared_as_the_path_that_is_opened(uri: str) -> None:
    assert "--allow" in (urls.rejection_reason(uri, ["/srv/music"]) or "")
    assert urls.rejection_reason("file://localhost/srv/music/a%20b.mp3", ["/srv/music", "file:///srv"]) is None


names = st.text(string.ascii_letters + string.digits + "-._~%", min_size=1, max_size=20)
secrets = st.text(string.ascii_uppercase + string.digits + "+/=-._~%", min_size=12, max_size=40)
users = st.text(string.ascii_uppercase + string.digits + "-._~%", min_size=12, max_size=40)
SECRET_PARAMETERS = (
    "X-Amz-Signature",
    "X-Amz-Credential",
    "X-Goog-Signature",
    "sig",
    "Signature",
    "Policy",
    "X%2DAmz%2DSignature",
    "token",
    "access_key",
    "password",
    "pass", "pw", "hmac", "md5", "bearer", "sid", "session", "sessionid", "PHPSESSID", "JSESSIONID", "ticket", "otp",
    "cred", "hdnea", "hdnts", "hdntl", "verify",
)  # fmt: skip


@settings(deadline=None)
@given(
    scheme=st.sampled_from(["http", "https", "s3", "gs", "abfs", "HTTPS"]), user=users, password=secrets,
    path=st.lists(names, min_size=1, max_size=3), parameter=st.sampled_from(SECRET_PARAMETERS), value=secrets,
    before=st.sampled_from(["", "cannot read ", "url='", "(", "a=1, "]), after=st.sampled_from(["", " failed", "\n"]),
)  # fmt: skip
def test_no_secret_passes_redaction(scheme, user, password, path, parameter, value, before, after):
    assume(not re.match(r"\d{0,5}/", password))  # reads as a port
    url = f"{scheme}://{user}:{password}@host/{'/'.join(path)}?id=1&{parameter}={value}"
    text = urls.redacted(f"{before}{url}{after}")
    for secret in (user, password, value):
        assume(not any(secret in part for part in (before, after, scheme, parameter, *path, "id=1", "host")))
        assert secret not in text
    assert text.startswith(before)
    assert "/".join(path) in text


@given(
    name=st.sampled_from(["X-Amz-Signature", "X-Amz-Credential", "X-Goog-Signature", "AWSAccessKeyId", "Signature"]),
    value=secrets.filter(lambda text: not {"&", "#"} & set(text)), path=names,
)  # fmt: skip
def test_no_signature_passes_redaction_without_its_scheme(name, value, path):
    assume(value not in path)
    assert value not in urls.redacted(f"OSError: [Errno 36] File name too long: '/tmp/tmp1/{path}?id=1&{name}={value}'")


@given(
    parameter=st.sampled_from(SECRET_PARAMETERS), value=secrets.filter(lambda text: not {"&", "#"} & set(text)),
    times=st.integers(1, 6), after=st.sampled_from(["", "&id=1", " failed"]),
)  # fmt: skip
def test_no_secret_of_an_escaped_url_passes_redaction(parameter, value, times, after):
    nested = f"https://host/a.mp3?{parameter}={value}"
    for _ in range(times):
        nested = urllib.parse.quote(nested, safe="")
    text = urls.redacted(f"https://proxy/get?u={nested}{after}")
    assert text == f"https://proxy/get?u=***{after}"


@given(user=users, password=users, before=st.sampled_from(["", "cannot read ", "url='", "(", "a="]))
def test_no_password_passes_redaction_without_its_scheme(user, password, before):
    assert urls.redacted(f"{before}//{user}:{password}@host/a.mp3") == f"{before}//***@host/a.mp3"


@given(token=secrets, before=st.sampled_from(["", "curl -H '", "{'", "Proxy-"]))
def test_no_header_of_authorization_passes_redaction(token, before):
    assert token not in urls.redacted(f"{before}Authorization: Bearer {token}' failed")


def test_redaction_takes_linear_time() -> None:
    def seconds(word: str, length: int) -> float:
        started = time.perf_counter()
        urls.redacted(word * (length // len(word)))
        return time.perf_counter() - started

    for word in ("a", "(//a:", "=%25", "authorization: ", "https://a/?b=%3F;"):
        short, long = (min(seconds(word, length) for _ in range(3)) for length in (10_000, 40_000))
        assert long < 10 * short + 0.01, word


steps = st.lists(st.sampled_from(["..", ".", "music", "music2", "other", "a.mp3"]), min_size=1, max_size=6)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps, root=st.sampled_from(["/srv/music", "/srv/music/", "s3://bucket/music", "s3://bucket/music/"]))
def test_uri_outside_of_the_allowed_root_is_rejected(steps, root):
    base = root.rstrip("/")
    uri = f"{base}/{'/'.join(steps)}"
    resolved = posixpath.normpath(posixpath.join("/", base.replace("s3://", ""), *steps))
    inside = (resolved + "/").startswith(posixpath.join("/", base.replace("s3://", "")) + "/")
    assert (urls.rejection_reason(uri, (root,)) is None) == inside
    assert urls.rejection_reason(f"{base}2/{'/'.join(steps)}", (root,)) is not None or ".." in steps


hosts = st.sampled_from(["evil", "evil?", "evil#", "host@evil", "host2", "host?", "host"])
segments = st.sampled_from(["..", "%2e%2e", "private", "?q=", "#"])
ends = st.sampled_from(["music/a.mp3", "host/music/a.mp3", "music/../a.mp3", "music/%2e%2e/a.mp3"])
tails = st.tuples(st.lists(segments, max_size=3), ends).map(lambda parts: [*parts[0], parts[1]])


@settings(deadline=None)
@given(host=hosts, tail=tails)
def test_allowed_url_is_requested_from_the_allowed_host_and_folder(host, tail):
    uri = f"https://{host}/{'/'.join(tail)}"
    if urls.rejection_reason(uri, ("https://host/music",)) is None:
        requested = yarl.URL(uri)
        assert requested.host == "host"
        assert f"{requested.path}/".startswith("/music/")


URIS = (
    "s3://b/a.mp3",
    "https://me:pw@host/a.mp3?id=1&sig=x",
    "//me:pw@host/x",
    "Authorization: Bearer abc",
    "/a b.mp3",
)


@settings(deadline=None)
@given(st.lists(st.text(alphabet="aA@=%?&;:/#.-é ", max_size=40) | st.sampled_from(URIS)))
def test_a_column_of_uris_is_redacted_as_each_uri_is(uris):
    assert urls.redacted_column(pa.array(uris, pa.string())).to_pylist() == [urls.redacted(uri) for uri in uris]
