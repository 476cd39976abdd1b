import csv
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from musictag.corpora import demo
from musictag.corpora.demo import main, make_demo, plan_demo
from musictag.errors import UsageError
from musictag.jobs.process import run_main

# 6 songs are enough for every encoding to occur.
SMALL = {"n_tracks": 6, "seconds": 2.5, "seed": 7}


def read_catalog(path):
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def waveforms(catalog):
    return {row["track_id"]: soundfile.read(catalog.parent / row["uri"]) for row in read_catalog(catalog)}


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    return make_demo(tmp_path_factory.mktemp("demo"), workers=1, **SMALL)


def test_the_catalog_has_its_columns_and_a_tagged_row_per_song(catalog):
    rows = read_catalog(catalog)
    assert list(rows[0]) == ["track_id", "uri", "artist", "album", "title", "tags"]
    assert [row["track_id"] for row in rows] == [f"{i:04d}" for i in range(6)]
    assert all(all(row.values()) for row in rows)
    assert {row["uri"].rpartition(".")[2] for row in rows} == {"ogg", "mp3", "flac"}


def test_every_song_is_audible_unclipped_and_as_long_as_asked(catalog):
    for waveform, sample_rate in waveforms(catalog).values():
        assert len(waveform) / sample_rate == pytest.approx(2.5, abs=0.06)
        assert np.sqrt(np.mean(waveform**2)) > 0.005
        assert 0.2 < np.abs(waveform).max() < 1


def test_the_number_of_workers_changes_no_sample(catalog, tmp_path):
    other = make_demo(tmp_path, workers=2, **SMALL)
    assert other.read_text() == catalog.read_text()
    for track_id, (waveform, sample_rate) in waveforms(other).items():
        expected, expected_rate = waveforms(catalog)[track_id]
        assert sample_rate == expected_rate
        np.testing.assert_array_equal(waveform, expected)


@pytest.fixture
def rendered(monkeypatch):
    """How many songs were rendered; a song past `limit` is interrupted."""
    counter = SimpleNamespace(songs=0, limit=1000)

    def render(*args, **kwargs):
        if counter.songs == counter.limit:
            raise KeyboardInterrupt
        counter.songs += 1
        return original(*args, **kwargs)

    original = demo.render
    monkeypatch.setattr(demo, "render", render)
    return counter


def test_a_finished_catalog_is_left_alone_and_a_half_made_one_is_finished(catalog, tmp_path, rendered):
    made = make_demo(tmp_path, workers=1, **SMALL)
    files = sorted((tmp_path / "audio").iterdir())
    times = [path.stat().st_mtime_ns for path in files]
    make_demo(tmp_path, workers=1, **SMALL)
    assert rendered.songs == 6

    made.unlink()
    files[2].unlink()
    make_demo(tmp_path, workers=1, **SMALL)
    assert rendered.songs == 7
    assert made.read_text() == catalog.read_text()
    assert [path.stat().st_mtime_ns == time for path, time in zip(files, times, strict=True)] == [
        i != 2 for i in range(6)
    ]


def test_a_run_that_breaks_off_leaves_no_catalog_and_no_broken_song(tmp_path, rendered):
    rendered.limit = 2
    with pytest.raises(KeyboardInterrupt):
        make_demo(tmp_path, workers=1, **SMALL)
    assert not (tmp_path / "catalog.csv").exists()
    assert len(list((tmp_path / "audio").iterdir())) == 2


def test_other_arguments_replace_the_catalog_and_its_audio_but_no_other_file(tmp_path):
    make_demo(tmp_path, n_tracks=2, seconds=1.0, workers=1)
    (tmp_path / "audio" / "mine.mp3").write_bytes(b"keep me")
    made = make_demo(tmp_path, n_tracks=1, seconds=1.0, seed=1, workers=1)
    (row,) = read_catalog(made)
    assert {path.name for path in (tmp_path / "audio").iterdir()} == {"mine.mp3", row["uri"].removeprefix("audio/")}


def test_the_whole_plan_repeats_no_tune_and_gives_each_artist_three_to_six_songs():
    tracks = plan_demo(n_tracks=400, seconds=15.0, seed=0)
    assert len({track.tune.notes for track in tracks}) == len({track.tune.tune_id for track in tracks}) == 400
    artists = [track.artist for track in tracks]
    assert {artists.count(artist) for artist in artists} <= {3, 4, 5, 6}


def test_a_larger_catalog_begins_with_the_tunes_of_a_smaller_one():
    small, large = (plan_demo(n_tracks=n, seconds=1.0, seed=0) for n in (5, 9))
    assert [track.tune for track in small] == [track.tune for track in large[:5]]


def test_every_tag_of_the_default_catalog_has_enough_songs():
    tracks = plan_demo(n_tracks=400, seconds=15.0, seed=0)
    songs = [demo.arrange(track.tune, track.rng(), seconds=15.0) for track in tracks]
    counts = {tag: sum(tag in song.tags for song in songs) for song in songs for tag in song.tags}
    assert len(counts) == 19
    assert min(counts.values()) >= 0.08 * len(songs), counts


@pytest.mark.parametrize(
    "change", [{"n_tracks": 0}, {"n_tracks": 5000}, {"seconds": 0.0}, {"seed": -1}, {"workers": 0}]
)
def test_impossible_arguments_are_usage_errors(tmp_path, change):
    with pytest.raises(UsageError, match=next(iter(change))):
        make_demo(tmp_path, **{"workers": 1, **change})


def test_the_command_line_says_what_it_made_and_where(tmp_path, capsys):
    assert run_main(main, [str(tmp_path), "--n-tracks", "1"]) == 0
    assert capsys.readouterr().out == f"1 songs: {tmp_path / 'catalog.csv'}\n"
    assert run_main(main, [str(tmp_path), "--n-tracks", "0"]) == 2
    assert "n_tracks=0" in capsys.readouterr().err
