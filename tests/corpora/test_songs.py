import csv
import dataclasses

import numpy as np
import pytest
import soundfile

from musictag.corpora.essen import Tune
from musictag.corpora.songs import Song, check_arguments, sample_tunes, write_catalog
from musictag.errors import UsageError

TUNES = [
    Tune(f"C{i}", f"Tune {i}", "", ("haozi", "wuge")[i % 2], ("3/4", "2/4")[i % 2], ((60, 1.0),)) for i in range(200)
]
SONGS = [Song(1, index, tune, "Somebody", 0.5, 0) for index, tune in enumerate(TUNES[:8])]
TAGS = [("a", "b"), *[("c",)] * 7]


def noise(song):
    _, sample_rate, channels = song.encoding
    return song.rng().uniform(-0.5, 0.5, (round(song.seconds * sample_rate), channels)).astype(np.float32)


class NoiseRenderer:
    """Render noise, remember the rendered songs, and raise `KeyboardInterrupt` after `limit` songs."""

    def __init__(self, limit=1000):
        self.limit = limit
        self.rendered = []

    def __call__(self, song):
        if len(self.rendered) == self.limit:
            raise KeyboardInterrupt
        self.rendered.append(song.index)
        return noise(song)


def test_catalog_lists_songs_in_every_encoding(tmp_path):
    catalog = write_catalog(tmp_path, SONGS, TAGS, noise, workers=1)
    with catalog.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert rows[0]["tags"] == "a;b"
    assert rows[0]["album"] == "Folk songs of China"
    for row, song in zip(rows, SONGS, strict=True):
        sound = soundfile.info(tmp_path / row["uri"])
        assert (sound.samplerate, sound.channels) == song.encoding[1:]
    assert len({song.encoding for song in SONGS}) == 7


def test_finished_catalog_is_not_written_again(tmp_path):
    catalog = write_catalog(tmp_path, SONGS, TAGS, noise, workers=1)
    files = [catalog, *sorted((tmp_path / "audio").iterdir())]
    times = [path.stat().st_mtime_ns for path in files]
    renderer = NoiseRenderer()
    write_catalog(tmp_path, SONGS, TAGS, renderer, workers=1)
    assert renderer.rendered == []
    assert [path.stat().st_mtime_ns for path in files] == times


def test_only_missing_songs_are_rendered(tmp_path):
    catalog = write_catalog(tmp_path, SONGS, TAGS, noise, workers=1)
    text = catalog.read_text()
    catalog.unlink()
    (tmp_path / SONGS[2].uri).unlink()
    renderer = NoiseRenderer()
    write_catalog(tmp_path, SONGS, TAGS, renderer, workers=1)
    assert renderer.rendered == [2]
    assert catalog.read_text() == text


def test_interrupted_run_leaves_no_catalog_and_no_incomplete_song(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write_catalog(tmp_path, SONGS, TAGS, NoiseRenderer(limit=2), workers=1)
    assert not (tmp_path / "catalog.csv").exists()
    assert sorted(path.name for path in (tmp_path / "audio").iterdir()) == sorted(
        song.uri.removeprefix("audio/") for song in SONGS[:2]
    )


def test_new_tags_rewrite_the_catalog_but_no_audio(tmp_path):
    write_catalog(tmp_path, SONGS[:2], [("a",), ("b",)], noise, workers=1)
    renderer = NoiseRenderer()
    catalog = write_catalog(tmp_path, SONGS[:2], [("a",), ("c",)], renderer, workers=1)
    assert catalog.read_text().endswith("c\n")
    assert renderer.rendered == []


def test_other_songs_replace_audio_but_no_other_files(tmp_path):
    write_catalog(tmp_path, SONGS[:2], TAGS[:2], noise, workers=1)
    (tmp_path / "audio" / "mine.mp3").write_bytes(b"keep me")
    write_catalog(tmp_path, SONGS[2:3], TAGS[2:3], noise, workers=1)
    assert {path.name for path in (tmp_path / "audio").iterdir()} == {
        "mine.mp3",
        SONGS[2].uri.removeprefix("audio/"),
    }


@pytest.mark.parametrize("change", [{"version": 2}, {"index": 8}, {"tune": TUNES[9]}, {"seconds": 1.0}, {"seed": 1}])
def test_uri_depends_on_every_field_that_changes_the_audio(change):
    assert dataclasses.replace(SONGS[0], **change).uri != SONGS[0].uri


def test_songs_have_different_random_generators():
    assert SONGS[0].rng().random() == SONGS[0].rng().random() != SONGS[1].rng().random()


def test_sample_repeats_no_tune_extends_shorter_samples_and_prefers_rare_kinds():
    sample = sample_tunes(TUNES, n_tracks=60, seed=3)
    assert len({tune.tune_id for tune in sample}) == 60
    assert sample[:20] == sample_tunes(TUNES, n_tracks=20, seed=3)
    assert sample != sample_tunes(TUNES, n_tracks=60, seed=4)
    assert sum(tune.metre == "3/4" for tune in sample) > 40
    with pytest.raises(UsageError, match="only 200 distinct tunes"):
        sample_tunes(TUNES, n_tracks=201, seed=0)


@pytest.mark.parametrize("change", [{"n_tracks": 0}, {"seconds": 0.0}, {"seed": -1}, {"workers": 0}])
def test_invalid_arguments_are_named(change):
    valid = {"n_tracks": 1, "seconds": 1.0, "seed": 0, "workers": None}
    check_arguments(**valid)
    (name,) = change
    with pytest.raises(UsageError, match=f"{name}={change[name]}"):
        check_arguments(**{**valid, **change})
