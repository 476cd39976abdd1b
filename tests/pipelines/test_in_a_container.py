"""Jobs in a container or behind a company's proxy: no file is left, no signal ignored, no proxy asked for localhost."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from musictag.storage import tables

PIPELINES = Path(__file__).parents[2] / "pipelines"
pytestmark = pytest.mark.slow


@pytest.fixture
def songs(tmp_path: Path, music, write_audio) -> Path:
    folder = tmp_path / "songs"
    folder.mkdir()
    path = write_audio(folder / "0.flac", music(20.0, 16_000), 16_000)
    for n in range(1, 300):
        os.link(path, folder / f"{n}.flac")
    return folder


def featurize(songs: Path, *prefix: str, **environment: str) -> "subprocess.Popen[str]":
    command = [*prefix, sys.executable, str(PIPELINES / "featurize.py"), "--runner=DirectRunner", "--catalog",
               str(songs), "--features", str(songs.with_name("features"))]  # fmt: skip
    return subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_proxy_is_not_asked_for_this_machine_and_no_temporary_file_is_left(songs: Path, tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    nobody = "http://127.0.0.1:9"
    process = featurize(songs, http_proxy=nobody, https_proxy=nobody, TMPDIR=str(temporary))
    _, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert len(tables.track_ids(str(tmp_path / "features"))) == 300
    assert list(temporary.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root and unshare, to be process 1")
def test_process_1_ends_after_sigterm_with_its_workers(songs: Path, tmp_path: Path) -> None:
    process = featurize(songs, "unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    features = tmp_path / "features"
    while not any(features.glob("_staged/*/*/*.json")):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    first, *_ = psutil.Process(process.pid).children()
    workers = first.children(recursive=True)
    assert workers
    started = time.monotonic()
    first.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=300)
    assert time.monotonic() - started < 10  # seconds on a busy machine; Kubernetes waits 30 s
    assert process.returncode == 143
    assert "stopped by SIGTERM; what is committed stays" in err
    assert "Traceback" not in err
    psutil.wait_procs(workers, timeout=5)
    assert not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers)
    again = featurize(songs)
    out, err = again.communicate(timeout=200)
    assert again.returncode == 0, err
    assert "300 tracks listed, 300 to do" not in out
    assert "300 listed = " in out
