import csv
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from musictag.corpora import experiment
from musictag.corpora.band import compose
from musictag.corpora.experiment import SECONDS, main, make_experiment, perform, plan_experiment, record
from musictag.corpora.labels import TAGS
from musictag.errors import UsageError
from musictag.jobs.process import run_main

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


def test_every_song_is_audible_unclipped_and_as_long_as_asked(catalog):
    for row in read_catalog(catalog):
        waveform, sample_rate = soundfile.read(catalog.parent / row["uri"])
        assert len(waveform) / sample_rate == pytest.approx(2.5, abs=0.06)
        assert np.sqrt(np.mean(waveform**2)) > 0.003
        assert 0.05 < np.abs(waveform).max() < 1
        assert set(row["tags"].split(";")) <= set(TAGS)


def test_the_same_arguments_give_the_same_waveforms_whatever_the_workers(catalog, tmp_path):
    other = make_experiment(tmp_path, workers=2, **SMALL)
    assert other.read_text() == catalog.read_text()
    for row in read_catalog(other):
        first, second = (soundfile.read(path.parent / row["uri"])[0] for path in (catalog, other))
        np.testing.assert_array_equal(first, second)


@pytest.fixture
def rendered(monkeypatch):
    """How many songs were rendered."""
    counter = SimpleNamespace(songs=0)

    def render(*args, **kwargs):
        counter.songs += 1
        return original(*args, **kwargs)

    original = experiment.render
    monkeypatch.setattr(experiment, "render", render)
    return counter


def test_a_half_made_catalog_is_finished_and_a_finished_one_left_alone(catalog, tmp_path, rendered):
    made = make_experiment(tmp_path, workers=1, **SMALL)
    make_experiment(tmp_path, workers=1, **SMALL)
    assert rendered.songs == 5
    made.unlink()
    sorted((tmp_path / "audio").iterdir())[2].unlink()
    make_experiment(tmp_path, workers=1, **SMALL)
    assert rendered.songs == 6
    assert made.read_text() == catalog.read_text()


def test_the_plan_has_1040_tunes_and_the_variants_of_a_melody_share_their_artist(plan):
    assert len({song.tune.tune_id for song in plan}) == len({song.tune.notes for song in plan}) == 1040
    artists = [song.artist for song in plan]
    assert len(set(artists)) > 700
    assert max(artists.count(artist) for artist in set(artists)) > 1


def test_every_one_of_the_23_tags_has_6_to_60_percent_of_the_songs(plan):
    songs = [compose(song.tune, song.rng(), seconds=SECONDS) for song in plan]
    shares = {tag: np.mean([tag in song.tags for song in songs]) for tag in TAGS}
    assert all(0.06 <= share <= 0.6 for share in shares.values()), shares


def test_other_seeds_give_other_songs():
    first, second = (plan_experiment(n_tracks=2, seconds=1.0, seed=seed)[0] for seed in (0, 1))
    assert not np.array_equal(perform(first), perform(second))


def test_a_recording_loses_its_ends_and_keeps_its_peak():
    noise = np.random.default_rng(0).uniform(-1, 1, (44_100, 2)).astype(np.float32)
    recorded = record(noise, np.random.default_rng(1), sample_rate=44_100, peak=0.3)
    assert recorded.dtype == np.float32
    assert np.abs(recorded).max() == pytest.approx(0.3, rel=1e-6)
    power = np.abs(np.fft.rfft(recorded, axis=0)).mean(axis=1)  # a bin a hertz
    assert power[18_000:].mean() < 0.5 * power[1000:3000].mean()
    assert power[2:20].mean() < power[1000:3000].mean()


@pytest.mark.parametrize(
    "change", [{"n_tracks": 0}, {"n_tracks": 5000}, {"seconds": 0.0}, {"seed": -1}, {"workers": 0}]
)
def test_impossible_arguments_are_usage_errors(tmp_path, change):
    with pytest.raises(UsageError, match=next(iter(change))):
        make_experiment(tmp_path, **{"workers": 1, **change})


def test_the_command_line_says_what_it_made_and_where(tmp_path, capsys):
    assert run_main(main, [str(tmp_path), "--n-tracks", "1", "--seed", "3"]) == 0
    assert capsys.readouterr().out == f"1 songs: {tmp_path / 'catalog.csv'}\n"
    assert run_main(main, [str(tmp_path), "--seed", "-1"]) == 2
    assert "seed=-1" in capsys.readouterr().err
