"""The pitch path: a chromagram with learned filters for partials, and key-independent profiles of pitch classes."""

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from musictag.errors import UsageError
from musictag.features.log_mel import band_centres

OCTAVES, BINS_PER_OCTAVE = 5, 24
LOWEST_HZ = 130.8
"""C3. Mel bands are about 4 semitones apart in its octave, and 1 semitone or less above 500 Hz."""
POOLED_FRAMES = 8
PARTIAL_BINS = 33
"""Bins that a filter spans: more than an octave, so that it includes the second partial of a tone."""
MAPS, PROFILES = 16, 64


class PitchPath(nn.Module):
    """Normalized spectrograms (B, M, T) to an embedding of the notes that sound together in them (B, width).

    The mel bands are interpolated at even steps of pitch, all octaves are averaged into one, and learned profiles are
    compared with all rotations of the pitch classes, as in key finding (Krumhansl, "Cognitive foundations of musical
    pitch", 1990). A mode therefore gives the same result in every key. Shapes for T = 187 frames and M = 96 bands:

    ====================  ================  ==================================================================
    layer                 output            why
    ====================  ================  ==================================================================
    mean of 8 frames      (B, 96, 24)       notes are longer than that
    bands to pitch        (B, 120, 24)      5 octaves of quarter tones, interpolated
    partials              (B, 16, 120, 24)  convolutions of 33 x 1 and 1 x 1, batch norm, ReLU: detect tones
    mean over time        (B, 16, 120)      the duration of each tone
    octaves folded        (B, 16, 24)       minus the mean: the dominant pitch classes
    profiles              (B, 64, 24)       in all rotations, batch norm, ReLU
    maximum and mean      (B, 128)          over the rotations
    dense                 (B, width)
    ====================  ================  ==================================================================

    Args:
        n_mels: M.
        width: length of the embedding.
        fmin: lower edge of the lowest mel band, Hz.
        fmax: upper edge of the highest mel band, Hz.

    Raises:
        UsageError: `fmin` or `fmax` is not a number, or not 0 <= fmin < fmax.
    """

    def __init__(self, *, n_mels: int, width: int, fmin: float, fmax: float) -> None:
        super().__init__()
        if not all(isinstance(hz, int | float) for hz in (fmin, fmax)) or not 0 <= fmin < fmax < math.inf:
            raise UsageError(f"fmin is {fmin} and fmax {fmax}: finite numbers with 0 <= fmin < fmax are needed")
        self.register_buffer("pitches", _bands_to_pitches(n_mels, fmin, fmax))
        self.partials = nn.Sequential(
            nn.Conv2d(1, MAPS, (PARTIAL_BINS, 1), padding=(PARTIAL_BINS // 2, 0), bias=False),
            nn.BatchNorm2d(MAPS),
            nn.ReLU(inplace=True),
            nn.Conv2d(MAPS, MAPS, kernel_size=1, bias=False),
            nn.BatchNorm2d(MAPS),
            nn.ReLU(inplace=True),
        )
        self.profiles = nn.Sequential(
            nn.Conv1d(MAPS, PROFILES, BINS_PER_OCTAVE, bias=False), nn.BatchNorm1d(PROFILES), nn.ReLU(inplace=True)
        )
        self.dense = nn.Linear(2 * PROFILES, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return embeddings (B, width) for spectrograms (B, M, T)."""
        x = self.get_buffer("pitches") @ functional.avg_pool1d(x, POOLED_FRAMES, ceil_mode=True)  # (B, 120, T')
        tones = self.partials(x.unsqueeze(1)).mean(dim=3)  # (B, 16, 120)
        circle = tones.unflatten(2, (OCTAVES, BINS_PER_OCTAVE)).mean(dim=2)  # (B, 16, 24)
        circle = circle - circle.mean(dim=2, keepdim=True)
        matches = self.profiles(torch.cat([circle, circle[..., :-1]], dim=2))  # (B, 64, 24 rotations)
        pitch: Tensor = self.dense(torch.cat([matches.amax(dim=2), matches.mean(dim=2)], dim=1))
        return pitch


def _bands_to_pitches(n_mels: int, fmin: float, fmax: float) -> Tensor:
    """Return weights (120, M) that interpolate the bands of a spectrogram at even steps of pitch."""
    bands = np.log2(band_centres(n_mels, fmin, fmax))
    pitches = math.log2(LOWEST_HZ) + np.arange(OCTAVES * BINS_PER_OCTAVE) / BINS_PER_OCTAVE
    weights = np.stack([np.interp(pitches, bands, band) for band in np.eye(n_mels)], axis=1)
    return torch.from_numpy(weights.astype(np.float32))
