import http.server
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from musictag.features.config import FeatureConfig
from musictag.features.table import decode_clips, open_features
from musictag.jobs import maintenance
from musictag.jobs.plan_files import PARTS_PER_WORKER
from musictag.storage import tables
from websites import serving

PIPELINE = Path(__file__).parents[2] / "pipelines" / "featurize.py"
CONFIG = FeatureConfig()


def run(*arguments, **environment):
    """Run featurize.py as a user does: with Beam's local runner on all cores."""
    command = [sys.executable, str(PIPELINE), "--runner=DirectRunner", *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=300, env={**os.environ, **environment}
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def rows(uri, *columns):
    table = tables.read_columns(str(uri), ("track_id", *columns)).to_pylist()
    found = {row.pop("track_id"): row for row in table}
    assert len(found) == len(table), "a track has two rows"
    return found


def failures(uri):
    return rows(f"{uri}-failures", "stage", "error", "message", "attempts")


def write_catalog(path, *uris):
    path.write_text("\n".join(["track_id,uri", *(f"{Path(uri).stem},{uri}" for uri in uris)]))
    return path


@pytest.fixture(scope="module")
def hostile(tmp_path_factory, music, write_audio):
    """Write a catalog of good, unusual and broken tracks."""
    folder = tmp_path_factory.mktemp("hostile")
    write_audio(folder / "plain.flac", music(7.0), 44_100)
    write_audio(folder / "m4a.m4a", music(4.0), 44_100)
    write_audio(folder / "short.wav", music(0.2), 44_100)
    write_audio(folder / "silence.ogg", np.zeros((2 * 44_100, 2), np.float32), 44_100)
    write_audio(folder / "mono8k.wav", music(4.0, 8_000, 1), 8_000)
    write_audio(folder / "studio.flac", music(4.0, 96_000), 96_000, "PCM_24")
    write_audio(folder / "surround.wav", music(4.0, 48_000, 6), 48_000)
    (folder / "empty.mp3").touch()
    (folder / "text.mp3").write_text("No sound at all, but words.\n" * 200)
    truncated = write_audio(folder / "truncated.mp3", music(6.0), 44_100)
    truncated.write_bytes(truncated.read_bytes()[: truncated.stat().st_size * 6 // 10])
    not_numbers = music(4.0)
    not_numbers[1_000:2_000] = np.nan
    write_audio(folder / "not-numbers.wav", not_numbers, 44_100, "FLOAT")
    (folder / "folder.mp3").mkdir()
    files = sorted(path.name for path in folder.iterdir())
    catalog = write_catalog(folder / "catalog.csv", *files, "missing.mp3", "gopher://somewhere/scheme.mp3")
    with catalog.open("ab") as stream:
        stream.write(b"\nfew\ntwin,plain.flac\ntwin,short.wav\nbytes,caf\xe9.mp3\n")
    return catalog


GOOD = {"plain": 3, "m4a": 2, "short": 1, "silence": 1, "mono8k": 2, "studio": 2, "surround": 2}
BAD = {
    "missing": ("fetch", "AudioMissingError", "No such file"),
    "folder": ("fetch", "AudioUnreachableError", "Is a directory"),
    "scheme": ("fetch", "AudioUnreachableError", "gopher"),
    "empty": ("decode", "AudioEmptyError", "0 bytes"),
    "text": ("decode", "AudioUnsupportedError", "not audio"),
    "truncated": ("decode", "AudioTruncatedError", "truncated: the header declares"),
    "not-numbers": ("decode", "AudioCorruptError", "NaN"),
    "row 16": ("catalog", "CatalogError", "row 16: fewer fields"),
    "bytes": ("catalog", "CatalogError", "row 19: uri is not UTF-8"),
}
N_LISTED = len(GOOD) + len(BAD) + 2  # the twins


@pytest.fixture(scope="module")
def first_run(hostile):
    table = hostile.parent / "tables" / "features"
    return table, run("--catalog", hostile, "--features", table, "--max-failures", 1)


def test_every_listed_track_is_written_or_failed(first_run):
    table, done = first_run
    assert done.returncode == 0, done.stderr
    found = rows(table, "n_clips", "clips", "feature_hash")
    assert {track_id: row["n_clips"] for track_id, row in found.items()} == GOOD
    for row in found.values():
        clips = decode_clips(row["clips"], CONFIG)
        assert clips.shape == (row["n_clips"], 187, 96)
        assert np.isfinite(clips).all()
        assert row["feature_hash"] == CONFIG.feature_hash
    assert not np.frombuffer(found["silence"]["clips"], np.float16).any()

    columns = ("track_id", "stage", "error", "message", "attempts")
    failed = tables.read_columns(f"{table}-failures", columns).to_pylist()
    twins = [row for row in failed if row["track_id"] == "twin"]
    assert ["track_id is not unique: rows 17, 18" in row["message"] for row in twins] == [True, True]
    others = {row["track_id"]: row for row in failed if row["track_id"] != "twin"}
    assert len(failed) == len(BAD) + 2
    assert {track_id: (row["stage"], row["error"]) for track_id, row in others.items()} == {
        track_id: expected[:2] for track_id, expected in BAD.items()
    }
    for track_id, (_, _, reason) in BAD.items():
        assert reason in others[track_id]["message"]
        assert others[track_id]["attempts"] == 1


def test_run_prints_its_account(first_run):
    table, done = first_run
    assert f"{N_LISTED} listed = {len(GOOD)} written + 0 unchanged + {len(BAD) + 2} failed" in done.stdout
    assert str(table) in done.stdout


def test_second_run_decodes_only_failed_tracks_and_too_many_failures_exit_1(hostile, first_run):
    table = first_run[0]
    version, before = tables.version(str(table)), rows(table, "featurized_at", "audio_sha256")
    done = run("--catalog", hostile, "--features", table)
    assert done.returncode == 1
    [error] = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert f"{len(BAD) + 2} of {N_LISTED} tracks failed, more than --max-failures 0.1 allows" in error
    n_tried = sum(stage != "catalog" for stage, _, _ in BAD.values()) - 1  # `missing` is still missing
    assert f"{N_LISTED} tracks listed, {n_tried} to do" in done.stdout
    assert f"{N_LISTED} listed = 0 written + {len(GOOD)} unchanged + {len(BAD) + 2} failed" in done.stdout
    assert tables.version(str(table)) == version
    assert rows(table, "featurized_at", "audio_sha256") == before
    attempts = tables.read_columns(f"{table}-failures", ("attempts",))["attempts"].to_pylist()
    assert sorted(attempts) == [1] + [2] * (len(BAD) + 1)


def test_run_processes_new_changed_and_repaired_tracks(tmp_path, featurize_here, capsys, music, write_audio):
    for name in ("kept.wav", "changed.wav"):
        write_audio(tmp_path / name, music(1.0), 44_100)
    (tmp_path / "mended.wav").write_text("not yet a song")
    catalog = write_catalog(tmp_path / "catalog.csv", "kept.wav", "changed.wav", "mended.wav")
    table = tmp_path / "features"
    call = ("--catalog", catalog, "--features", table, "--max-failures", 0.5)
    assert featurize_here(*call) == 0
    before = rows(table, "audio_sha256", "featurized_at", "n_clips")
    assert set(before) == {"kept", "changed"}
    assert failures(table)["mended"]["error"] == "AudioUnsupportedError"

    write_audio(tmp_path / "changed.wav", music(4.0, seed=1), 44_100)
    write_audio(tmp_path / "mended.wav", music(2.0, seed=2), 44_100)
    write_audio(tmp_path / "new.wav", music(2.0, seed=3), 44_100)
    write_catalog(catalog, "kept.wav", "changed.wav", "mended.wav", "new.wav")
    capsys.readouterr()
    assert featurize_here(*call) == 0
    assert "4 listed = 3 written + 1 unchanged + 0 failed" in capsys.readouterr().out
    after = rows(table, "audio_sha256", "featurized_at", "n_clips")
    assert set(after) == {"kept", "changed", "mended", "new"}
    assert after["kept"] == before["kept"]
    assert (before["changed"]["n_clips"], after["changed"]["n_clips"]) == (1, 2)
    assert failures(table) == {}

    version = tables.version(str(table))
    assert featurize_here(*call) == 0
    assert "4 tracks listed, 0 to do" in capsys.readouterr().out
    assert tables.version(str(table)) == version
    assert rows(table, "audio_sha256", "featurized_at", "n_clips") == after


def test_moved_touched_and_renamed_audio_is_hashed_and_not_decoded(
    tmp_path, featurize_here, capsys, music, write_audio
):
    (tmp_path / "old").mkdir()
    for seed, name in enumerate(("moved.wav", "touched.wav", "replaced.wav", "longer.wav", "name.wav")):
        write_audio(tmp_path / "old" / name, music(2.0, seed=seed), 44_100)
    call = ("--features", tmp_path / "features")
    assert featurize_here("--catalog", tmp_path / "old", *call) == 0
    columns = ("uri", "audio_etag", "audio_sha256", "clips", "featurized_at")
    before = rows(tmp_path / "features", *columns)

    library = (tmp_path / "old").rename(tmp_path / "new")
    os.utime(library / "touched.wav", (1, 1))
    write_audio(library / "replaced.wav", music(2.0, seed=7), 44_100)  # of the same size
    write_audio(library / "longer.wav", music(3.0, seed=8), 44_100)
    (library / "name.wav").rename(library / "another name.wav")
    capsys.readouterr()
    assert featurize_here("--catalog", library, *call, "--prune", "--prune-limit", 0.5) == 0
    out = capsys.readouterr().out
    assert "5 tracks listed, 5 to do: 4 with another uri, 1 new" in out
    assert "with the audio of an earlier row: 3 tracks" in out
    assert "5 listed = 5 written + 0 unchanged + 0 failed" in out
    after = rows(tmp_path / "features", *columns)
    assert set(after) == {"moved.wav", "touched.wav", "replaced.wav", "longer.wav", "another name.wav"}
    for name, row in after.items():
        earlier = before["name.wav" if name == "another name.wav" else name]
        is_known = name not in ("replaced.wav", "longer.wav")
        assert row["uri"] == str(library / name)
        assert (row["audio_sha256"] == earlier["audio_sha256"]) == is_known
        assert (row["clips"] == earlier["clips"]) == is_known
        assert row["featurized_at"] > earlier["featurized_at"]
    assert featurize_here("--catalog", library, *call) == 0
    assert "5 tracks listed, 0 to do" in capsys.readouterr().out


def test_row_of_renamed_audio_is_not_pruned_before_it_is_copied(tmp_path, featurize_here, capsys, music, write_audio):
    library = tmp_path / "songs"
    library.mkdir()
    write_audio(library / "old.wav", music(2.0), 44_100)
    call = ("--catalog", library, "--features", tmp_path / "features", "--prune", "--prune-limit", 1)
    assert featurize_here(*call) == 0
    (library / "old.wav").rename(library / "new.wav")
    assert featurize_here(*call, "--max-tracks", 0) == 0
    assert set(rows(tmp_path / "features")) == {"old.wav"}
    capsys.readouterr()
    assert featurize_here(*call) == 0
    assert "with the audio of an earlier row: 1 track" in capsys.readouterr().out
    assert set(rows(tmp_path / "features")) == {"new.wav"}


def test_row_is_deleted_if_touched_audio_cannot_be_decoded(tmp_path, featurize_here, music, write_audio):
    path = write_audio(tmp_path / "a.wav", music(1.0), 44_100)
    call = ("--catalog", tmp_path, "--features", tmp_path / "features", "--max-failures", 1)
    assert featurize_here(*call) == 0
    path.write_bytes(bytes(path.stat().st_size))
    assert featurize_here(*call) == 0
    assert rows(tmp_path / "features") == {}
    assert set(failures(tmp_path / "features")) == {"a.wav"}


def test_exhausted_track_is_not_decoded_until_its_audio_changes(tmp_path, featurize_here, capsys, music, write_audio):
    (tmp_path / "bad.wav").write_text("no song")
    catalog = write_catalog(tmp_path / "catalog.csv", "bad.wav", "missing.wav")
    call = ("--catalog", catalog, "--features", tmp_path / "features", "--max-failures", 1, "--max-attempts", 2)
    for n_tried, bad_attempts in ((2, 1), (1, 2), (0, 2), (0, 2)):
        capsys.readouterr()
        assert featurize_here(*call) == 0
        out = capsys.readouterr().out
        assert f"2 tracks listed, {n_tried} to do" in out
        assert ("the file is still missing: 1 listed track" in out) == (n_tried < 2)
        assert ("on the same audio: 1 listed track" in out) == (n_tried < 1)
        assert "2 listed = 0 written + 0 unchanged + 2 failed" in out
        failed = failures(tmp_path / "features")
        assert (failed["bad"]["attempts"], failed["missing"]["attempts"]) == (bad_attempts, 1)
    for name in ("bad", "missing"):
        write_audio(tmp_path / f"{name}.wav", music(1.0), 44_100)
    assert featurize_here(*call) == 0
    assert set(rows(tmp_path / "features")) == {"bad", "missing"}


def test_audio_changed_and_changed_back_has_one_row(tmp_path, featurize_here, music, write_audio):
    path = write_audio(tmp_path / "a.wav", music(1.0), 44_100)
    call = ("--catalog", write_catalog(tmp_path / "catalog.csv", "a.wav"), "--features", tmp_path / "features")
    first, second = path.read_bytes(), write_audio(tmp_path / "other.wav", music(5.0), 44_100).read_bytes()
    stat = path.stat()
    for content, n_clips in ((first, 1), (second, 2), (first, 1)):
        path.write_bytes(content)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert featurize_here(*call) == 0
        assert rows(tmp_path / "features", "n_clips") == {"a": {"n_clips": n_clips}}


def test_row_is_deleted_when_changed_audio_cannot_be_decoded(tmp_path, featurize_here, music, write_audio):
    path = write_audio(tmp_path / "a.wav", music(1.0), 44_100)
    call = ("--catalog", write_catalog(tmp_path / "catalog.csv", "a.wav"), "--features", tmp_path / "features")
    assert featurize_here(*call) == 0
    path.write_text("overwritten")
    assert featurize_here(*call, "--max-failures", 1) == 0
    assert rows(tmp_path / "features") == {}
    assert set(failures(tmp_path / "features")) == {"a"}


def test_two_concurrent_runs_write_each_track_once(tmp_path, music, write_audio):
    """One run has four tracks more, so that the parts differ and both runs write many tracks."""
    names = [f"{number:02}.wav" for number in range(32)]
    first = write_audio(tmp_path / names[0], music(1.0), 44_100)
    for name in names[1:]:
        shutil.copy(first, tmp_path / name)
    catalogs = [write_catalog(tmp_path / "most.csv", *names[4:]), write_catalog(tmp_path / "all.csv", *names)]
    table = tmp_path / "features"
    command = [sys.executable, str(PIPELINE), "--features", str(table), "--catalog"]
    runs = [subprocess.Popen([*command, str(catalog)], stderr=subprocess.PIPE, text=True) for catalog in catalogs]
    for process in runs:
        err = process.communicate(timeout=240)[1]
        assert process.returncode == 0, err
    found = maintenance.verify(str(table), str(catalogs[1]))
    assert (found.n_rows, found.problems) == (32, ())


def test_unlisted_track_is_deleted_only_with_prune(tmp_path, featurize_here, capsys, music, write_audio):
    for name in ("a.wav", "b.wav"):
        write_audio(tmp_path / name, music(1.0), 44_100)
    table = tmp_path / "features"
    call = ("--catalog", write_catalog(tmp_path / "catalog.csv", "a.wav", "b.wav"), "--features", table)
    assert featurize_here(*call) == 0
    write_catalog(tmp_path / "catalog.csv", "a.wav")
    assert featurize_here(*call) == 0
    assert "not listed any more: 1 track, kept" in capsys.readouterr().out
    assert set(rows(table)) == {"a", "b"}
    assert featurize_here(*call, "--prune") == 1
    assert "1 of the 2 tracks in" in capsys.readouterr().err
    assert featurize_here(*call, "--prune", "--prune-limit", 0.5) == 0
    assert "1 listed = 0 written + 1 unchanged + 0 failed" in capsys.readouterr().out
    assert set(rows(table)) == {"a"}
    assert maintenance.verify(str(table), str(tmp_path / "catalog.csv")).problems == ()


class Forbidden(http.server.BaseHTTPRequestHandler):
    """A store that refuses every request, and repeats it in its answer."""

    def refuse(self):
        self.send_error(403, f"Forbidden {self.path}"[:200])

    do_GET = do_HEAD = refuse  # noqa: N815 # the names of http.server

    def log_message(self, *args):
        pass


@pytest.mark.parametrize("length", [10, 3_000])
def test_no_part_of_a_presigned_url_is_written_anywhere(tmp_path, featurize_here, capfd, length):
    secret = "5ecret" + "0" * length
    query = f"X-Amz-Algorithm=AWS4&X-Amz-Credential={secret}1&X-Amz-Security-Token={secret}2&X-Amz-Signature={secret}3"
    with serving(Forbidden) as website:
        uri = f"{website}/a.mp3?{query}"
        (tmp_path / "catalog.csv").write_text(f"track_id,uri\na,{uri}\nb,{uri.replace('http', 'nothing')}\n")
        table = tmp_path / "features"
        assert featurize_here("--catalog", tmp_path / "catalog.csv", "--features", table) == 1
    failures = tables.read_columns(f"{table}-failures", ("track_id", "uri", "message")).to_pylist()
    assert {row["track_id"] for row in failures} == {"a", "b"}
    assert all("X-Amz-Signature=***" in row["uri"] for row in failures)
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != "catalog.csv"]
    assert "5ecret" not in str((failures, capfd.readouterr(), written))


def test_folder_is_a_catalog_and_undecodable_file_name_a_failure(tmp_path, featurize_here, music, write_audio):
    folder = tmp_path / "music"
    folder.mkdir()
    write_audio(folder / "good.wav", music(1.0), 44_100)
    shutil.copy(folder / "good.wav", folder / os.fsdecode(b"caf\xe9.wav"))
    assert featurize_here("--catalog", folder, "--features", tmp_path / "features", "--max-failures", 0.5) == 0
    assert set(rows(tmp_path / "features")) == {"good.wav"}
    [failure] = failures(tmp_path / "features").values()
    assert failure["error"] == "CatalogError"
    assert "not UTF-8" in failure["message"]


def test_another_number_of_clips_per_track_is_refused(tmp_path, featurize_here, capsys, music, write_audio):
    write_audio(tmp_path / "a.flac", music(20.0), 44_100)
    call = ("--catalog", write_catalog(tmp_path / "catalog.csv", "a.flac"), "--features", tmp_path / "features")
    assert featurize_here(*call, "--clips-per-track", 2) == 0
    assert rows(tmp_path / "features", "n_clips")["a"]["n_clips"] == 2
    capsys.readouterr()
    assert featurize_here(*call) == 1
    [error] = capsys.readouterr().err.splitlines()
    assert "holds clips-per-track 2, not all" in error


def test_large_catalog_is_written_in_parts(tmp_path, featurize_here, music, write_audio, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0})
    short = write_audio(tmp_path / "t00.wav", music(0.1), 44_100)
    for number in range(1, 50):
        shutil.copy(short, tmp_path / f"t{number:02}.wav")
    catalog = write_catalog(tmp_path / "catalog.csv", *(f"t{number:02}.wav" for number in range(50)))
    assert featurize_here("--catalog", catalog, "--features", tmp_path / "features") == 0
    assert len(rows(tmp_path / "features")) == 50
    assert len(list((tmp_path / "features").glob("part-*.parquet"))) == PARTS_PER_WORKER


def test_features_of_other_settings_are_refused(tmp_path, featurize_here, capsys, music, write_audio):
    write_audio(tmp_path / "a.wav", music(1.0), 44_100)
    open_features(str(tmp_path / "features"), FeatureConfig(n_mels=48), None)
    catalog = write_catalog(tmp_path / "catalog.csv", "a.wav")
    assert featurize_here("--catalog", catalog, "--features", tmp_path / "features") == 1
    [error] = capsys.readouterr().err.splitlines()
    assert "n_mels 48 there, 96 here" in error


def test_missing_catalog_is_refused_before_a_table_is_created(tmp_path, featurize_here, capsys):
    assert featurize_here("--catalog", tmp_path / "none.csv", "--features", tmp_path / "features") == 2
    [error] = capsys.readouterr().err.splitlines()
    assert "none.csv" in error
    assert not (tmp_path / "features").exists()


@pytest.mark.parametrize("option", ["--clips-per-track=0", "--clips-per-track=x", "--max-failures=2"])
def test_invalid_option_value_exits_2(featurize_here, capsys, option):
    with pytest.raises(SystemExit) as caught:
        featurize_here(option)
    assert caught.value.code == 2
    assert option.partition("=")[0] in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--featurez=x"], ["--direct_worker", "3"]])
def test_unknown_option_is_refused(tmp_path, featurize_here, capsys, option):
    assert featurize_here("--features", tmp_path / "features", *option) == 2
    assert f"unknown option {option[0].partition('=')[0]}" in capsys.readouterr().err
    assert not (tmp_path / "features").exists()


def test_positional_argument_is_refused(tmp_path, featurize_here, capsys):
    assert featurize_here("--features", tmp_path / "features", "--runner", "DirectRunner", "music/") == 2
    assert "'music/' belongs to no option" in capsys.readouterr().err
    assert not (tmp_path / "features").exists()
