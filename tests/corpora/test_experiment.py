import csv

import numpy as np
import pytest
import soundfile

from musictag.corpora.band import arrange
from musictag.corpora.experiment import SECONDS, main, make_experiment, plan_experiment, render_song, simulate_recording
from musictag.corpora.labels import TAGS
from musictag.errors import UsageError
from musictag.jobs.entry_point import run_main

pytestmark = pytest.mark.slow

SMALL = {"n_tracks": 5, "seconds": 2.5, "seed": 7}


def read_catalog(path):
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    return make_experiment(tmp_path_factory.mktemp("experiment"), workers=1, **SMALL)


@pytest.fixture(scope="module")
def plan():
    return plan_experiment()


def test_songs_are_audible_unclipped_and_have_the_length(catalog):
    for row in read_catalog(catalog):
        waveform, sample_rate = soundfile.read(catalog.parent / row["uri"])
        assert len(waveform) / sample_rate == pytest.approx(2.5, abs=0.06)
        assert np.sqrt(np.mean(waveform**2)) > 0.003
        assert 0.05 < np.abs(waveform).max() < 1
        assert set(row["tags"].split(";")) <= set(TAGS)


def test_number_of_workers_does_not_change_the_audio(catalog, tmp_path):
    other = make_experiment(tmp_path, workers=2, **SMALL)
    assert other.read_text() == catalog.read_text()
    for row in read_catalog(other):
        first, second = (soundfile.read(path.parent / row["uri"])[0] for path in (catalog, other))
        np.testing.assert_array_equal(first, second)


def test_finished_catalog_is_left_alone(tmp_path):
    made = make_experiment(tmp_path, workers=1, **SMALL)
    files = [made, *sorted((tmp_path / "audio").iterdir())]
    times = [path.stat().st_mtime_ns for path in files]
    make_experiment(tmp_path, workers=1, **SMALL)
    assert [path.stat().st_mtime_ns for path in files] == times


def test_plan_has_1040_tunes_and_variants_share_their_artist(plan):
    assert len({song.tune.tune_id for song in plan}) == len({song.tune.notes for song in plan}) == 1040
    artists = [song.artist for song in plan]
    assert len(set(artists)) > 700
    assert max(artists.count(artist) for artist in set(artists)) > 1


def test_every_tag_has_6_to_60_percent_of_the_songs(plan):
    songs = [arrange(song.tune, song.rng(), seconds=SECONDS) for song in plan]
    shares = {tag: np.mean([tag in song.tags for song in songs]) for tag in TAGS}
    assert all(0.06 <= share <= 0.6 for share in shares.values()), shares


def test_seed_changes_the_songs():
    first, second = (plan_experiment(n_tracks=2, seconds=1.0, seed=seed)[0] for seed in (0, 1))
    assert not np.array_equal(render_song(first), render_song(second))


def test_recording_limits_the_bandwidth_and_sets_the_peak():
    noise = np.random.default_rng(0).uniform(-1, 1, (44_100, 2)).astype(np.float32)
    recorded = simulate_recording(noise, np.random.default_rng(1), sample_rate=44_100, peak=0.3)
    assert recorded.dtype == np.float32
    assert np.abs(recorded).max() == pytest.approx(0.3, rel=1e-6)
    power = np.abs(np.fft.rfft(recorded, axis=0)).mean(axis=1)  # 1 Hz per bin
    assert power[18_000:].mean() < 0.5 * power[1000:3000].mean()
    assert power[2:20].mean() < power[1000:3000].mean()


@pytest.mark.parametrize(
    "change", [{"n_tracks": 0}, {"n_tracks": 5000}, {"seconds": 0.0}, {"seed": -1}, {"workers": 0}]
)
def test_invalid_arguments_are_usage_errors(tmp_path, change):
    with pytest.raises(UsageError, match=next(iter(change))):
        make_experiment(tmp_path, **{"workers": 1, **change})


def test_command_line_prints_count_and_path(tmp_path, capsys):
    assert run_main(main, [str(tmp_path), "--n-tracks", "1", "--seed", "3"]) == 0
    assert capsys.readouterr().out == f"1 songs: {tmp_path / 'catalog.csv'}\n"
    assert run_main(main, [str(tmp_path), "--seed", "-1"]) == 2
    assert "seed=-1" in capsys.readouterr().err
