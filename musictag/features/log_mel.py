"""Log-mel spectrograms, equal to librosa's (see the tests) and without the 1.4 s that it takes to import.

Conventions: `waveform` is mono float32 of shape (samples,); a spectrogram is float32 of shape (frames, M); frame `i` is
centred on sample `i * hop_length`, and the waveform is preceded and followed by silence, as in
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

# Frames per Fourier transform: bounds the memory of an hour-long track to a few MB beside its result.
BLOCK_FRAMES = 2048
# Slaney's mel scale: 3 mel for 200 Hz up to 1 kHz, from there 27 mel for a factor of 6.4.
LINEAR_HZ, LINEAR_MEL = 1000.0, 15.0
LOG_STEP = np.log(6.4) / 27


def n_frames(n_samples: int, config: FeatureConfig) -> int:
    """Frames of the spectrogram of a waveform of `n_samples`."""
    return 1 + n_samples // config.hop_length


def log_mel(waveform: Float32, config: FeatureConfig) -> Float32:
    """`log10(1 + log_gain * mel)` of a whole waveform (samples,), as float32 (frames, M)."""
    return frames_log_mel(np.pad(waveform, config.n_fft // 2), config)


def frames_log_mel(samples: Float32, config: FeatureConfig) -> Float32:
    """As `log_mel`, without the silence around: the first frame's window begins at the first sample."""
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
    """The frames (n, M) of `log_mel`, some at a time, of a waveform that comes in blocks (samples,) of any length."""
    silence = np.zeros(config.n_fft // 2, np.float32)
    waiting = silence
    for block in itertools.chain(blocks, [silence]):
        samples = np.concatenate([waiting, block])
        n_ready = max(0, 1 + (len(samples) - config.n_fft) // config.hop_length)
        if n_ready:
            yield frames_log_mel(samples[: (n_ready - 1) * config.hop_length + config.n_fft], config)
        waiting = samples[n_ready * config.hop_length :]


def band_centres(n_mels: int, fmin: float, fmax: float) -> npt.NDArray[np.float64]:
    """Where each of the mel bands between `fmin` and `fmax` hears best (M,), Hz."""
    return _edges(n_mels, fmin, fmax)[1:-1]


@functools.lru_cache
def _hann(config: FeatureConfig) -> Float32:
    # The periodic window: one sample longer and cut. (scipy.signal has it too, for a second of import.)
    return np.hanning(config.n_fft + 1)[:-1].astype(np.float32)


@functools.lru_cache
def filterbank(config: FeatureConfig) -> Float32:
    """Weights (n_fft // 2 + 1, M) of triangular bands, of area 1 over their Hz (Slaney, "Auditory Toolbox", 1998)."""
    edges = _edges(config.n_mels, config.fmin, config.fmax)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    frequencies = np.fft.rfftfreq(config.n_fft, 1 / config.sample_rate)[:, None]
    triangles = np.minimum((frequencies - low) / (centre - low), (high - frequencies) / (high - centre))
    bank: Float32 = (np.maximum(0, triangles) * 2 / (high - low)).astype(np.float32)
    return bank


def _edges(n_mels: int, fmin: float, fmax: float) -> npt.NDArray[np.float64]:
    """Where the bands begin, are centred and end (M + 2,), Hz: each reaches from the centre before to the next."""
    return _mel_to_hz(np.linspace(_hz_to_mel(fmin), _hz_to_mel(fmax), n_mels + 2))


def _hz_to_mel(hz: float) -> float:
    return LINEAR_MEL + float(np.log(hz / LINEAR_HZ)) / LOG_STEP if hz > LINEAR_HZ else hz * LINEAR_MEL / LINEAR_HZ


def _mel_to_hz(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    above = LINEAR_HZ * np.exp(LOG_STEP * np.maximum(0, mel - LINEAR_MEL))
    return np.where(mel > LINEAR_MEL, above, mel * LINEAR_HZ / LINEAR_MEL)
