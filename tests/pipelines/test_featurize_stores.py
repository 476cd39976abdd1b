import json
import subprocess
import sys

import pytest

from musictag.jobs import maintenance
from musictag.storage import etags, tables
from object_stores import STORES, put


def rows(uri, *columns):
    return {row.pop("track_id"): row for row in tables.read_columns(uri, ("track_id", *columns)).to_pylist()}


@pytest.fixture(params=["moto", "azurite", "google"])
def store(request, tmp_path_factory, monkeypatch):
    """The URL of a bucket on a server on this machine; environment variables name the server."""
    with STORES[request.param](tmp_path_factory.mktemp("store"), monkeypatch) as uri:
        yield uri


def test_catalog_audio_and_features_in_a_store(store, tmp_path, script, featurize_here, capsys, music, write_audio):
    for name, seconds in (("a.flac", 1.0), ("b.mp3", 4.0)):
        put(f"{store}/songs/{name}", write_audio(tmp_path / name, music(seconds), 44_100).read_bytes())
    lines = [{"track_id": name, "uri": f"songs/{name}"} for name in ("a.flac", "b.mp3", "missing.mp3")]
    put(f"{store}/catalog.jsonl", "\n".join(map(json.dumps, lines)).encode())
    call = ("--catalog", f"{store}/catalog.jsonl", "--features", f"{store}/features", "--max-failures", 0.5)
    command = [sys.executable, script("featurize").__file__, "--runner=DirectRunner", *map(str, call)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert "3 listed = 2 written + 0 unchanged + 1 failed" in done.stdout
    found = rows(f"{store}/features", "uri", "n_clips", "audio_etag")
    assert {track_id: row["n_clips"] for track_id, row in found.items()} == {"a.flac": 1, "b.mp3": 2}
    assert found["b.mp3"]["uri"] == f"{store}/songs/b.mp3"
    assert found["b.mp3"]["audio_etag"] == etags.audio_etag(f"{store}/songs/b.mp3")
    assert rows(f"{store}/features-failures", "error")["missing.mp3"]["error"] == "AudioMissingError"

    put(f"{store}/songs/a.flac", write_audio(tmp_path / "a.flac", music(7.0), 44_100).read_bytes())
    capsys.readouterr()
    assert featurize_here(*call) == 0
    assert "3 listed = 1 written + 1 unchanged + 1 failed" in capsys.readouterr().out
    assert rows(f"{store}/features", "n_clips")["a.flac"]["n_clips"] == 3
    assert maintenance.verify(f"{store}/features", f"{store}/catalog.jsonl").problems == ()
