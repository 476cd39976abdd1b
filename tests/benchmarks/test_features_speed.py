"""Featurizing beside librosa's way on one track of four minutes: ratios of times taken in one run, on one core."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
import threadpoolctl

from musictag.config import FeatureConfig
from musictag.features import track_clips

CONFIG = FeatureConfig()
SECONDS, SAMPLE_RATE = 240, 44_100
ROUNDS = 5


@pytest.fixture(scope="module", params=["mp3", "flac"])
def song(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("song") / f"song.{request.param}"
    rng = np.random.default_rng(0)
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 2) as stream:
        for _ in range(SECONDS):
            stream.write((0.1 * rng.standard_normal((SAMPLE_RATE, 2))).astype(np.float32))
    return path


def seconds(do: Callable[[], object]) -> float:
    """The least of some rounds, after one that only warms up."""
    taken = []
    for _ in range(ROUNDS + 1):
        started = time.perf_counter()
        do()
        taken.append(time.perf_counter() - started)
    return min(taken[1:])


def with_librosa(path: Path) -> np.ndarray:
    waveform, _ = librosa.load(path, sr=CONFIG.sample_rate)
    mel = librosa.feature.melspectrogram(
        y=waveform, sr=CONFIG.sample_rate, n_fft=CONFIG.n_fft, hop_length=CONFIG.hop_length, n_mels=CONFIG.n_mels
    )
    return np.asarray(np.log10(1 + CONFIG.log_gain * mel))


def test_featurizing_is_faster_than_librosa_and_some_clips_faster_than_all(song: Path) -> None:
    with threadpoolctl.threadpool_limits(1):
        by_librosa = seconds(lambda: with_librosa(song))
        whole = seconds(lambda: track_clips(song, song.name, CONFIG))
        ten = seconds(lambda: track_clips(song, song.name, CONFIG, 10))
    sys.stdout.write(
        f"\n{SECONDS} s of {song.suffix[1:]}: whole {1000 * whole:.0f} ms, {whole / by_librosa:.2f} of librosa's "
        f"{1000 * by_librosa:.0f} ms; ten clips {1000 * ten:.0f} ms, {ten / whole:.2f} of the whole"
    )
    assert whole < by_librosa
    assert ten < 0.5 * whole
