import json
import socket
import subprocess
import sys
import time

import pytest
import s3fs

from musictag.jobs import maintenance
from musictag.storage import tables


def rows(uri, *columns):
    return {row.pop("track_id"): row for row in tables.read_columns(uri, ("track_id", *columns)).to_pylist()}


@pytest.fixture
def s3(monkeypatch):
    """A bucket on an S3 server on this machine; environment variables name it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # A separate process: a client in this one may hold the lock that a server thread needs to answer.
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not answers(port):
        assert server.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    filesystem = s3fs.S3FileSystem(skip_instance_cache=True)
    filesystem.mkdir("music")
    yield filesystem
    server.kill()
    server.wait()


def answers(port):
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_catalog_audio_and_features_on_s3(s3, tmp_path, script, featurize_here, capsys, music, write_audio):
    for name, seconds in (("a.flac", 1.0), ("b.mp3", 4.0)):
        s3.put(str(write_audio(tmp_path / name, music(seconds), 44_100)), f"music/songs/{name}")
    lines = [{"track_id": name, "uri": f"songs/{name}"} for name in ("a.flac", "b.mp3", "missing.mp3")]
    s3.pipe("music/catalog.jsonl", "\n".join(map(json.dumps, lines)).encode())
    call = ("--catalog", "s3://music/catalog.jsonl", "--features", "s3://music/features", "--max-failures", 0.5)
    command = [sys.executable, script("featurize").__file__, "--runner=DirectRunner", *map(str, call)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert "3 listed = 2 written + 0 unchanged + 1 failed" in done.stdout
    found = rows("s3://music/features", "uri", "n_clips", "audio_etag")
    assert {track_id: row["n_clips"] for track_id, row in found.items()} == {"a.flac": 1, "b.mp3": 2}
    assert found["b.mp3"]["uri"] == "s3://music/songs/b.mp3"
    assert found["b.mp3"]["audio_etag"] == s3.info("music/songs/b.mp3")["ETag"].strip('"')
    assert rows("s3://music/features-failures", "error")["missing.mp3"]["error"] == "AudioUnreachableError"

    s3.put(str(write_audio(tmp_path / "a.flac", music(7.0), 44_100)), "music/songs/a.flac")
    capsys.readouterr()
    assert featurize_here(*call) == 0
    assert "3 listed = 1 written + 1 unchanged + 1 failed" in capsys.readouterr().out
    assert rows("s3://music/features", "n_clips")["a.flac"]["n_clips"] == 3
    assert maintenance.verify("s3://music/features", "s3://music/catalog.jsonl").problems == ()
