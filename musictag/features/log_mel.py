"""Compute log-mel spectrograms.

They equal librosa's (see the tests). librosa itself is not used, because importing it takes 1.4 s.

A `waveform` is mono float32 of shape (samples,). A spectrogram is float32 of shape (frames, M). Frame `i` is centred on
sample `i * hop_length`, with silence before and after the waveform, as in
`librosa.feature.melspectrogram(center=True, pad_mode="constant")`.
"""

import functools
import itertools
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import scipy.fft

from musictag.features.config import FeatureConfig

Float32 = npt.NDArray[np.float32]

# Frames per Fourier transform. It limits the working memory to a few MB, however long the track is.
BLOCK_FRAMES = 2048
# Slaney's mel scale: 3 mel per 200 Hz up to 1 kHz, above it 27 mel per factor of 6.4.
_LINEAR_HZ, _LINEAR_MEL = 1000.0, 15.0
_LOG_STEP = np.log(6.4) / 27


def n_frames(n_samples: int, config: FeatureConfig) -> int:
    """Return the number of frames of the spectrogram of a waveform of `n_samples`."""
    return 1 + n_samples // config.hop_length


def log_mel(waveform: Float32, config: FeatureConfig) -> Float32:
    """Return `log10(1 + log_gain * mel)` (frames, M), float32, of a whole waveform (samples,)."""
    return frames_log_mel(np.pad(waveform, config.n_fft // 2), config)


def frames_log_mel(samples: Float32, config: FeatureConfig) -> Float32:
    """Return the log-mel (frames, M) of samples without padding: the first window begins at the first sample."""
    windows = np.lib.stride_tricks.sliding_window_view(samples, config.n_fft)[:: config.hop_length]
    result = np.empty((len(windows), config.n_mels), np.float32)
    hann, bank = _hann(config), filterbank(config)
    for begin in range(0, len(windows), BLOCK_FRAMES):
        block = slice(begin, begin + BLOCK_FRAMES)
        spectrum = scipy.fft.rfft(windows[block] * hann, axis=1)
        power = spectrum.real**2 + spectrum.imag**2
        result[block] = np.log10(1 + np.float32(config.log_gain) * (power @ bank))
    return result


def stream_log_mel(blocks: Iterable[Float32], config: FeatureConfig) -> Iterator[Float32]:
    """Yield the frames (n, M) of `log_mel`, some at a time, of a waveform in blocks (samples,) of any length."""
    silence = np.zeros(config.n_fft // 2, np.float32)
    pending = silence
    for block in itertools.chain(blocks, [silence]):
        samples = np.concatenate([pending, block])
        n_ready = max(0, 1 + (len(samples) - config.n_fft) // config.hop_length)
        if n_ready:
            yield frames_log_mel(samples[: (n_ready - 1) * config.hop_length + config.n_fft], config)
        pending = samples[n_ready * config.hop_length :]


def band_centres(n_mels: int, fmin: float, fmax: float) -> npt.NDArray[np.float64]:
    """Return the centre frequency (M,) of each mel band between `fmin` and `fmax`, Hz."""
    return _edges(n_mels, fmin, fmax)[1:-1]


@functools.lru_cache
def _hann(config: FeatureConfig) -> Float32:
    # The periodic window. scipy.signal has it too, but takes a second to import.
    return np.hanning(config.n_fft + 1)[:-1].astype(np.float32)


@functools.lru_cache
def filterbank(config: FeatureConfig) -> Float32:
    """Return weights (n_fft // 2 + 1, M) of triangular bands of area 1 in Hz (Slaney, "Auditory Toolbox", 1998)."""
    edges = _edges(config.n_mels, config.fmin, config.fmax)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    frequencies = np.fft.rfftfreq(config.n_fft, 1 / config.sample_rate)[:, None]
    triangles = np.minimum((frequencies - low) / (centre - low), (high - frequencies) / (high - centre))
    bank: Float32 = (np.maximum(0, triangles) * 2 / (high - low)).astype(np.float32)
    return bank


def _edges(n_mels: int, fmin: float, fmax: float) -> npt.NDArray[np.float64]:
    """Return band edges (M + 2,), Hz: band `i` begins at edge `i`, has its centre at `i + 1` and ends at `i + 2`."""
    return _mel_to_hz(np.linspace(_hz_to_mel(fmin), _hz_to_mel(fmax), n_mels + 2))


def _hz_to_mel(hz: float) -> float:
    return (
        _LINEAR_MEL + float(np.log(hz / _LINEAR_HZ)) / _LOG_STEP if hz > _LINEAR_HZ else hz * _LINEAR_MEL / _LINEAR_HZ
    )


def _mel_to_hz(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    above = _LINEAR_HZ * np.exp(_LOG_STEP * np.maximum(0, mel - _LINEAR_MEL))
    return np.where(mel > _LINEAR_MEL, above, mel * _LINEAR_HZ / _LINEAR_MEL)
