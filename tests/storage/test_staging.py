"""Manifests of parts, and the runs that left them."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from musictag.errors import BrokenManifestError
from musictag.storage import data_files, heartbeats, staging
from sample_tables import SCHEMA, ended_runs, make_table, rows


@pytest.fixture
def uri(tmp_path):
    return make_table(tmp_path)


def manifest_of(uri, *track_ids, run="r1", shard=3, part=7, **fields):
    files = data_files.write_rows(uri, SCHEMA, rows(*track_ids))
    failures = ({"track_id": "bad", "attempts": 1},)
    return staging.Manifest(run, shard, part, "hash", tuple(files), failures, 1.5, **fields)


def test_manifest_is_read_as_it_was_written(uri):
    manifest = manifest_of(uri, "a", "b")
    staging.write_manifest(uri, manifest)
    (path,) = staging.manifest_paths(uri, "r1")
    assert staging.read_manifest(uri, path) == manifest
    assert manifest.n_tracks == 3
    assert staging.staged_parts(uri, "r1", 3) == {7}
    assert staging.staged_parts(uri, "r1", 4) == staging.staged_parts(uri, "r2", 3) == set()
    assert list(staging.staged_files(uri)) == [file.path for file in manifest.files]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: text[:-10], "not the manifest of a part"),
        (lambda text: b"", "not the manifest of a part"),
        (lambda text: b"[1]", "not the manifest of a part"),
        (lambda text: text.replace(b'"core_seconds"', b'"x"'), "not the manifest of a part"),
        (lambda text: text.replace(b'"r1"', b'"r2"'), "is the manifest of another part, of run r2"),
        (lambda text: text.replace(b'"part-', b'"lost-'), "which is missing or has another size"),
    ],
)
def test_broken_manifest_is_an_error_that_names_it(uri, change, reason):
    staging.write_manifest(uri, manifest_of(uri, "a"))
    (path,) = staging.manifest_paths(uri, "r1")
    file = Path(uri) / path
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(BrokenManifestError, match=f"{path}.*{reason}"):
        staging.read_manifest(uri, path)


def test_manifest_of_a_file_that_was_cut_is_broken(uri):
    manifest = manifest_of(uri, "a")
    staging.write_manifest(uri, manifest)
    file = Path(uri) / manifest.files[0].path
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(BrokenManifestError, match=file.name):
        staging.read_manifest(uri, staging.manifest_paths(uri, "r1")[0])


def test_a_deleted_run_leaves_the_others(uri):
    for run in ("r1", "r2"):
        staging.write_manifest(uri, manifest_of(uri, "a", run=run))
    staging.delete_run(uri, "r1")
    staging.delete_run(uri, "r1")
    assert staging.manifest_paths(uri, "r1") == []
    assert len(staging.manifest_paths(uri, "r2")) == 1


def test_the_run_of_this_process_is_running_until_its_body_ends(uri):
    with heartbeats.running(uri, "r2"):
        with heartbeats.running(uri, "r1"):
            staging.write_manifest(uri, manifest_of(uri, "a"))
            assert ended_runs(uri) == []
        assert ended_runs(uri) == ["r1"]


def test_the_driver_file_is_written_again_and_again(uri, monkeypatch):
    monkeypatch.setattr(heartbeats, "WRITE_S", 0.01)
    with heartbeats.running(uri, "r1"):
        file = Path(uri) / staging.FOLDER / "r1" / "driver"
        file.write_text("")
        for _ in range(1_000):
            if file.read_text():
                break
            time.sleep(0.01)
        assert file.read_text()


KILLED_DRIVER = """
import os, sys
from musictag.storage import heartbeats
with heartbeats.running(*sys.argv[1:]):
    os._exit(9)
"""


def test_the_run_of_a_killed_process_has_ended(uri):
    assert subprocess.run([sys.executable, "-c", KILLED_DRIVER, uri, "r1"], check=False).returncode == 9
    assert ended_runs(uri) == ["r1"]


def test_a_run_without_a_driver_file_has_ended(uri):
    staging.write_manifest(uri, manifest_of(uri, "a"))
    assert ended_runs(uri) == ["r1"]


@pytest.mark.parametrize("content", [b"", b"not json", json.dumps({"machine": "m", "pid": 1, "started": 0}).encode()])
@pytest.mark.parametrize("is_running", [True, False])
def test_the_driver_of_another_machine_is_watched(uri, monkeypatch, content, is_running):
    monkeypatch.setattr(heartbeats, "ENDED_S", 5.0)
    monkeypatch.setattr(
        heartbeats.time, "sleep", lambda seconds: is_running and staging.write_file(uri, path, b"again")
    )
    monkeypatch.setattr(heartbeats.time, "monotonic", iter(range(1_000)).__next__)
    path = f"{staging.FOLDER}/r1/driver"
    staging.write_file(uri, path, content)
    assert ended_runs(uri) == ([] if is_running else ["r1"])
