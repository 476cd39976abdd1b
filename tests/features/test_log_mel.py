import librosa
import numpy as np
import pytest

from musictag.features import log_mel
from musictag.features.config import FeatureConfig


def librosa_log_mel(waveform, config):
    mel = librosa.feature.melspectrogram(
        y=waveform,
        sr=config.sample_rate,
        n_fft=config.n_fft,
        hop_length=config.hop_length,
        n_mels=config.n_mels,
        fmin=config.fmin,
        fmax=config.fmax,
    )
    return np.log10(1 + config.log_gain * mel).T


@pytest.mark.parametrize(
    "config",
    [
        FeatureConfig(),
        FeatureConfig(sample_rate=22_050, n_fft=1024, hop_length=300, n_mels=40, fmin=50, fmax=11_000, log_gain=1.0),
    ],
)
@pytest.mark.parametrize("n_samples", [48_000, 48_001, 300])
@pytest.mark.filterwarnings("ignore:n_fft=.* is too large:UserWarning")
def test_log_mel_equals_librosa(music, config, n_samples):
    waveform = music(4.0, config.sample_rate, 1)[:n_samples, 0]
    result = log_mel.log_mel(waveform, config)
    assert result.dtype == np.float32
    assert result.shape == (log_mel.n_frames(n_samples, config), config.n_mels)
    np.testing.assert_allclose(result, librosa_log_mel(waveform, config), atol=1e-4)


@pytest.mark.parametrize("hop_length", [256, 300, 512])
@pytest.mark.parametrize("lengths", [[], [0], [1], [300, 0, 5, 20_000], [1] * 700, [47_550] * 4, [511, 513, 256]])
def test_stream_has_the_frames_of_the_whole(lengths, hop_length):
    config = FeatureConfig(hop_length=hop_length)
    rng = np.random.default_rng(0)
    blocks = [rng.standard_normal(length).astype(np.float32) for length in lengths]
    whole = log_mel.log_mel(np.concatenate([np.zeros(0, np.float32), *blocks]), config)
    stream = np.concatenate(list(log_mel.stream_log_mel(blocks, config)))
    assert stream.shape == whole.shape
    np.testing.assert_allclose(stream, whole, atol=1e-5)


@pytest.mark.parametrize("level", [0.0, 1e-4, 1.0])
def test_log_mel_equals_librosa_at_any_level(music, level):
    waveform = level * music(2.0, 16_000, 1, seed=1)[:, 0]
    config = FeatureConfig()
    np.testing.assert_allclose(log_mel.log_mel(waveform, config), librosa_log_mel(waveform, config), atol=1e-4)


def test_result_does_not_depend_on_the_block_size(music, monkeypatch):
    waveform, config = music(3.0, 16_000, 1)[:, 0], FeatureConfig()
    whole = log_mel.log_mel(waveform, config)
    monkeypatch.setattr(log_mel, "BLOCK_FRAMES", 50)
    np.testing.assert_allclose(log_mel.log_mel(waveform, config), whole, atol=1e-6)


def test_excerpt_has_the_frames_of_the_whole(music):
    waveform, config = music(2.0, 16_000, 1)[:, 0], FeatureConfig()
    begin = 20 * config.hop_length - config.n_fft // 2
    part = log_mel.frames_log_mel(waveform[begin : begin + 29 * config.hop_length + config.n_fft], config)
    np.testing.assert_allclose(part, log_mel.log_mel(waveform, config)[20:50], atol=1e-6)


@pytest.mark.parametrize(
    "config",
    [
        FeatureConfig(),
        FeatureConfig(sample_rate=22_050, n_fft=2048, hop_length=512, n_mels=128, fmin=30, fmax=11_025),
        FeatureConfig(n_fft=1024, n_mels=40, fmin=0, fmax=900),
        FeatureConfig(n_fft=1024, n_mels=64, fmin=1500, fmax=7600),
    ],
)
def test_filterbank_equals_librosa(config):
    theirs = librosa.filters.mel(
        sr=config.sample_rate, n_fft=config.n_fft, n_mels=config.n_mels, fmin=config.fmin, fmax=config.fmax
    )
    np.testing.assert_allclose(log_mel.filterbank(config).T, theirs, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(("n_mels", "fmin", "fmax"), [(96, 0, 8000), (128, 30, 11_025), (1, 0, 8000), (40, 1500, 7600)])
def test_band_centres_equal_librosa(n_mels, fmin, fmax):
    centres = log_mel.band_centres(n_mels, fmin, fmax)
    assert centres.dtype == np.float64
    theirs = librosa.mel_frequencies(n_mels=n_mels + 2, fmin=fmin, fmax=fmax)[1:-1]
    np.testing.assert_allclose(centres, theirs, rtol=1e-9)


def test_bands_have_their_maximum_at_the_centre():
    config = FeatureConfig(n_fft=16_384)  # bins of 1 Hz
    loudest = np.fft.rfftfreq(config.n_fft, 1 / config.sample_rate)[log_mel.filterbank(config).argmax(axis=0)]
    np.testing.assert_allclose(loudest, log_mel.band_centres(config.n_mels, config.fmin, config.fmax), atol=1)
