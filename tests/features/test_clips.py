import numpy as np
import pytest

from musictag.errors import UsageError
from musictag.features import log_mel
from musictag.features.clips import clip_starts, clip_weights, cut_clips, is_silent
from musictag.features.config import FeatureConfig

CONFIG = FeatureConfig(n_mels=3, clip_frames=10)


def spectrogram(n_frames):
    return np.arange(n_frames * 3, dtype=np.float32).reshape(n_frames, 3) + 1


@pytest.mark.parametrize(
    ("n_frames", "starts"), [(1, [0]), (9, [0]), (10, [0]), (11, [0, 10]), (20, [0, 10]), (35, [0, 10, 20, 30])]
)
def test_all_clips_are_adjacent_and_cover_the_track(n_frames, starts):
    assert clip_starts(n_frames, CONFIG) == starts


@pytest.mark.parametrize(
    ("n_frames", "n_clips", "starts"),
    [
        (100, 1, [45]),
        (100, 2, [20, 70]),
        (100, 4, [8, 32, 58, 82]),
        (21, 2, [0, 11]),  # moved inwards at the ends
        (20, 2, [0, 10]),
        (15, 1, [2]),
        (15, 7, [0, 10]),  # at most all clips
        (4, 3, [0]),
    ],
)
def test_n_clips_are_spread_evenly_over_the_track(n_frames, n_clips, starts):
    assert clip_starts(n_frames, CONFIG, n_clips) == starts


@pytest.mark.parametrize("n_clips", range(1, 12))
def test_spread_clips_are_inside_the_track_at_equal_distances(n_clips):
    starts = np.array(clip_starts(1_003, CONFIG, n_clips))
    assert starts[0] >= 0
    assert starts[-1] + CONFIG.clip_frames <= 1_003
    assert np.ptp(np.diff(starts)) <= 1 if n_clips > 1 else len(starts) == 1


def test_zero_clips_are_an_error():
    with pytest.raises(UsageError, match="use a number from 1"):
        clip_starts(100, CONFIG, 0)


def test_clips_hold_the_frames_from_their_start():
    whole = spectrogram(100)
    cut = cut_clips(whole, [3, 45], CONFIG)
    assert cut.shape == (2, 10, 3)
    np.testing.assert_array_equal(cut, [whole[3:13], whole[45:55]])


def test_last_clip_is_padded_with_silence():
    whole = spectrogram(13)
    cut = cut_clips(whole, clip_starts(13, CONFIG), CONFIG)
    np.testing.assert_array_equal(cut[1, :3], whole[10:])
    assert not cut[1, 3:].any()


def test_short_track_is_one_padded_clip():
    cut = cut_clips(spectrogram(4), clip_starts(4, CONFIG), CONFIG)
    assert cut.shape == (1, 10, 3)
    assert cut[0, :4].all()
    assert not cut[0, 4:].any()


def test_weight_is_the_share_of_audio():
    clip_s = CONFIG.clip_seconds
    starts = [0, clip_s, 2 * clip_s]
    np.testing.assert_allclose(clip_weights(starts, 2.25 * clip_s, CONFIG), [1, 1, 0.25], rtol=1e-6)
    np.testing.assert_allclose(clip_weights(starts, 3 * clip_s, CONFIG), [1, 1, 1], rtol=1e-6)


def test_weight_is_at_least_one_frame():
    assert clip_weights([0.0], 0.0, CONFIG) == pytest.approx(0.1)
    assert clip_weights([0.0, CONFIG.clip_seconds], CONFIG.clip_seconds, CONFIG)[1] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("level_db", "silent"), [(None, True), (-96.0, True), (-85.0, True), (-70.0, False), (-20.0, False)]
)
@pytest.mark.parametrize("frequency", [110.0, 1_000.0, 5_000.0])
def test_sound_below_80_db_is_silence(level_db, silent, frequency):
    time = np.arange(3 * 16_000) / 16_000
    amplitude = 0 if level_db is None else 10 ** (level_db / 20)
    samples = (amplitude * np.sin(2 * np.pi * frequency * time)).astype(np.float32)
    clips = cut_clips(log_mel.log_mel(samples, FeatureConfig()), [0], FeatureConfig()).astype(np.float16)
    assert is_silent(clips) == silent
