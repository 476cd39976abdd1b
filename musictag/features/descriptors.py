"""A whole track as some hundred numbers: the FFT features that classifiers learned from before networks did.

They are computed from the clips of the features table, so that what learns from them is trained, judged and used on the
same table as every network. A mel band back to Fourier bins goes by the filterbank's transpose: each bin has the mean
of the bands that cover it. Unlike a pseudo-inverse it has no negative power, and no ringing where bands are as narrow
as bins.

Of each frame: spectral statistics, MFCC and chroma; over the track their mean, deviation and percentiles (Tzanetakis
and Cook, "Musical genre classification of audio signals", 2002; Jiang et al., "Music type classification by spectral
contrast feature", 2002). Of the track: how strongly it repeats itself at each tempo, in all bands and in low, middle
and high ones (the beat histogram of the former), and how often something begins.
"""

import functools
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.fft

from musictag.features import log_mel
from musictag.features.config import FeatureConfig

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

VERSION = 2
"""Raised whenever the same clips get other numbers: a model fits only the version that it was fitted on."""

N_MFCC = 20
N_CONTRAST = 6
CHROMA = 12
# Frames of one block, a minute: what is made of a long track on the way is bounded by it.
BLOCK_FRAMES = 4096
DELTA_FRAMES = 9
PERCENTILES = (10, 50, 90)
# Power below which a band is as good as silent; the gain of the front end hears little below it.
FLOOR = 1e-6
# Bands of the onset envelopes, Hz: kick and bass; voices; snare and cymbals.
ONSET_BANDS_HZ = {"all": (0.0, np.inf), "low": (0.0, 200.0), "middle": (200.0, 2_000.0), "high": (2_000.0, np.inf)}
# Tempi of the beat histogram, 12 an octave: from two bars of a slow song to eighths of a fast one.
BPM = 30 * 2 ** (np.arange(49) / 12)
# Where the beat is sought, and the tempo that people tap at (van Noorden & Moelants, 1999).
BEAT_BPM, PREFERRED_BPM, PREFERENCE_OCTAVES = (50.0, 190.0), 110.0, 1.0
# Parts and multiples of the beat: halves, thirds and swung eighths, bars of three and four.
RATIOS = (0.25, 1 / 3, 0.4, 0.5, 0.6, 2 / 3, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
LOCAL_S = 1.0
"""An onset counts by how far it stands above the mean of so long a stretch, s."""

SPECTRAL = ("centroid", "bandwidth", "rolloff", "flatness", "level", *(f"contrast{n}" for n in range(N_CONTRAST)))
FRAME_DESCRIPTORS = (
    *SPECTRAL,
    *(f"mfcc{n}" for n in range(N_MFCC)),
    *(f"chroma{n}" for n in range(CHROMA)),
    *(f"flux_{band}" for band in ONSET_BANDS_HZ),
)
DESCRIPTORS: tuple[str, ...] = (
    *(
        f"{name}_{summary}"
        for summary in ("mean", "std", *(f"p{p}" for p in PERCENTILES))
        for name in FRAME_DESCRIPTORS
    ),
    *(
        f"mfcc{n}_{delta}_{summary}"
        for delta in ("delta", "delta2")
        for summary in ("mean", "std")
        for n in range(N_MFCC)
    ),
    *(f"chroma_from_strongest{n}" for n in range(CHROMA)),
    *(f"beat_{band}_{bpm:.0f}bpm" for band in ONSET_BANDS_HZ for bpm in BPM),
    *(f"beat_{band}_x{ratio:.2f}" for band in ONSET_BANDS_HZ for ratio in RATIOS),
    *(f"low_then_high_x{ratio:.2f}" for ratio in (0.0, *RATIOS)),
    *(f"onsets_{band}_per_s" for band in ONSET_BANDS_HZ),
    "tempo_octaves",
    "tempo_strength",
)
"""The name of each number of `describe`, in its order: D of them, whatever the front end."""


def describe(clips: npt.NDArray[np.floating], weights: npt.ArrayLike, config: FeatureConfig) -> Float32:
    """The descriptors (D,) of a track, finite whatever is in it; `DESCRIPTORS` names them.

    The clips are put end to end, so that rhythm is heard over the whole track. Clips that do not follow on each other
    (`featurize.py --clips-per-track`) meet at seams, which count as onsets where the sound changes.

    Args:
        clips: (C, T, M) log-mel of the track, in the order of time.
        weights: (C,), the share of each clip that is audio (`features.clips.clip_weights`); padding is left out.
        config: the front end that made them.
    """
    logs = _end_to_end(clips, np.asarray(weights), config)
    blocks = np.split(logs, range(BLOCK_FRAMES, len(logs), BLOCK_FRAMES))
    onsets = _onsets(logs, config)  # (frames, bands)
    frames = np.hstack([np.concatenate([_frame_descriptors(block, config) for block in blocks]), onsets])
    chroma = frames[:, [FRAME_DESCRIPTORS.index(f"chroma{n}") for n in range(CHROMA)]].mean(axis=0)
    numbers = [
        frames.mean(axis=0),
        frames.std(axis=0),
        np.percentile(frames, PERCENTILES, axis=0).ravel(),
        _deltas(frames[:, len(SPECTRAL) : len(SPECTRAL) + N_MFCC]),
        np.roll(chroma, -int(chroma.argmax())),
        _rhythm(onsets, config.sample_rate / config.hop_length),
    ]
    return np.concatenate(numbers).astype(np.float32)


def _end_to_end(clips: npt.NDArray[np.floating], weights: Float32, config: FeatureConfig) -> Float32:
    """The frames (frames, M) of clips (C, T, M) without their padding."""
    n_frames = np.clip(np.ceil(weights * config.clip_frames - 1e-3), 1, config.clip_frames).astype(int)
    return np.concatenate([clip[:n] for clip, n in zip(clips, n_frames, strict=True)]).astype(np.float32)


def _frame_descriptors(logs: Float32, config: FeatureConfig) -> Float32:
    """Spectral statistics, MFCC and chroma (frames, F) of a log-mel (frames, M)."""
    import librosa  # here, as below: it takes more than a second, and whoever tags with a network needs none of it

    mel = (10**logs - 1) / config.log_gain
    decibels = 10 * np.log10(np.maximum(mel, FLOOR))
    power = np.maximum(mel @ _to_bins(config), 0).T  # (bins, frames)
    magnitude = np.sqrt(power)
    of: dict[str, Any] = {"sr": config.sample_rate, "n_fft": config.n_fft}
    cepstrum = scipy.fft.dct(decibels, norm="ortho", axis=1)[:, :N_MFCC]
    spectral = [
        librosa.feature.spectral_centroid(S=magnitude, **of),
        librosa.feature.spectral_bandwidth(S=magnitude, **of),
        librosa.feature.spectral_rolloff(S=magnitude, **of),
        librosa.feature.spectral_flatness(S=magnitude, amin=FLOOR),
        10 * np.log10(np.maximum(power.sum(axis=0, keepdims=True), FLOOR)),
        # The lowest octave band begins at 200 Hz where the sample rate is 16 kHz.
        librosa.feature.spectral_contrast(S=magnitude, fmin=config.sample_rate / 80, n_bands=N_CONTRAST - 1, **of),
    ]
    return np.hstack(
        [
            np.concatenate(spectral).T,
            np.pad(cepstrum, ((0, 0), (0, N_MFCC - cepstrum.shape[1]))),
            librosa.feature.chroma_stft(S=power, tuning=0.0, n_chroma=CHROMA, **of).T,
        ]
    ).astype(np.float32)


def _deltas(mfcc: Float32) -> Float64:
    """Mean and deviation over frames of the slopes and curvatures of MFCC (frames, N_MFCC)."""
    import librosa

    orders = [librosa.feature.delta(mfcc, width=DELTA_FRAMES, order=order, axis=0, mode="nearest") for order in (1, 2)]
    return np.concatenate([summary for delta in orders for summary in (delta.mean(axis=0), delta.std(axis=0))])


def _onsets(logs: Float32, config: FeatureConfig) -> Float32:
    """Onset envelopes (frames, bands): by how much the log-mel bands of each rise from the frame before."""
    rises = np.maximum(0, np.diff(logs, axis=0, prepend=logs[:1]))
    return np.stack([rises @ band for band in _onset_bands(config)], axis=1)


def _rhythm(onsets: Float32, frames_per_s: float) -> Float64:
    """What onset envelopes (frames, bands) repeat and how fast, numbers as `DESCRIPTORS` has them at its end."""
    import scipy.ndimage

    above = onsets - scipy.ndimage.uniform_filter1d(onsets, max(1, round(LOCAL_S * frames_per_s)), axis=0)
    correlation = _correlations(above, above, n_lags=4 * frames_per_s * 60 / BPM[0])
    lags = 60 * frames_per_s / BPM  # (bpm,)
    profiles = _strongest(correlation, lags)  # (bands, bpm)

    preference = np.exp(-0.5 * (np.log2(BPM / PREFERRED_BPM) / PREFERENCE_OCTAVES) ** 2)
    allowed = BPM.clip(*BEAT_BPM) == BPM
    # Not of the strongest, which neighbouring bins may share.
    beat = int(np.argmax(np.where(allowed, (_at(correlation, lags).sum(axis=0) + 1) * preference, 0)))
    ratios = lags[beat] * np.array(RATIOS)
    low, high = (above[:, [list(ONSET_BANDS_HZ).index(band)]] for band in ("low", "high"))
    low_then_high = _correlations(low, high, n_lags=ratios[-1] + 2)
    peaks = [_peaks(envelope) for envelope in np.maximum(0, above).T]
    return np.concatenate(
        [
            profiles.ravel(),
            _at(correlation, ratios).ravel(),
            _at(low_then_high, np.append(0, ratios)).ravel(),
            np.array(peaks) * frames_per_s / len(onsets),
            [np.log2(BPM[beat] / PREFERRED_BPM), profiles[0, beat]],
        ]
    )


def _correlations(first: Float64, second: Float64, n_lags: float) -> Float64:
    """Correlation (bands, lags) of each envelope (frames, bands) with another that is so many frames later."""
    n_frames = len(first)
    size = scipy.fft.next_fast_len(n_frames + int(n_lags) + 2, real=True)
    product = np.conj(scipy.fft.rfft(first, size, axis=0)) * scipy.fft.rfft(second, size, axis=0)
    sums = scipy.fft.irfft(product, size, axis=0)[: int(n_lags) + 2].T
    energy = np.sqrt((first**2).sum(axis=0) * (second**2).sum(axis=0))[:, None]
    return np.asarray(sums / np.maximum(energy, 1e-9))


def _at(correlation: Float64, lags: Float64) -> Float64:
    """A correlation (bands, whole lags) at any lags, (bands, len(lags))."""
    return np.stack([np.interp(lags, np.arange(correlation.shape[1]), of) for of in correlation])


def _strongest(correlation: Float64, lags: Float64) -> Float64:
    """The maximum of a correlation (bands, whole lags) around each of the lags of the beat histogram, (bands, bpm).

    At slow tempi its bins are some frames wide, and a peak is narrower.
    """
    half = 2 ** (1 / 24)  # half a bin
    return np.stack(
        [correlation[:, int(lag / half) : int(np.ceil(lag * half)) + 1].max(axis=1) for lag in lags], axis=1
    )


def _peaks(envelope: Float64) -> int:
    """How many onsets an envelope (frames,) has: peaks that stand out of its own size."""
    import scipy.signal

    return len(scipy.signal.find_peaks(envelope, prominence=max(1e-6, float(envelope.std())))[0])


@functools.lru_cache
def _to_bins(config: FeatureConfig) -> Float32:
    """Weights (M, bins) that make the power of Fourier bins of that of mel bands: means over the bands of each bin."""
    bank = log_mel.filterbank(config).T  # (M, bins)
    areas, cover = bank.sum(axis=1, keepdims=True), bank.sum(axis=0, keepdims=True)
    weights: Float32 = np.divide(bank, areas * cover, out=np.zeros_like(bank), where=areas * cover > 0)
    return weights


@functools.lru_cache
def _onset_bands(config: FeatureConfig) -> list[Float32]:
    """Weights (M,) of the mel bands in the mean of each onset band; zeros where it has none."""
    centres = log_mel.band_centres(config.n_mels, config.fmin, config.fmax)
    inside = [((centres >= low) & (centres < high)).astype(np.float32) for low, high in ONSET_BANDS_HZ.values()]
    return [band / max(1.0, float(band.sum())) for band in inside]
