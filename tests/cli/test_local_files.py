import os
from pathlib import Path

import numpy as np
import pytest

from musictag.catalog.reader import read_catalog
from musictag.cli import local_files
from musictag.errors import AudioEmptyError, AudioError, AudioUnreachableError
from musictag.features import extract
from musictag.features.config import FeatureConfig

CONFIG = FeatureConfig()


def test_folder_yields_the_files_of_its_catalog(tmp_path):
    for name in ("b/2.MP3", "b/10.ogg", "a.flac", "b/cover.jpg", "b/.hidden.mp3", ".git/c.mp3", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found, left_out = local_files.find([tmp_path])
    assert left_out == {"hidden": 2, ".jpg": 1, ".txt": 1}
    assert found == [tmp_path / name for name in ("a.flac", "b/10.ogg", "b/2.MP3")]
    assert list(map(str, found)) == read_catalog(str(tmp_path)).tracks["uri"].to_pylist()
    named = [tmp_path / "notes.txt", tmp_path / "missing.mp3"]
    assert local_files.find([*named, tmp_path / "b"])[0] == [*named, *found[1:]]


def test_relative_paths_stay_relative(tmp_path, monkeypatch):
    (tmp_path / "music").mkdir()
    (tmp_path / "music/a.mp3").touch()
    monkeypatch.chdir(tmp_path)
    assert local_files.find([Path("music")])[0] == [Path("music/a.mp3")]
    assert local_files.find([Path()])[0] == [Path("music/a.mp3")]


def test_folder_without_music_is_an_error(tmp_path):
    assert local_files.find([tmp_path])[0] == [tmp_path]
    with pytest.raises(AudioUnreachableError, match=r"the folder holds no audio file \(.*\.mp3"):
        local_files.read(tmp_path, CONFIG)


def test_read_returns_clips_and_their_starts(tmp_path, music, write_audio):
    path = write_audio(tmp_path / "Artist :: a song.wav", music(7.0), 44_100)
    track = local_files.read(path, CONFIG)
    np.testing.assert_array_equal(track.clips, extract.track_clips(path, "a", CONFIG)[0])
    assert track.start_s == pytest.approx([0, 2.992, 5.984])
    assert track.duration_s == pytest.approx(7.0)
    assert len(local_files.read(path, CONFIG, 2).clips) == 2


def test_unreadable_file_is_an_error_with_its_reason(tmp_path):
    (tmp_path / "empty.mp3").touch()
    with pytest.raises(AudioEmptyError, match=r"empty.mp3: the file is empty \(0 bytes\)"):
        local_files.read(tmp_path / "empty.mp3", CONFIG)
    with pytest.raises(AudioUnreachableError, match=r"missing.mp3: cannot be read: No such file"):
        local_files.read(tmp_path / "missing.mp3", CONFIG)
    with pytest.raises(AudioUnreachableError, match="cannot be read: File name too long"):
        local_files.read(local_files.find([tmp_path / ("long" * 100)])[0][0], CONFIG)


def test_name_that_is_not_utf8_is_refused(tmp_path, music, write_audio):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav"))
    write_audio(tmp_path / "a.wav", music(1.0), 44_100).rename(path)
    assert local_files.find([tmp_path])[0] == [path]
    assert local_files.path_text(path) == f"{tmp_path}/caf\\xe9.wav"
    with pytest.raises(AudioUnreachableError, match="the file name is not UTF-8; rename it") as caught:
        local_files.read(path, CONFIG)
    assert str(caught.value).startswith(local_files.path_text(path))
    assert local_files.path_text(Path("爵士 café.mp3")) == "爵士 café.mp3"


def test_files_come_in_order_and_few_are_read_ahead(tmp_path, music, write_audio):
    paths = [tmp_path / f"{n}.wav" for n in range(12)]
    for path in paths:
        write_audio(path, music(0.1), 8_000)
    paths[3].write_bytes(b"broken")
    started = []

    def iter_paths():
        for path in paths:
            started.append(path)
            yield path

    for n, (path, track) in enumerate(local_files.read_ahead(iter_paths(), CONFIG, None)):
        assert path == paths[n]
        assert isinstance(track, AudioError if n == 3 else local_files.DecodedTrack)
        assert len(started) <= n + 1 + local_files.DECODED_AHEAD
    assert started == paths
