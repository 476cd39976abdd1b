import csv
import dataclasses

import numpy as np
import pytest
import soundfile

from musictag.corpora.essen import Tune
from musictag.corpora.songs import Song, check_arguments, draw_tunes, write_catalog
from musictag.errors import UsageError

TUNES = [
    Tune(f"C{i}", f"Tune {i}", "", ("haozi", "wuge")[i % 2], ("3/4", "2/4")[i % 2], 0, ((60, 1.0),)) for i in range(200)
]
SONGS = [Song(1, index, tune, "Somebody", 0.5, 0) for index, tune in enumerate(TUNES[:8])]


def noise(song):
    _, sample_rate, channels = song.encoding
    return song.rng().uniform(-0.5, 0.5, (round(song.seconds * sample_rate), channels)).astype(np.float32)


def test_the_catalog_names_songs_in_every_encoding(tmp_path):
    tags = [("a", "b"), *[()] * 7]
    catalog = write_catalog(tmp_path, SONGS, tags, noise, workers=1)
    with catalog.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert rows[0]["tags"] == "a;b"
    assert rows[0]["album"] == "Folk songs of China"
    for row, song in zip(rows, SONGS, strict=True):
        sound = soundfile.info(tmp_path / row["uri"])
        assert (sound.samplerate, sound.channels) == song.encoding[1:]
    assert len({song.encoding for song in SONGS}) == 7


def test_new_tags_rewrite_the_catalog_and_no_audio(tmp_path):
    write_catalog(tmp_path, SONGS[:2], [("a",), ("b",)], noise, workers=1)

    def fail(song):
        raise AssertionError(song.uri)

    catalog = write_catalog(tmp_path, SONGS[:2], [("a",), ("c",)], fail, workers=1)
    assert catalog.read_text().endswith("c\n")


@pytest.mark.parametrize("change", [{"version": 2}, {"index": 8}, {"tune": TUNES[9]}, {"seconds": 1.0}, {"seed": 1}])
def test_whatever_changes_the_audio_changes_its_name(change):
    assert dataclasses.replace(SONGS[0], **change).uri != SONGS[0].uri


def test_no_two_songs_share_their_chance():
    assert SONGS[0].rng().random() == SONGS[0].rng().random() != SONGS[1].rng().random()


def test_a_draw_repeats_no_tune_begins_with_a_shorter_one_and_prefers_rare_kinds():
    drawn = draw_tunes(TUNES, n_tracks=60, seed=3)
    assert len({tune.tune_id for tune in drawn}) == 60
    assert drawn[:20] == draw_tunes(TUNES, n_tracks=20, seed=3)
    assert drawn != draw_tunes(TUNES, n_tracks=60, seed=4)
    assert sum(tune.metre == "3/4" for tune in drawn) > 40
    with pytest.raises(UsageError, match="only 200 distinct tunes"):
        draw_tunes(TUNES, n_tracks=201, seed=0)


@pytest.mark.parametrize("change", [{"n_tracks": 0}, {"seconds": 0.0}, {"seed": -1}, {"workers": 0}])
def test_impossible_arguments_are_named(change):
    possible = {"n_tracks": 1, "seconds": 1.0, "seed": 0, "workers": None}
    check_arguments(**possible)
    (name,) = change
    with pytest.raises(UsageError, match=f"{name}={change[name]}"):
        check_arguments(**{**possible, **change})
