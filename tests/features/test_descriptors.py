import subprocess
import sys

import numpy as np
import pytest

from musictag.features.clips import clip_weights, cut_clips
from musictag.features.config import FeatureConfig
from musictag.features.descriptors import BPM, DESCRIPTORS, VERSION, describe
from musictag.features.log_mel import log_mel

CONFIG = FeatureConfig()
RATE = CONFIG.sample_rate
# 25 evenly spaced numbers of a waveform of tones, clicks and noise.
GOLDEN = [
    1575.0, -6.435, 83.88, 4.241, 4106.0, 1.195, 0.007903, 8.422, 35.01, 13.98, -0.02211, 0.7152, 0.003565, 0.4712,
    0.01294, 0.026, 0.0756, 0.008267, 0.5172, 0.0506, 0.5994, -0.006796, -0.03532, -0.04377, 0.0124,
]  # fmt: skip


def described(waveform: np.ndarray, config: FeatureConfig = CONFIG) -> dict[str, float]:
    logs = log_mel(waveform.astype(np.float32), config)
    starts = list(range(0, len(logs), config.clip_frames))
    start_s = [start * config.hop_length / config.sample_rate for start in starts]
    weights = clip_weights(start_s, len(waveform) / config.sample_rate, config)
    return dict(zip(DESCRIPTORS, describe(cut_clips(logs, starts, config), weights, config).tolist(), strict=True))


def tones(frequencies: list[float], seconds: float = 4.0) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    return sum(0.2 * np.sin(2 * np.pi * frequency * time) for frequency in frequencies)


def clicks(bpm: float, seconds: float = 12.0) -> np.ndarray:
    waveform = 0.001 * np.random.default_rng(0).standard_normal(round(seconds * RATE))
    waveform[(np.arange(0, seconds, 60 / bpm) * RATE).astype(int)] += 0.9
    return waveform


@pytest.mark.slow
def test_each_number_has_a_unique_name() -> None:
    numbers = describe(np.ones((2, 187, 96), np.float16), [1.0, 0.5], CONFIG)
    assert numbers.shape == (len(DESCRIPTORS),)
    assert numbers.dtype == np.float32
    assert len(set(DESCRIPTORS)) == len(DESCRIPTORS)


@pytest.mark.parametrize("config", [CONFIG, FeatureConfig(n_mels=16, clip_frames=24)])
@pytest.mark.parametrize("level", [0.0, 2.0])
@pytest.mark.parametrize(("n_clips", "weight"), [(1, 1 / 187), (1, 1.0), (3, 0.5)])
def test_silence_constants_and_short_clips_have_finite_numbers(
    config: FeatureConfig, level: float, n_clips: int, weight: float
) -> None:
    clips = np.full((n_clips, config.clip_frames, config.n_mels), level, np.float32)
    numbers = describe(clips, [*[1.0] * (n_clips - 1), weight], config)
    assert np.isfinite(numbers).all()
    assert len(numbers) == len(DESCRIPTORS)


def test_numbers_do_not_change_without_a_new_version() -> None:
    rng = np.random.default_rng(0)
    waveform = tones([261.6, 330.0, 415.3], 6.0) + clicks(132, 6.0) + 0.02 * rng.standard_normal(6 * RATE)
    numbers = list(described(waveform).values())
    seen = [float(f"{number:.4g}") for number in numbers[:: len(numbers) // 24]]
    np.testing.assert_allclose(
        seen, GOLDEN, rtol=2e-3, atol=2e-3,
        err_msg="the numbers changed: increase descriptors.VERSION, so that models fitted on the old ones are rejected",
    )  # fmt: skip
    assert VERSION == 2


def test_padding_is_ignored() -> None:
    rng = np.random.default_rng(1)
    clips = rng.random((2, 187, 96)).astype(np.float32)
    weights = np.array([1.0, 40 / 187], np.float32)
    other = clips.copy()
    other[1, 40:] = 5.0
    np.testing.assert_array_equal(describe(clips, weights, CONFIG), describe(other, weights, CONFIG))
    other[1, 39] = 5.0
    assert not np.array_equal(describe(clips, weights, CONFIG), describe(other, weights, CONFIG))


def test_centroid_is_the_frequency_of_a_tone() -> None:
    low, high = described(tones([440.0])), described(tones([3000.0]))
    assert low["centroid_p50"] == pytest.approx(440, rel=0.1)
    assert high["centroid_p50"] == pytest.approx(3000, rel=0.05)
    noise = described(0.1 * np.random.default_rng(0).standard_normal(4 * RATE))
    assert noise["flatness_p50"] > 10 * high["flatness_p50"]


def test_rotated_chroma_does_not_depend_on_the_key() -> None:
    # C6, E6, G6 and the same chord five semitones up.
    chord = np.array([1046.5, 1318.5, 1568.0])
    here, there = described(tones(chord.tolist())), described(tones((chord * 2 ** (5 / 12)).tolist()))
    classes = [[numbers[f"chroma{n}_mean"] for n in range(12)] for numbers in (here, there)]
    assert {int(n) for n in np.argsort(classes[0])[-3:]} == {0, 4, 7}
    assert {int(n) for n in np.argsort(classes[1])[-3:]} == {5, 9, 0}
    rotated = [numbers["chroma_from_strongest0"] for numbers in (here, there)]
    assert rotated == pytest.approx([max(classes[0]), max(classes[1])], rel=1e-5)


@pytest.mark.parametrize("bpm", [75.0, 100.0, 132.0])
def test_tempo_and_number_of_clicks_are_found(bpm: float) -> None:
    numbers = described(clicks(bpm))
    profile = np.array([numbers[f"beat_all_{of:.0f}bpm"] for of in BPM])
    nearest = np.argmin(np.abs(np.log(BPM / bpm)))
    # The nearest bin is high, and bins 5 semitones (a third) away are low.
    assert profile[nearest] > 0.4
    assert profile[[nearest - 5, nearest + 5]].max() < 0.1
    assert 110 * 2 ** numbers["tempo_octaves"] == pytest.approx(bpm, rel=0.04)
    assert numbers["onsets_all_per_s"] == pytest.approx(bpm / 60, rel=0.15)


@pytest.mark.slow
def test_librosa_is_not_imported_before_it_is_needed() -> None:
    code = (
        "import sys, musictag.tagging.tagger; sys.exit(bool({'librosa', 'scipy.signal', 'sklearn'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
