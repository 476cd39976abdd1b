"""Nights that are killed, and two at once: the next one does the rest, and no track is there twice."""

import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from musictag.jobs import maintenance
from musictag.models.published import pretrained
from nights import Library


@pytest.fixture
def library(tmp_path: Path, write_audio: Any, music: Any, empty_mlflow: Path) -> Library:
    pretrained.find("mtt-musicnn")
    (tmp_path / "mlflow.db").write_bytes(empty_mlflow.read_bytes())
    return Library(tmp_path, write_audio, music)


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_night_that_is_stopped_is_finished_by_the_next(library: Library, ending: signal.Signals) -> None:
    library.add(*map(str, range(60)))
    process = library.start()
    while not any((library.folder / "features").glob("_staged/*/*/*.json")):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(ending)
    process.communicate(timeout=60)
    assert process.returncode == (143 if ending == signal.SIGTERM else -9)
    if ending == signal.SIGKILL:
        for child in children:
            if child.is_running():
                child.kill()
    library.night()
    assert library.tagged() == set(map(str, range(60)))


def test_two_nights_at_once_leave_each_track_once(library: Library) -> None:
    library.add(*map(str, range(30)))
    first, second = library.start(), library.start()
    ended = [process.communicate(timeout=280) for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], ended
    assert library.tagged() == set(map(str, range(30)))
    for table in ("features", "tags"):
        assert maintenance.verify(str(library.folder / table)).problems == ()
