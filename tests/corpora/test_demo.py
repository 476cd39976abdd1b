import csv
import itertools
from collections import Counter

import numpy as np
import pytest
import soundfile

from musictag.corpora.band import arrange
from musictag.corpora.demo import main, make_demo, plan_demo
from musictag.errors import UsageError
from musictag.jobs.entry_point import run_main

pytestmark = pytest.mark.slow

# 6 songs are enough to use every file type.
SMALL = {"n_tracks": 6, "seconds": 2.5, "seed": 7}


def read_catalog(path):
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def waveforms(catalog):
    return {row["track_id"]: soundfile.read(catalog.parent / row["uri"]) for row in read_catalog(catalog)}


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    return make_demo(tmp_path_factory.mktemp("demo"), workers=1, **SMALL)


def test_catalog_has_a_tagged_row_per_song(catalog):
    rows = read_catalog(catalog)
    assert list(rows[0]) == ["track_id", "uri", "artist", "album", "title", "tags"]
    assert [row["track_id"] for row in rows] == [f"{i:04d}" for i in range(6)]
    assert all(all(row.values()) for row in rows)
    assert {row["uri"].rpartition(".")[2] for row in rows} == {"ogg", "mp3", "flac"}


def test_songs_are_audible_unclipped_and_have_the_length(catalog):
    for waveform, sample_rate in waveforms(catalog).values():
        assert len(waveform) / sample_rate == pytest.approx(2.5, abs=0.06)
        assert np.sqrt(np.mean(waveform**2)) > 0.003
        assert 0.05 < np.abs(waveform).max() < 1


def test_number_of_workers_does_not_change_the_audio(catalog, tmp_path):
    other = make_demo(tmp_path, workers=2, **SMALL)
    assert other.read_text() == catalog.read_text()
    for track_id, (waveform, sample_rate) in waveforms(other).items():
        expected, expected_rate = waveforms(catalog)[track_id]
        assert sample_rate == expected_rate
        np.testing.assert_array_equal(waveform, expected)


def test_finished_demo_is_left_alone(tmp_path):
    made = make_demo(tmp_path, workers=1, **SMALL)
    files = [made, *sorted((tmp_path / "audio").iterdir())]
    times = [path.stat().st_mtime_ns for path in files]
    make_demo(tmp_path, workers=1, **SMALL)
    assert [path.stat().st_mtime_ns for path in files] == times


def test_plan_repeats_no_tune_and_gives_artists_three_to_six_songs():
    songs = plan_demo(n_tracks=400, seconds=15.0, seed=0)
    assert len({song.tune.notes for song in songs}) == len({song.tune.tune_id for song in songs}) == 400
    artists = [song.artist for song in songs]
    assert {artists.count(artist) for artist in artists} <= {3, 4, 5, 6}


def test_larger_catalog_begins_with_the_tunes_of_a_smaller_one():
    small, large = (plan_demo(n_tracks=n, seconds=1.0, seed=0) for n in (5, 9))
    assert [song.tune for song in small] == [song.tune for song in large[:5]]


def test_every_tag_has_enough_songs():
    songs = plan_demo(n_tracks=400, seconds=15.0, seed=0)
    tags = [arrange(song.tune, song.rng(), seconds=15.0).tags for song in songs]
    counts = Counter(itertools.chain.from_iterable(tags))
    assert len(counts) == 23
    assert min(counts.values()) >= 0.08 * len(songs), counts


@pytest.mark.parametrize(
    "change", [{"n_tracks": 0}, {"n_tracks": 5000}, {"seconds": 0.0}, {"seed": -1}, {"workers": 0}]
)
def test_invalid_arguments_are_usage_errors(tmp_path, change):
    with pytest.raises(UsageError, match=next(iter(change))):
        make_demo(tmp_path, **{"workers": 1, **change})


def test_command_line_prints_count_and_path(tmp_path, capsys):
    assert run_main(main, [str(tmp_path), "--n-tracks", "1"]) == 0
    assert capsys.readouterr().out == f"1 songs: {tmp_path / 'catalog.csv'}\n"
    assert run_main(main, [str(tmp_path), "--n-tracks", "0"]) == 2
    assert "n_tracks=0" in capsys.readouterr().err
