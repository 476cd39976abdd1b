"""The same tests on each store: all clients of a URL reach the same place."""

import concurrent.futures
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from musictag.catalog.reader import read_catalog
from musictag.errors import AudioMissingError, AudioUnreachableError, CatalogError, StoreError
from musictag.jobs import maintenance
from musictag.jobs.ledger import FAILURES_SCHEMA
from musictag.jobs.output import Output
from musictag.jobs.plan_files import delete_plan, write_plan
from musictag.jobs.shards import stage_shard
from musictag.jobs.staged_parts import StagedParts
from musictag.storage import checksums, commits, etags, fetch, folders, heartbeats, rewrite, staging, stores, tables
from object_stores import AZURE_KEY, STORES, put, set_environment
from plans import planned
from sample_tables import SCHEMA, ended_runs, remove_tracks, rows

REMOTE = [pytest.param(name, marks=pytest.mark.slow) for name in STORES if name != "local"]


@pytest.fixture(scope="module", params=["local", *REMOTE])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a place in a store."""
    with pytest.MonkeyPatch.context() as patch, STORES[request.param](tmp_path_factory.mktemp("store"), patch) as uri:
        yield uri


def test_rows_are_written_read_and_removed(store: str) -> None:
    uri = f"{store}/tables/of rows"
    assert not tables.table_exists(uri)
    tables.create_table(uri, SCHEMA, {"musictag.made": "once"})
    assert commits.append_rows(uri, SCHEMA, rows("a", "b", "ü's")) == 3
    assert commits.append_rows(uri, SCHEMA, rows("c")) == 1
    remove_tracks(uri, ["a"])
    assert tables.track_ids(uri) == {"b", "c", "ü's"}
    assert list(tables.read_rows(uri, ("track_id", "n"), ["b"])) == [{"track_id": "b", "n": 1}]
    assert sorted(tables.scan(uri, ("track_id",)).read_all()["track_id"].to_pylist()) == ["b", "c", "ü's"]
    assert tables.open_table(uri).metadata().configuration["musictag.made"] == "once"
    assert rewrite.compact(uri) == rewrite.Compaction(2, 1)
    assert tables.track_ids(uri) == {"b", "c", "ü's"}


def test_file_that_is_written_again_and_again_is_never_seen_empty(store: str) -> None:
    uri, path, content = f"{store}/tables/of files", "_staged/r1/a file.json", b"x" * 1_000
    folders.write_file(uri, path, content)
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        writer = threads.submit(lambda: [folders.write_file(uri, path, content) for _ in range(40)])
        while not writer.done():
            with folders.open_folder(uri).open_input_stream(path) as stream:
                assert stream.read() == content
        writer.result()
    folders.delete_folder(uri, "_staged")


def test_parts_are_staged_and_taken_over(store: str) -> None:
    uri = f"{store}/tables/staged"
    tables.create_table(uri, SCHEMA)
    output = Output(uri, SCHEMA, "made_at", "p")
    tables.create_table(output.failures_uri, FAILURES_SCHEMA)
    with planned([("a", "a.mp3", "e"), ("b", "b.mp3", "e")]) as made:
        plan = write_plan(made.connection, f"{uri}-plan", "r1", 1)
    with heartbeats.running(uri, "r1"):
        outcomes = [({"track_id": "a", "n": 1}, None), (None, {"track_id": "b", "attempts": 1})]
        assert list(stage_shard(output, plan, 0, lambda tasks: outcomes)) == [2]
        assert list(stage_shard(output, plan, 0, lambda tasks: pytest.fail("staged already"))) == []
        with heartbeats.running(uri, "r2"):
            assert ended_runs(uri) == []
    assert ended_runs(uri) == ["r1"]
    parts = StagedParts(output, "r1", is_taken_over=True)
    parts.collect()
    assert parts.commit() == 2
    assert (tables.track_ids(uri), tables.track_ids(f"{uri}-failures")) == ({"a"}, {"b"})
    parts.discard()
    delete_plan(f"{uri}-plan", "r1")
    assert staging.manifest_paths(uri, "r1") == ended_runs(uri) == []


def test_table_is_verified_and_vacuumed(store: str) -> None:
    uri = f"{store}/tables/kept"
    tables.create_table(uri, SCHEMA)
    commits.append_rows(uri, SCHEMA, rows("a", "b"))
    remove_tracks(uri, ["a"])
    assert maintenance.verify(uri).problems == ()
    folder = folders.open_folder(uri)
    with folder.open_output_stream("part-left.parquet") as stream:
        stream.write(b"of a killed writer")
    checksums.record_checksum(folder, "part-left.parquet", "0")
    deleted = maintenance.vacuum(uri, 0)
    assert len(deleted) == 2
    assert "part-left.parquet" in deleted
    files = {file.path for file in tables.files(uri)}
    assert checksums.read_checksums(folder).keys() == files
    assert maintenance.verify(uri).problems == ()
    (path,) = files
    with folder.open_output_stream(path) as stream:
        stream.write(b"other bytes")
    assert maintenance.verify(uri).problems == (f"{path}: changed since it was written",)


def test_table_that_does_not_exist_is_an_error(store: str) -> None:
    with pytest.raises(StoreError, match="there is none"):
        tables.open_table(f"{store}/tables/none")


@pytest.mark.parametrize("name", ["a b.mp3", "No. 1 #2.mp3", "100%20.mp3", "ü/é+&=.mp3", "a/b/c/d.mp3", "d~.mp3"])
def test_audio_is_fetched_and_its_etag_changes(store: str, name: str) -> None:
    uri = f"{store}/audio/{name}"
    put(uri, b"some bytes")
    with fetch.local_audio(uri) as path:
        assert path.read_bytes() == b"some bytes"
    before = etags.audio_etag(uri)
    assert before == etags.audio_etag(uri)
    put(uri, b"other bytes")
    assert None not in (before, etags.audio_etag(uri))
    assert etags.audio_etag(uri) != before


def test_large_audio_is_fetched_whole(store: str) -> None:
    content = b"0123456789" * 1_300_000  # more than is read at once
    put(f"{store}/large.wav", content)
    with fetch.local_audio(f"{store}/large.wav") as path:
        assert path.read_bytes() == content


def test_missing_audio_is_missing(store: str) -> None:
    with pytest.raises(AudioMissingError), fetch.local_audio(f"{store}/audio/none.mp3"):
        pass


def test_catalog_is_read_from_a_file_and_from_a_folder(store: str) -> None:
    put(f"{store}/music/a.mp3", b"x")
    put(f"{store}/music/Vol. 1/b.flac", b"x")
    put(f"{store}/music/cover.jpg", b"x")
    put(f"{store}/music/.hidden/c.mp3", b"x")
    put(f"{store}/catalog.csv", "track_id,uri\nä,music/a.mp3\n".encode())
    catalog = read_catalog(f"{store}/music")
    assert catalog.tracks["track_id"].to_pylist() == ["Vol. 1/b.flac", "a.mp3"]
    assert catalog.left_out["hidden"] == 1
    read = read_catalog(f"{store}/catalog.csv")
    assert read.problems.num_rows == 0
    assert read.tracks["track_id"].to_pylist() == ["ä"]
    (uri,) = read.tracks["uri"].to_pylist()
    assert uri == f"{store}/music/a.mp3"
    with fetch.local_audio(uri) as path:
        assert path.read_bytes() == b"x"
    with pytest.raises(CatalogError, match="cannot be read"):
        read_catalog(f"{store}/none.csv")


@pytest.mark.parametrize("page", [1, 7, 1_000])
def test_listed_etags_are_those_of_single_requests(store: str, page: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PAGE_KEYS", "AZURE_PAGE_KEYS"):
        monkeypatch.setattr(etags, name, page)
    monkeypatch.setattr(etags, "SINGLE_KEYS", 2)
    names = ["a.mp3", "a/b.mp3", "a-1.mp3", "ü/x y#1?.mp3", "z/0", "z/1", "z/ ", *(f"many/{n}.ogg" for n in range(40))]
    for name in names:
        put(f"{store}/etags/{name}", name.encode())
    odd = ["none.mp3", "many", "many/", "many/20.og", "", "a//b.mp3", "a/./b.mp3", "many/7.ogg/x"]
    uris = [f"{store}/etags/{name}" for name in [*reversed(names), *odd, *names[:5]]]
    found = etags.etags_of(pa.chunked_array([uris[:7], uris[7:]], pa.string()))
    assert found["etag"].to_pylist() == [etag_or_none(uri) for uri in uris]
    assert None not in found["etag"][: len(names)].to_pylist()
    is_missing = dict(zip(uris, found["is_missing"].to_pylist(), strict=True))
    assert is_missing[f"{store}/etags/none.mp3"]
    assert not any(is_missing[f"{store}/etags/{name}"] for name in names)


def etag_or_none(uri: str) -> str | None:
    try:
        return etags.audio_etag(uri)
    except AudioUnreachableError:
        return None


@pytest.mark.slow
def test_all_clients_read_a_profile_of_aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "credentials").write_text("[curator]\naws_access_key_id = key\naws_secret_access_key = secret\n")
    with STORES["seaweedfs"](tmp_path, monkeypatch) as root:
        set_environment(monkeypatch, {"AWS_ENDPOINT_URL": os.environ["AWS_ENDPOINT_URL"], "AWS_PROFILE": "curator"})
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
        names = [f"{number:02}.mp3" for number in range(20)]
        for name in names:
            put(f"{root}/{name}", name.encode())
        uris = [f"{root}/{name}" for name in names]
        monkeypatch.setattr(etags, "single_etag", lambda uri: pytest.fail("it was not listed"))
        assert etags.etags_of(pa.chunked_array([uris]))["etag"].null_count == 0
        tables.create_table(f"{root}/table", SCHEMA)
        commits.append_rows(f"{root}/table", SCHEMA, rows("a"))
        assert tables.track_ids(f"{root}/table") == {"a"}


def test_azure_without_an_account_is_an_error_that_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, {})
    with pytest.raises(
        StoreError, match=r"table az://b/k: names no .* set AZURE_STORAGE_ACCOUNT_NAME or AZURE_STORAGE_CONN"
    ):
        tables.open_table("az://b/k")
    with pytest.raises(AudioUnreachableError, match="set AZURE_STORAGE_ACCOUNT_NAME"):
        etags.audio_etag("az://b/k")


@pytest.mark.parametrize("scheme", ["s3", "az", "abfs", "abfss", "gs", "gcs"])
def test_urls_of_objects_have_parts(scheme: str) -> None:
    assert stores.object_url(f"{scheme}://b/k/l#?%.mp3") == (scheme, "b", None, "k/l#?%.mp3")
    assert stores.object_url(f"{scheme}://b") == (scheme, "b", None, "")


def test_urls_of_other_stores_and_paths_are_not_objects() -> None:
    for uri in ("/a/b", "a/b", "file:///a", "https://a/b", "s3a://a/b", "s3:///a", "memory://a/b", "S3://a/b"):
        assert stores.object_url(uri) is None


def azure_options(uri: str) -> dict[str, str]:
    options = stores.delta_options(uri)
    assert options.pop("timeout") == "15s"
    return options


def test_azure_account_is_that_of_the_url_or_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, {"AZURE_STORAGE_ACCOUNT": "mine", "AZURE_STORAGE_KEY": AZURE_KEY})
    mine = {"account_name": "mine", "account_key": AZURE_KEY}
    assert azure_options("az://c/t") == mine
    assert azure_options("abfss://c@mine.dfs.core.windows.net/t") == mine
    other = {"account_name": "other", "endpoint": "https://other.blob.core.windows.net"}
    assert azure_options("abfss://c@other.dfs.core.windows.net/t") == other
    assert azure_options("abfss://c@other.dfs.core.chinacloudapi.cn/t") == {
        "account_name": "other",
        "endpoint": "https://other.blob.core.chinacloudapi.cn",
    }


def test_azure_connection_strings_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=k==;EndpointSuffix=core.windows.net"
    set_environment(monkeypatch, {"AZURE_STORAGE_CONNECTION_STRING": text, "AZURE_STORAGE_ACCOUNT": "other"})
    expected = {"account_name": "a", "account_key": "k==", "endpoint": "https://a.blob.core.windows.net"}
    assert azure_options("az://c/t") == expected
    set_environment(monkeypatch, {"AZURE_STORAGE_CONNECTION_STRING": "UseDevelopmentStorage=true"})
    local = azure_options("az://c/t")
    assert local["account_name"] == "devstoreaccount1"
    assert local["allow_http"] == "true"
    set_environment(monkeypatch, {"AZURE_STORAGE_USE_EMULATOR": "true"})
    assert azure_options("az://c/t") == local


@pytest.mark.slow
def test_loading_the_library_imports_no_client_of_a_cloud() -> None:
    code = "import sys, musictag.storage.etags; print({'botocore', 's3fs', 'aiohttp'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()", done.stdout
