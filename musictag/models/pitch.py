"""Which notes sound: a chromagram that learns its own partials, read alike in every key, so that mode can be heard."""

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from musictag.errors import UsageError
from musictag.features.log_mel import band_centres

OCTAVES, BINS_PER_OCTAVE = 5, 24
LOWEST_HZ = 130.8
"""C3. In its octave mel bands lie some 4 semitones apart, from 500 Hz on one or less."""
POOLED_FRAMES = 8
PARTIAL_BINS = 33
"""Bins that a filter sees: an octave and the bins around, which hold the second partial of a tone."""
MAPS, PROFILES = 16, 64


class PitchPath(nn.Module):
    """Levelled spectrograms (B, M, T) to which notes sound together in them, (B, width).

    Bands are read at even steps of pitch, octaves are folded into one, and learned profiles are held against the circle
    of pitch classes in all of its rotations, as key finding does (Krumhansl, "Cognitive foundations of musical pitch",
    1990): a mode is the same in every key. Shapes for T = 187 frames and M = 96 bands:

    ====================  ================  ==================================================================
    layer                 output            why
    ====================  ================  ==================================================================
    mean of 8 frames      (B, 96, 24)       notes last longer
    bands to pitch        (B, 120, 24)      5 octaves of quarter tones, interpolated
    partials              (B, 16, 120, 24)  convolutions of 33 x 1 and 1 x 1, batch norm, ReLU: what is a tone
    mean over time        (B, 16, 120)      how long each tone sounds
    octaves folded        (B, 16, 24)       less the mean: which pitch classes stand out
    profiles              (B, 64, 24)       in all rotations, batch norm, ReLU
    maximum and mean      (B, 128)          over the rotations
    dense                 (B, width)
    ====================  ================  ==================================================================

    Args:
        n_mels: M.
        width: length of the result.
        fmin: where the lowest mel band begins, Hz.
        fmax: where the highest ends, Hz.

    Raises:
        UsageError: no bands lie between `fmin` and `fmax`.
    """

    def __init__(self, *, n_mels: int, width: int, fmin: float, fmax: float) -> None:
        super().__init__()
        if not all(isinstance(hz, int | float) for hz in (fmin, fmax)) or not 0 <= fmin < fmax < math.inf:
            raise UsageError(f"fmin is {fmin} and fmax {fmax}: mel bands lie between two frequencies from 0 Hz upwards")
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
        """Spectrograms (B, M, T) to (B, width)."""
        x = self.get_buffer("pitches") @ functional.avg_pool1d(x, POOLED_FRAMES, ceil_mode=True)  # (B, 120, T')
        tones = self.partials(x.unsqueeze(1)).mean(dim=3)  # (B, 16, 120)
        circle = tones.unflatten(2, (OCTAVES, BINS_PER_OCTAVE)).mean(dim=2)  # (B, 16, 24)
        circle = circle - circle.mean(dim=2, keepdim=True)
        matches = self.profiles(torch.cat([circle, circle[..., :-1]], dim=2))  # (B, 64, 24), a rotation each
        pitch: Tensor = self.dense(torch.cat([matches.amax(dim=2), matches.mean(dim=2)], dim=1))
        return pitch


def _bands_to_pitches(n_mels: int, fmin: float, fmax: float) -> Tensor:
    """Weights (120, M) that read a spectrogram between its bands, at even steps of pitch."""
    bands = np.log2(band_centres(n_mels, fmin, fmax))
    pitches = math.log2(LOWEST_HZ) + np.arange(OCTAVES * BINS_PER_OCTAVE) / BINS_PER_OCTAVE
    weights = np.stack([np.interp(pitches, bands, band) for band in np.eye(n_mels)], axis=1)
    return torch.from_numpy(weights.astype(np.float32))
