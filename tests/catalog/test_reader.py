import functools
import http.server
import json
import os

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from musictag.catalog.reader import read_catalog
from musictag.catalog.validation import SCHEMA, iter_problems
from musictag.errors import CatalogError
from musictag.storage import fetch
from websites import serving

ROWS = [
    {"track_id": "a", "uri": "music/a.mp3", "artist": "X", "title": "One", "tags": ["calm", "piano"], "split": "train"},
    {"track_id": "b", "uri": "/music/b.mp3", "artist": None, "title": None, "tags": [], "split": None},
    {
        "track_id": "c",
        "uri": "s3://bucket/c.mp3",
        "artist": "Y",
        "title": "Drei, vier",
        "tags": ["sad"],
        "split": "test",
    },
]


def write(path, content):
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def write_rows(path, rows):
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        lines = ["track_id,uri,artist,title,tags,split"]
        for row in rows:
            cells = {**row, "tags": ";".join(row["tags"])}
            lines.append(",".join(f'"{cells[name] or ""}"' for name in lines[0].split(",")))
        path.write_text("\n".join(lines))
    return str(path)


def problems_of(uri):
    return {problem.row: (problem.track_id, problem.message) for problem in iter_problems(read_catalog(uri).problems)}


@pytest.mark.parametrize("name", ["catalog.csv", "catalog.jsonl", "catalog.parquet"])
def test_all_formats_give_the_same_tracks(tmp_path, name):
    catalog = read_catalog(write_rows(tmp_path / name, ROWS))
    assert not catalog.problems.num_rows
    assert catalog.tracks.schema == SCHEMA
    expected = [{**row, "album": None, "etag": None} for row in ROWS]
    expected[0]["uri"] = f"{tmp_path}/music/a.mp3"
    assert catalog.tracks.to_pylist() == expected


def test_forbidden_uris_are_problems(tmp_path):
    lines = [
        "track_id,uri",
        "a,music/a.mp3",
        "b,../b.mp3",
        "c,http://169.254.169.254/c.mp3",
        "d,filecache::s3://x/d.mp3",
    ]
    uri = write(tmp_path / "catalog.csv", "\n".join(lines))
    assert list(problems_of(uri)) == [4, 5]
    catalog = read_catalog(uri, [str(tmp_path)])
    assert catalog.tracks["track_id"].to_pylist() == ["a"]
    assert "is within none of --allow" in next(iter_problems(catalog.problems)).message


def test_folder_lists_its_audio_files(tmp_path):
    for name in ("b/2.FLAC", "a/1.mp3", "cover.jpg", ".hidden/3.mp3", "a/.4.mp3"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, "x")
    catalog = read_catalog(str(tmp_path))
    assert catalog.tracks["track_id"].to_pylist() == ["a/1.mp3", "b/2.FLAC"]
    assert catalog.tracks["uri"].to_pylist() == [f"{tmp_path}/a/1.mp3", f"{tmp_path}/b/2.FLAC"]
    assert catalog.tracks["title"].to_pylist() == ["1.mp3", "2.FLAC"]


def test_file_name_that_is_not_utf8_is_a_problem(tmp_path):
    write(tmp_path / "good.mp3", "x")
    write(tmp_path / os.fsdecode(b"caf\xe9.mp3"), "x")
    catalog = read_catalog(str(tmp_path))
    assert catalog.tracks["track_id"].to_pylist() == ["good.mp3"]
    [problem] = iter_problems(catalog.problems)
    assert problem.track_id == r"caf\udce9.mp3"
    assert "not UTF-8" in problem.message
    assert "rename" in problem.message


def test_relative_uris_are_resolved_against_a_remote_catalog():
    with fsspec.open("memory://shelf/catalog.csv", "wb") as stream:
        stream.write(b"track_id,uri\na,music/a.mp3\n")
    [uri] = read_catalog("memory://shelf/catalog.csv").tracks["uri"].to_pylist()
    assert uri.startswith("memory://")
    assert uri.endswith("shelf/music/a.mp3")


def test_relative_catalog_path_gives_absolute_uris(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "catalog.csv", "track_id,uri\na,../a.mp3\n")
    assert read_catalog("catalog.csv").tracks["uri"].to_pylist() == [f"{tmp_path.parent}/a.mp3"]


def test_local_files_are_found_as_browsers_and_shells_write_them(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "100% Köln?.mp3", "x")
    lines = [
        "track_id,uri", f"url,{(tmp_path / '100% Köln?.mp3').as_uri()}",
        f"host,file://localhost{tmp_path}/100%25%20K%C3%B6ln?.mp3", "home,~/100% Köln?.mp3", "name,100% Köln?.mp3",
    ]  # fmt: skip
    catalog = read_catalog(f"file://localhost{write(tmp_path / 'a b.csv', chr(10).join(lines))}".replace(" ", "%20"))
    assert not catalog.problems.num_rows
    for uri in catalog.tracks["uri"].to_pylist():
        with fetch.local_audio(uri) as path:
            assert path == tmp_path / "100% Köln?.mp3"


@pytest.mark.parametrize("header", ["track_id,uri,bpm,mood", ",track_id,uri,mood", "\ufefftrack_id, uri,bpm,x"])
def test_unknown_columns_are_ignored(tmp_path, header):
    cells = ["a" if "track_id" in name else "a.mp3" if "uri" in name else "7" for name in header.split(",")]
    catalog = read_catalog(write(tmp_path / "c.csv", f"{header}\n{','.join(cells)}\n"))
    assert not catalog.problems.num_rows
    assert catalog.tracks["track_id"].to_pylist() == ["a"]


def test_parquet_catalog_with_a_repeated_column_is_an_error(tmp_path):
    columns = {"track_id": ["a"], "uri": ["a.mp3"], "tags": [["x"]]}
    table = pa.table([*columns.values(), [["y"]]], names=[*columns, "tags"])
    pq.write_table(table, tmp_path / "c.parquet")
    with pytest.raises(CatalogError, match="several columns are named tags"):
        read_catalog(str(tmp_path / "c.parquet"))


def test_csv_tags_are_split_trimmed_and_sorted(tmp_path):
    catalog = read_catalog(write(tmp_path / "c.csv", "track_id,uri,tags\na,a.mp3, sad ;;calm;sad\n"))
    assert catalog.tracks["tags"].to_pylist() == [["calm", "sad"]]


def test_csv_reports_all_problems_at_once(tmp_path):
    lines = [
        b"track_id,uri,artist,split",
        b"good,good.mp3,X,train",
        b"twin,one.mp3,X,",
        b",nameless.mp3,X,",
        b"nowhere, ,X,",
        b"elsewhere,a.mp3,X,holdout",
        b"few,a.mp3",
        b"many,a.mp3,X,train,more,and more",
        b"bytes,caf\xe9.mp3,X,",
        b"twin,two.mp3,X,",
        b",,X,nowhere",
    ]
    uri = write(tmp_path / "c.csv", b"\n".join(lines))
    catalog = read_catalog(uri)
    assert catalog.tracks["track_id"].to_pylist() == ["good"]
    assert catalog.tracks.num_rows + catalog.problems.num_rows == len(lines) - 1
    found = problems_of(uri)
    assert found[3] == ("twin", "track_id is not unique: rows 3, 10 have it; none is used")
    assert found[10] == found[3]
    assert found[4] == ("row 4", "track_id is empty")
    assert found[5] == ("nowhere", "uri is empty")
    assert found[6][0] == "elsewhere"
    assert "unknown split 'holdout': use one of train, validation, test" in found[6][1]
    assert "fewer fields" in found[7][1]
    assert "2 more fields" in found[8][1]
    assert found[9][0] == "bytes"
    assert "uri is not UTF-8" in found[9][1]
    for fault in ("track_id is empty", "uri is empty", "unknown split 'nowhere'"):
        assert fault in found[11][1]


def test_json_lines_report_all_problems_at_once(tmp_path):
    lines = [
        b'{"track_id": 7, "uri": "a.mp3", "tags": null}',
        b"",
        b'{"track_id": "b", "uri": ',
        b'["c", "c.mp3"]',
        b'{"track_id": "d", "uri": "d.mp3", "tags": "calm;sad"}',
        b'{"track_id": "e", "uri": "e.mp3", "tags": ["calm", 3]}',
        b'{"track_id": "f", "uri": "caf\xe9.mp3"}',
        b'{"track_id": "g", "uri": 5}',
        b'{"uri": "h.mp3"}',
        b'{"track_id": "i", "uri": "caf\\udce9.mp3"}',
        b'{"track_id": "7", "uri": "k.mp3"}',
        b"[" * 100_000,
    ]
    uri = write(tmp_path / "c.jsonl", b"\n".join(lines))
    found = problems_of(uri)
    assert read_catalog(uri).tracks.num_rows == 0
    assert "rows 1, 11 have it" in found[1][1]  # the number 7 and the text 7 are one id
    assert "rows 1, 11 have it" in found[11][1]
    assert "not JSON" in found[3][1]
    assert "not a JSON object" in found[4][1]
    assert "tags is not a list of text: 'calm;sad'" in found[5][1]
    assert "tags is not a list of text" in found[6][1]
    assert "uri is not UTF-8" in found[7][1]
    assert "uri is not text: 5" in found[8][1]
    assert "track_id is empty" in found[9][1]
    assert "uri is not UTF-8" in found[10][1]
    assert "not JSON" in found[12][1]
    assert sorted(found) == [1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]


def test_parquet_problems_have_row_numbers(tmp_path):
    rows = [{"track_id": "a", "uri": "a.mp3", "tags": ["x", None]}, {"track_id": None, "uri": "b.mp3", "tags": ["x"]}]
    found = problems_of(write_rows(tmp_path / "c.parquet", rows))
    assert "tags is not a list of text" in found[1][1]
    assert found[2] == ("row 2", "track_id is empty")


def test_quote_over_several_rows_is_a_problem_of_its_last_row(tmp_path):
    found = problems_of(write(tmp_path / "c.csv", 'track_id,uri,artist\na,a.mp3,"X\nb,b.mp3,"\nc,c.mp3,Z\n'))
    assert list(found) == [3]
    assert "artist has several lines" in found[3][1]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("c.csv", "track_id,uri,tags,bpm,tags\na,a.mp3,x,7,y\n", "several columns are named tags; rename all but one"),
        ("c.csv", "id,uri\na,a.mp3\n", "no column track_id; it has id, uri"),
        ("c.csv", "", "no column track_id and no column uri"),
        ("c.csv", 'track_id,uri\na,"a.mp3\nb,b.mp3\n', "is a quote not closed"),
        ("c.txt", "track_id,uri\n", "unknown format .txt"),
        ("c.parquet", "no parquet", "cannot be read"),
    ],
)
def test_unreadable_catalog_is_an_error_with_the_reason(tmp_path, name, content, reason):
    uri = write(tmp_path / name, content)
    with pytest.raises(CatalogError, match=reason) as caught:
        read_catalog(uri)
    assert uri in str(caught.value)


QUERY = "?X-Amz-Credential=AK/2026/s3&X-Amz-Signature=0f1e.2d"


@pytest.fixture
def website(tmp_path):
    with serving(functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)) as url:
        yield url


def test_catalog_at_a_presigned_url_is_read_by_the_suffix_of_its_path(tmp_path, website):
    write(tmp_path / "c.csv", "track_id,uri\na,music/a.mp3\n")
    catalog = read_catalog(f"{website}/c.csv{QUERY}")
    assert catalog.tracks["uri"].to_pylist() == [f"{website}/music/a.mp3"]


@pytest.mark.parametrize("name", ["c.txt", "c.csv", "missing.csv"])
def test_error_of_a_catalog_at_a_presigned_url_holds_no_secret(tmp_path, website, name):
    write(tmp_path / "c.csv", "id\n")
    write(tmp_path / "c.txt", "id\n")
    with pytest.raises(CatalogError, match=rf"{name}\?X-Amz-Credential=\*\*\*") as caught:
        read_catalog(f"{website}/{name}{QUERY}")
    assert "AK" not in str(caught.value)
    assert "0f1e" not in str(caught.value)


def test_parquet_without_a_required_column_is_an_error(tmp_path):
    with pytest.raises(CatalogError, match="no column uri; it has track_id"):
        read_catalog(write_rows(tmp_path / "c.parquet", [{"track_id": "a"}]))


@pytest.mark.parametrize("uri", ["missing.csv", "missing", "gopher://somewhere/c.csv"])
def test_missing_catalog_is_an_error(tmp_path, uri):
    with pytest.raises(CatalogError, match=r"missing|gopher"):
        read_catalog(uri if "://" in uri else str(tmp_path / uri))


def test_folder_without_audio_is_an_error(tmp_path):
    write(tmp_path / "cover.jpg", "x")
    with pytest.raises(CatalogError, match="no audio file"):
        read_catalog(str(tmp_path))
