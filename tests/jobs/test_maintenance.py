import datetime
import os
import re
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import sample_tables
from musictag.catalog import splits
from musictag.errors import StoreError
from musictag.features.config import FeatureConfig
from musictag.features.table import SCHEMA, encode_clips, open_features
from musictag.jobs import ledger, maintenance
from musictag.storage import commits, heartbeats, staging, tables
from musictag.storage import data_files as data_files_

CONFIG = FeatureConfig(n_mels=8, clip_frames=4)


def row(track_id: str, **fields: object) -> dict[str, object]:
    clips = np.random.default_rng(len(track_id)).random((2, 4, 8), np.float32)
    return {
        "track_id": track_id,
        "uri": f"/{track_id}.wav",
        "audio_etag": "e",
        "audio_sha256": "s",
        "duration_s": 1.0,
        "n_clips": 2,
        "start_s": [0.0, 0.5],
        "clips": encode_clips(clips),
        "feature_hash": CONFIG.feature_hash,
        "featurized_at": datetime.datetime.now(datetime.UTC),
        **fields,
    }


@pytest.fixture
def uri(tmp_path: Path) -> str:
    """A features table with four tracks in two parts; a delete has rewritten one of them."""
    uri = str(tmp_path / "features")
    open_features(uri, CONFIG, None)
    commits.append_rows(uri, SCHEMA, [row("a"), row("b"), row("gone")])
    commits.append_rows(uri, SCHEMA, [row("c"), row("d")])
    sample_tables.delete_tracks(uri, ["gone"])
    tables.create_table(tables.companion_uri(uri, "failures"), ledger.FAILURES_SCHEMA)
    return uri


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    path = tmp_path / "catalog.csv"
    path.write_text("track_id,uri\n" + "".join(f"{track_id},/{track_id}.wav\n" for track_id in "abcd"))
    return path


def problems(uri: str, catalog: Path | None = None) -> tuple[str, ...]:
    return maintenance.verify(uri, str(catalog) if catalog else None).problems


def data_files(uri: str) -> list[Path]:
    return [Path(uri) / file.path for file in tables.files(uri)]


def test_intact_table_has_no_problems(uri: str, catalog: Path) -> None:
    assert maintenance.verify(uri, str(catalog)) == maintenance.Verification(2, 4, ())


@pytest.mark.parametrize("seed", range(20))
def test_any_flipped_bit_is_found(uri: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    files = data_files(uri)
    path = files[rng.integers(len(files))]
    content = bytearray(path.read_bytes())
    content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)
    assert problems(uri) == (f"{path.name}: changed since it was written",)


def test_missing_file_is_a_problem(uri: str) -> None:
    lost, *_ = data_files(uri)
    lost.unlink()
    (problem,) = problems(uri)
    assert problem.startswith(f"{lost.name}: cannot be read")


def test_file_without_checksum_is_a_problem(uri: str) -> None:
    path, *_ = data_files(uri)
    (Path(uri) / "_checksums" / f"{path.name}.sha256").unlink()
    assert [problem.split(":")[0] for problem in problems(uri)] == [path.name]


def test_track_with_two_rows_is_a_problem(uri: str) -> None:
    commits.append_rows(uri, SCHEMA, [row("b"), row("e")])
    assert problems(uri) == ("more than one row of the tracks b",)


def test_wrong_cells_are_a_problem(uri: str) -> None:
    commits.append_rows(uri, SCHEMA, [row("e", n_clips=3), row("f", feature_hash="other")])
    assert problems(uri) == (
        "feature_hash is not that of the table: f",
        "n_clips, start_s and clips disagree: e",
    )


def test_repeated_failures_of_a_track_are_no_problem(uri: str) -> None:
    failures = tables.companion_uri(uri, "failures")
    failed = {"track_id": "x", "uri": "x", "stage": "decode", "error": "E", "message": "m", "attempts": 1}
    rows = [{**failed, "failed_at": datetime.datetime.now(datetime.UTC)}] * 2
    commits.append_rows(failures, ledger.FAILURES_SCHEMA, rows)
    assert problems(failures) == ()


def test_splits_table_is_verified(uri: str) -> None:
    splits_uri = tables.companion_uri(uri, "splits")
    tables.create_table(splits_uri, splits.SCHEMA)
    rows = pa.Table.from_pylist([{"group": "x", "split": "train"}], splits.SCHEMA)
    commits.append_rows(splits_uri, splits.SCHEMA, rows.to_pylist())
    assert maintenance.verify(splits_uri) == maintenance.Verification(1, 1, ())


def test_tracks_of_another_catalog_are_problems(uri: str, catalog: Path) -> None:
    catalog.write_text("track_id,uri\na,/a.wav\nb,/elsewhere/b.wav\nc,/c.wav\nd,/d.wav\n")
    assert problems(uri, catalog) == (
        f"in the table with another uri than in {catalog} (moved, or of another catalog): b",
    )


def test_tracks_of_a_row_that_cannot_be_read_are_not_called_unlisted(uri: str, catalog: Path) -> None:
    catalog.write_text("track_id,uri\na,/a.wav\nb,/b.wav\nc,/c.wav\nd\n")
    assert [problem.partition(":")[0] for problem in problems(uri, catalog)] == [
        f"listed in {catalog}, but neither in the table nor in its failures"
    ]


def test_missing_and_orphaned_tracks_are_problems(uri: str, catalog: Path) -> None:
    many = "".join(f"lost {number},x.wav\n" for number in range(7))
    catalog.write_text("track_id,uri\na,/a.wav\nb,/b.wav\nc,/c.wav\n" + many)
    missing, orphaned = problems(uri, catalog)
    assert missing.endswith("failures: lost 0, lost 1, lost 2, lost 3, lost 4 and 2 more")
    assert orphaned == f"in the table, but not listed in {catalog} (a run with --prune deletes them): d"


def test_rows_below_a_folder_that_cannot_be_listed_are_not_called_unlisted(uri: str, tmp_path: Path) -> None:
    music = tmp_path / "music"
    music.mkdir()
    for track_id in "abcd":
        (music / f"{track_id}.mp3").touch()
    (music / "NAS").symlink_to("/mnt/not/connected")
    sample_tables.delete_tracks(uri, "abcd")
    commits.append_rows(uri, SCHEMA, [row(f"{each}.mp3", uri=f"{music}/{each}.mp3") for each in "abcd"])
    commits.append_rows(uri, SCHEMA, [row("NAS/x.mp3"), row("NASA/y.mp3")])
    missing, orphaned = problems(uri, music)
    assert missing.endswith("failures: NAS/")
    assert orphaned.endswith("deletes them): NASA/y.mp3")


def test_ids_that_differ_in_case_are_different_tracks(uri: str, catalog: Path) -> None:
    catalog.write_text("track_id,uri\n" + "".join(f"{track_id},/{track_id}.wav\n" for track_id in "abcD"))
    missing, orphaned = problems(uri, catalog)
    assert missing.endswith("failures: D")
    assert orphaned.endswith("deletes them): d")


def test_missing_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is none"):
        maintenance.verify(str(tmp_path / "nothing"))


def test_rollback_can_be_rolled_back(uri: str) -> None:
    maintenance.roll_back(uri, 2)
    assert tables.track_ids(uri) == {"a", "b", "c", "d", "gone"}
    assert problems(uri) == ()
    maintenance.roll_back(uri, 3)
    assert tables.track_ids(uri) == {"a", "b", "c", "d"}
    maintenance.roll_back(uri, 1)
    assert tables.track_ids(uri) == {"a", "b", "gone"}


@pytest.mark.parametrize("version", [-1, 3, 99])
def test_rollback_to_unknown_version_is_an_error(uri: str, version: int) -> None:
    with pytest.raises(StoreError, match=f"is at version 3: there is no earlier version {version}"):
        maintenance.roll_back(uri, version)


def test_vacuum_deletes_only_unused_files(uri: str, catalog: Path) -> None:
    orphan = Path(uri) / "part-killed-0123.parquet"
    pq.write_table(pa.table({"x": [1]}), orphan)
    young = Path(uri) / "part-young-0123.parquet"
    pq.write_table(pa.table({"x": [1]}), young)
    two_hours_ago = time.time() - 7200
    for path in Path(uri).glob("*.parquet"):
        if path != young:
            os.utime(path, (two_hours_ago, two_hours_ago))
    assert maintenance.vacuum(uri, 1) == [orphan.name]
    assert maintenance.verify(uri, str(catalog)) == maintenance.Verification(2, 4, ())
    before = {path.name for path in Path(uri).glob("*.parquet")}
    removed = maintenance.vacuum(uri, 0)
    assert young.name in removed
    assert len(removed) == 2  # and the file from before the delete
    assert {path.name for path in Path(uri).glob("*.parquet")} == before - set(removed)
    assert maintenance.verify(uri, str(catalog)) == maintenance.Verification(2, 4, ())
    assert {path.name for path in (Path(uri) / "_checksums").iterdir()} == {
        f"{path.name}.sha256" for path in data_files(uri)
    }


def stage(uri: str, run: str) -> Path:
    """Stage a part and write a plan as the workers and the driver of a killed run do; return the part's file."""
    files = data_files_.write_rows(uri, SCHEMA, [row("staged")])
    staging.write_manifest(uri, staging.Manifest(run, 0, 0, "hash", tuple(files), (), 1.0))
    plan = Path(f"{uri}-plan") / run / "shard-0000.parquet"
    plan.parent.mkdir(parents=True)
    plan.touch()
    return Path(uri) / files[0].path


def test_vacuum_keeps_what_a_run_has_staged(uri: str) -> None:
    tomorrow = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    file = stage(uri, f"{tomorrow:%Y%m%dT%H%M%S}-0123")
    maintenance.vacuum(uri, 0)
    assert file.exists()
    assert list(staging.staged_files(uri)) == [file.name]


def test_vacuum_deletes_what_a_run_left_that_ended_long_ago(uri: str) -> None:
    file = stage(uri, "20260101T000000-0123")
    assert file.name in maintenance.vacuum(uri, 0)
    assert not file.exists()
    assert not list((Path(uri) / staging.FOLDER).iterdir())
    assert not list(Path(f"{uri}-plan").iterdir())


def test_vacuum_keeps_what_a_run_that_is_running_has_written_and_not_staged_yet(uri: str) -> None:
    (old,) = data_files_.write_rows(uri, SCHEMA, [row("old")])
    an_hour_ago = time.time() - 3600
    os.utime(Path(uri) / old.path, (an_hour_ago, an_hour_ago))
    run = f"{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%S}-0123"
    with heartbeats.running(uri, run):
        (written,) = data_files_.write_rows(uri, SCHEMA, [row("written")])
        deleted = maintenance.vacuum(uri, 0)
        assert old.path in deleted
        assert written.path not in deleted
    assert written.path in maintenance.vacuum(uri, 0)


def test_compaction_leaves_nothing_but_the_table(uri: str, tmp_path: Path) -> None:
    assert maintenance.compact(uri).n_after == 1
    assert not list((Path(uri) / staging.FOLDER).iterdir())
    with pytest.raises(StoreError, match="there is none"):
        maintenance.compact(str(tmp_path / "typo"))
    assert not (tmp_path / "typo").exists()


def test_vacuum_keeps_what_a_run_is_writing_to_its_failures_table(uri: str) -> None:
    failures = tables.companion_uri(uri, "failures")
    with heartbeats.running(uri, heartbeats.run_name(datetime.datetime.now(datetime.UTC))):
        (written,) = data_files_.write_rows(failures, ledger.FAILURES_SCHEMA, [{"track_id": "written"}])
        assert maintenance.vacuum(failures, 0) == []
    assert maintenance.vacuum(failures, 0) == [written.path]


def test_vacuum_names_a_folder_that_belongs_to_no_run(uri: str) -> None:
    foreign = Path(uri) / staging.FOLDER / "mine"
    foreign.mkdir(parents=True)
    (foreign / "notes.txt").touch()
    with pytest.raises(StoreError, match="mine: not the name of a run"):
        maintenance.vacuum(uri, 0)


@pytest.mark.parametrize("written", ["", "0123abc", "0123abc  part-x"])
def test_vacuum_deletes_incomplete_checksums(uri: str, written: str) -> None:
    checksum = Path(uri) / "_checksums" / "part-x-y.parquet.sha256"
    checksum.write_text(written)
    maintenance.vacuum(uri, keep_hours=0)
    assert not checksum.exists()
    assert problems(uri) == ()


def test_vacuumed_version_cannot_be_restored(uri: str) -> None:
    maintenance.vacuum(uri, 0)
    with pytest.raises(StoreError, match=re.escape(uri)):
        maintenance.roll_back(uri, 2)


def test_history_begins_with_the_newest_version(uri: str) -> None:
    lines = maintenance.history(uri, 3)
    assert [line.split()[0] for line in lines] == ["3", "2", "1"]
    assert lines[0].endswith("  delete")
    today = f"{datetime.datetime.now():%Y-%m-}"
    assert all(today in line for line in lines)
