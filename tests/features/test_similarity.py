"""Encodings of one recording are near each other; other music is not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musictag.features import similarity
from musictag.features.clips import clip_weights
from musictag.features.config import FeatureConfig
from musictag.features.extract import track_clips

CONFIG = FeatureConfig()


def described(path, clips_per_track=None):
    track = track_clips(path, "a", CONFIG, clips_per_track)
    start_s = np.array(track.starts) * CONFIG.hop_length / CONFIG.sample_rate
    return similarity.describe(track.clips, clip_weights(start_s, track.duration_s, CONFIG))


def distance(first, second):
    return float(np.sqrt(np.square(first - second).mean()))


@pytest.mark.slow
@pytest.mark.parametrize("clips_per_track", [None, 2])
def test_encodings_of_one_recording_are_near_each_other(tmp_path, music, write_audio, clips_per_track):
    samples = music(10.0, 48_000)
    first, other = (
        described(write_audio(tmp_path / name, x, 48_000), clips_per_track)
        for name, x in (("a.flac", samples), ("other.flac", music(10.0, 48_000, seed=1)))
    )
    for suffix in (".mp3", ".ogg", ".opus", ".m4a"):
        encoded = described(write_audio(tmp_path / f"a{suffix}", samples, 48_000), clips_per_track)
        assert distance(encoded, first) < similarity.MAX_DISTANCE
    assert distance(other, first) > similarity.MAX_DISTANCE


@pytest.mark.slow
@pytest.mark.parametrize("level_db", [-20, -12, -6, 6])
def test_level_does_not_change_the_description(tmp_path, music, write_audio, level_db):
    samples = music(10.0, 48_000) / 4
    first, other = (
        described(write_audio(tmp_path / f"{n}.wav", gain * samples, 48_000, "FLOAT"))
        for n, gain in enumerate((1, 10 ** (level_db / 20)))
    )
    assert distance(first, other) < similarity.MAX_DISTANCE / 10


def test_description_of_silence_is_finite():
    assert not similarity.describe(np.zeros((2, 187, 96), np.float16), np.ones(2, np.float32)).any()


@pytest.mark.slow
@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 999))
def test_pairs_are_those_of_all_comparisons(n_tracks, n_others, seed):
    rng = np.random.default_rng(seed)
    descriptions = rng.normal(size=(n_tracks, 24)).astype(np.float32)
    copies = descriptions[rng.integers(n_tracks, size=n_others)]
    others = (copies + rng.normal(scale=similarity.MAX_DISTANCE, size=copies.shape)).astype(np.float32)
    found = similarity.near_pairs(descriptions, others)
    every = {
        (i, j)
        for i in range(n_tracks)
        for j in range(n_others)
        if distance(descriptions[i], others[j]) <= similarity.MAX_DISTANCE
    }
    assert {(first, second) for first, second, _ in found} == every
    assert len(found) == len(every)
    assert [pair[2] for pair in found] == sorted(pair[2] for pair in found)


def test_many_equal_tracks_have_few_pairs():
    same = np.zeros((3_000, 24), np.float32)
    assert len(similarity.near_pairs(same, same)) == 3_000 * 10


def test_padding_does_not_count():
    clips = np.random.default_rng(0).uniform(1, 5, (3, 187, 96)).astype(np.float16)
    padded = np.concatenate([clips[:2], np.zeros_like(clips[:1])])
    full = similarity.describe(clips[:2], np.ones(2, np.float32))
    np.testing.assert_array_equal(similarity.describe(padded, np.array([1, 1, 0.1], np.float32)), full)
    assert np.isfinite(similarity.describe(clips[:1], np.array([0.5], np.float32))).all()
