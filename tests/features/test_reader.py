import datetime
import threading
import time

import pyarrow as pa
import pytest

from musictag.errors import StoreError
from musictag.features import reader
from musictag.features.reader import read_tracks
from musictag.features.table import SCHEMA, encode_clips, open_features
from musictag.storage import commits, tables
from sample_tables import find_files
from small import CONFIG, clips_of, track

COLUMNS = ("track_id", "clips", "start_s")
N_FILES, TRACKS_OF_A_FILE = 30, 3


def row(number):
    made_at = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    fields = {**track(2, number), "feature_hash": CONFIG.feature_hash, "featurized_at": made_at}
    return {**{name: fields.get(name) for name in SCHEMA.names}, "clips": encode_clips(clips_of(fields))}


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    uri = str(tmp_path_factory.mktemp("features"))
    open_features(uri, CONFIG, None)
    for number in range(N_FILES):
        first = number * TRACKS_OF_A_FILE
        commits.append_rows(uri, SCHEMA, [row(first + n) for n in range(TRACKS_OF_A_FILE)])
    return uri


@pytest.fixture
def opened(monkeypatch):
    """Names of the files that were opened, in order."""
    names, read_file, lock = [], tables.read_file, threading.Lock()

    def watched(uri, path, schema, track_ids):
        with lock:
            names.append(path)
        return read_file(uri, path, schema, track_ids)

    monkeypatch.setattr(tables, "read_file", watched)
    return names


def test_only_files_that_hold_a_track_are_opened(features, opened):
    wanted = ["t7", "t8", "t30", "absent"]
    files = find_files(features, wanted)
    assert opened == []
    assert sorted(map(sorted, files.values())) == [["t30"], ["t7", "t8"]]
    rows = list(read_tracks(features, COLUMNS, files))
    assert [row["track_id"] for row in rows] == [track_id for in_file in files.values() for track_id in in_file]
    assert opened == list(files)
    for found in rows:
        assert found == {name: row(int(found["track_id"][1:]))[name] for name in COLUMNS} | {
            "start_s": pytest.approx(found["start_s"])
        }


def test_files_have_the_order_of_the_table(features):
    files = find_files(features, {f"t{number}" for number in range(N_FILES * TRACKS_OF_A_FILE)})
    assert list(files) == [file.path for file in tables.files(features)]
    assert all(in_file == sorted(in_file) and len(in_file) == TRACKS_OF_A_FILE for in_file in files.values())


def test_rows_have_the_order_of_the_files_although_files_are_opened_ahead(features, monkeypatch):
    files = find_files(features, tables.track_ids(features))
    read_file = tables.read_file
    in_order = [row["track_id"] for path in files for row in read_rows(features, path, files[path])]

    def slow(uri, path, schema, track_ids):
        time.sleep(0.01 * (hash(path) % 3))
        return read_file(uri, path, schema, track_ids)

    monkeypatch.setattr(tables, "read_file", slow)
    assert [row["track_id"] for row in read_tracks(features, ("track_id",), files)] == in_order
    assert len(in_order) == N_FILES * TRACKS_OF_A_FILE


def read_rows(uri, path, track_ids):
    for rows in tables.read_file(uri, path, SCHEMA, frozenset(track_ids)):
        yield from rows.to_pylist()


def test_memory_holds_a_limited_number_of_tracks(features, opened, monkeypatch):
    monkeypatch.setattr(reader, "TRACKS_AHEAD", 6)
    files = find_files(features, tables.track_ids(features))
    rows = read_tracks(features, ("track_id",), files)
    for n_read in range(1, 4 * TRACKS_OF_A_FILE):
        next(rows)
        assert len(opened) <= n_read / TRACKS_OF_A_FILE + 1 + 6 / TRACKS_OF_A_FILE
    rows.close()


def test_newest_row_of_each_track_is_kept():
    days = [datetime.datetime(2026, 1, day, tzinfo=datetime.UTC) for day in (2, 1, 3, 1)]
    rows = pa.table({"track_id": ["a", "b", "a", "a"], "featurized_at": days, "n": [1, 2, 3, 4]})
    assert reader.newest_rows(rows)["n"].to_pylist() == [2, 3]
    assert reader.newest_rows(rows.slice(0, 2)).equals(rows.slice(0, 2))


def test_file_that_the_version_does_not_have_is_named(features):
    with pytest.raises(StoreError, match=r"version 0 does not have the file part-"):
        reader.group_by_file(features, 0, {"t1": next(iter(find_files(features, ["t1"])))})


def test_missing_file_is_named(features):
    with pytest.raises(StoreError, match=r"gone\.parquet"):
        list(read_tracks(features, COLUMNS, {"gone.parquet": ["t1"]}))


def test_file_without_one_of_its_tracks_is_named(features):
    ((path, _),) = find_files(features, ["t1"]).items()
    with pytest.raises(StoreError, match=f"{path}: holds 1 rows of the 2 tracks to read"):
        list(read_tracks(features, COLUMNS, {path: ["t1", "t99"]}))
