"""Summarize a whole track as several hundred numbers, the spectral features of classical classifiers.

They are computed from the clips of the features table, so that classical methods use the same table as the networks.
Mel bands are mapped back to Fourier bins with the transpose of the filterbank: each bin has the mean of the bands that
cover it. Unlike the pseudo-inverse, this gives no negative power, and no ringing where bands are as narrow as bins.

Each frame has spectral statistics, MFCC and chroma; a track has their mean, deviation and percentiles (Tzanetakis and
Cook, "Musical genre classification of audio signals", 2002; Jiang et al., "Music type classification by spectral
contrast feature", 2002). A track also has a beat histogram (Tzanetakis and Cook) of all bands and of low, middle and
high bands, and the number of onsets per second.
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
"""Increase it whenever the same clips get other numbers: a model works only with the version it was fitted on."""

N_MFCC = 20
N_CONTRAST = 6
CHROMA = 12
# Frames of one block, about a minute. It limits the working memory for long tracks.
BLOCK_FRAMES = 4096
DELTA_FRAMES = 9
PERCENTILES = (10, 50, 90)
# Power that counts as silence; the log gain of the front end hardly resolves lower values.
FLOOR = 1e-6
# Bands of the onset envelopes, Hz: everything; kick and bass; voices; snare and cymbals.
ONSET_BANDS_HZ = {"all": (0.0, np.inf), "low": (0.0, 200.0), "middle": (200.0, 2_000.0), "high": (2_000.0, np.inf)}
# Tempi of the beat histogram, 12 per octave: from two bars of a slow song to eighth notes of a fast one.
BPM = 30 * 2 ** (np.arange(49) / 12)
# Range of the beat, and the tempo at which people prefer to tap (van Noorden & Moelants, 1999).
BEAT_BPM, PREFERRED_BPM, PREFERENCE_OCTAVES = (50.0, 190.0), 110.0, 1.0
# Fractions and multiples of the beat: halves, thirds and swung eighth notes, bars of three and four beats.
RATIOS = (0.25, 1 / 3, 0.4, 0.5, 0.6, 2 / 3, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
LOCAL_S = 1.0
"""Length of the moving average that is subtracted from the onset envelopes, s."""

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
"""Names of the D numbers of `describe`, in order; the same for every front end."""


def describe(clips: npt.NDArray[np.floating], weights: npt.ArrayLike, config: FeatureConfig) -> Float32:
    """Return the descriptors (D,) of a track, always finite; `DESCRIPTORS` names them.

    The clips are concatenated, so that rhythm is measured over the whole track. Where clips are not adjacent
    (`featurize.py --clips-per-track`), a change of sound between them counts as an onset.

    Args:
        clips: (C, T, M) log-mel of the track, in order of time.
        weights: (C,), the share of each clip that is audio (`features.clips.clip_weights`); padding is left out.
        config: settings of the front end.
    """
    logs = _concatenate(clips, np.asarray(weights), config)
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


def _concatenate(clips: npt.NDArray[np.floating], weights: Float32, config: FeatureConfig) -> Float32:
    """Return the frames (frames, M) of clips (C, T, M) without their padding."""
    n_frames = np.clip(np.ceil(weights * config.clip_frames - 1e-3), 1, config.clip_frames).astype(int)
    return np.concatenate([clip[:n] for clip, n in zip(clips, n_frames, strict=True)]).astype(np.float32)


def _frame_descriptors(logs: Float32, config: FeatureConfig) -> Float32:
    """Return spectral statistics, MFCC and chroma (frames, F) of a log-mel (frames, M)."""
    import librosa  # takes more than a second to import, and tagging with a network does not need it

    mel = (10**logs - 1) / config.log_gain
    decibels = 10 * np.log10(np.maximum(mel, FLOOR))
    power = np.maximum(mel @ _to_bins(config), 0).T  # (bins, frames)
    magnitude = np.sqrt(power)
    options: dict[str, Any] = {"sr": config.sample_rate, "n_fft": config.n_fft}
    cepstrum = scipy.fft.dct(decibels, norm="ortho", axis=1)[:, :N_MFCC]
    spectral = [
        librosa.feature.spectral_centroid(S=magnitude, **options),
        librosa.feature.spectral_bandwidth(S=magnitude, **options),
        librosa.feature.spectral_rolloff(S=magnitude, **options),
        librosa.feature.spectral_flatness(S=magnitude, amin=FLOOR),
        10 * np.log10(np.maximum(power.sum(axis=0, keepdims=True), FLOOR)),
        # The lowest octave band begins at 200 Hz where the sample rate is 16 kHz.
        librosa.feature.spectral_contrast(S=magnitude, fmin=config.sample_rate / 80, n_bands=N_CONTRAST - 1, **options),
    ]
    return np.hstack(
        [
            np.concatenate(spectral).T,
            np.pad(cepstrum, ((0, 0), (0, N_MFCC - cepstrum.shape[1]))),
            librosa.feature.chroma_stft(S=power, tuning=0.0, n_chroma=CHROMA, **options).T,
        ]
    ).astype(np.float32)


def _deltas(mfcc: Float32) -> Float64:
    """Return the mean and deviation over frames of the first and second deltas of MFCC (frames, N_MFCC)."""
    import librosa

    orders = [librosa.feature.delta(mfcc, width=DELTA_FRAMES, order=order, axis=0, mode="nearest") for order in (1, 2)]
    return np.concatenate([summary for delta in orders for summary in (delta.mean(axis=0), delta.std(axis=0))])


def _onsets(logs: Float32, config: FeatureConfig) -> Float32:
    """Return onset envelopes (frames, bands): the mean rise of the log-mel in each band since the previous frame."""
    rises = np.maximum(0, np.diff(logs, axis=0, prepend=logs[:1]))
    return np.stack([rises @ band for band in _onset_bands(config)], axis=1)


def _rhythm(onsets: Float32, frames_per_s: float) -> Float64:
    """Return the rhythm of onset envelopes (frames, bands), the last numbers of `DESCRIPTORS`, from `beat_all` on."""
    import scipy.ndimage

    novelty = onsets - scipy.ndimage.uniform_filter1d(onsets, max(1, round(LOCAL_S * frames_per_s)), axis=0)
    correlation = _correlate(novelty, novelty, n_lags=4 * frames_per_s * 60 / BPM[0])
    lags = 60 * frames_per_s / BPM  # (bpm,)
    histogram = _maximum_near(correlation, lags)  # (bands, bpm)
    beat = _find_beat(correlation, lags)
    beat_lags = lags[beat] * np.array(RATIOS)
    low, high = (novelty[:, [list(ONSET_BANDS_HZ).index(band)]] for band in ("low", "high"))
    low_then_high = _correlate(low, high, n_lags=beat_lags[-1] + 2)
    n_peaks = [_count_peaks(envelope) for envelope in np.maximum(0, novelty).T]
    return np.concatenate(
        [
            histogram.ravel(),
            _interpolate(correlation, beat_lags).ravel(),
            _interpolate(low_then_high, np.append(0, beat_lags)).ravel(),
            np.array(n_peaks) * frames_per_s / len(onsets),
            [np.log2(BPM[beat] / PREFERRED_BPM), histogram[0, beat]],
        ]
    )


def _find_beat(correlation: Float64, lags: Float64) -> int:
    """Return the index in `BPM` of the tempo of the beat."""
    preference = np.exp(-0.5 * (np.log2(BPM / PREFERRED_BPM) / PREFERENCE_OCTAVES) ** 2)
    allowed = BPM.clip(*BEAT_BPM) == BPM
    # Interpolated values, not the maxima near the lags: neighbouring bins may share a maximum.
    strength = _interpolate(correlation, lags).sum(axis=0)
    return int(np.argmax(np.where(allowed, (strength + 1) * preference, 0)))


def _correlate(first: Float64, second: Float64, n_lags: float) -> Float64:
    """Return the correlation (bands, lags) of `first` (frames, bands) with `second`, taken `lag` frames later."""
    n_frames = len(first)
    size = scipy.fft.next_fast_len(n_frames + int(n_lags) + 2, real=True)
    product = np.conj(scipy.fft.rfft(first, size, axis=0)) * scipy.fft.rfft(second, size, axis=0)
    sums = scipy.fft.irfft(product, size, axis=0)[: int(n_lags) + 2].T
    energy = np.sqrt((first**2).sum(axis=0) * (second**2).sum(axis=0))[:, None]
    return np.asarray(sums / np.maximum(energy, 1e-9))


def _interpolate(correlation: Float64, lags: Float64) -> Float64:
    """Return a correlation (bands, whole lags) at fractional lags, (bands, len(lags))."""
    return np.stack([np.interp(lags, np.arange(correlation.shape[1]), band) for band in correlation])


def _maximum_near(correlation: Float64, lags: Float64) -> Float64:
    """Return the maximum of a correlation (bands, whole lags) around each lag of the beat histogram, (bands, bpm).

    At slow tempi a bin of the histogram is several frames wide, and a peak is narrower.
    """
    half_bin = 2 ** (1 / 24)
    return np.stack(
        [correlation[:, int(lag / half_bin) : int(np.ceil(lag * half_bin)) + 1].max(axis=1) for lag in lags], axis=1
    )


def _count_peaks(envelope: Float64) -> int:
    """Return the number of onsets in an envelope (frames,): peaks with a prominence above its deviation."""
    import scipy.signal

    return len(scipy.signal.find_peaks(envelope, prominence=max(1e-6, float(envelope.std())))[0])


@functools.lru_cache
def _to_bins(config: FeatureConfig) -> Float32:
    """Return weights (M, bins) that convert the power of mel bands to Fourier bins: the mean of a bin's bands."""
    bank = log_mel.filterbank(config).T  # (M, bins)
    band_areas, bin_sums = bank.sum(axis=1, keepdims=True), bank.sum(axis=0, keepdims=True)
    weights: Float32 = np.divide(bank, band_areas * bin_sums, out=np.zeros_like(bank), where=band_areas * bin_sums > 0)
    return weights


@functools.lru_cache
def _onset_bands(config: FeatureConfig) -> list[Float32]:
    """Return the weights (M,) of the mel bands in each onset band's mean; zeros if it contains no mel band."""
    centres = log_mel.band_centres(config.n_mels, config.fmin, config.fmax)
    inside = [((centres >= low) & (centres < high)).astype(np.float32) for low, high in ONSET_BANDS_HZ.values()]
    return [band / max(1.0, float(band.sum())) for band in inside]
