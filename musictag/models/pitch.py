"""Which notes sound: a chromagram that learns its own partials, read alike in every key, so that mode can be heard."""

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from musictag.errors import UsageError
from musictag.log_mel import band_centres

OCTAVES, BINS_PER_OCTAVE = 5, 24
LOWEST_HZ = 130.8
"""C3: below it, mel bands are wider than a whole tone."""
LOW_OCTAVES = 2
"""The lower register: roots of chords lie there, and partials of the bass below it; melodies lie above."""
POOLED_FRAMES = 8
MOMENT = 3
"""Pooled frames in which the harmony is taken as one: 0.4 s, about a beat."""
PARTIAL_BINS = 33
"""Bins that a filter sees: an octave and the bins around, which hold the second partial of a tone."""
MAPS, PROFILES, CHORDS = 16, 64, 48


class PitchPath(nn.Module):
    """Levelled spectrograms (B, M, T) to which notes sound together in them, (B, width).

    Bands are read at even steps of pitch, octaves are folded into one for each of two registers, and learned profiles
    are held against the circle of pitch classes in all of its rotations, as key finding does (Krumhansl, "Cognitive
    foundations of musical pitch", 1990): a mode is the same in every key. All pentatonic modes have the same notes, and
    the lower register tells which of them is home. Profiles see the clip as a whole, chords each moment of it.
    Shapes for T = 187 frames and M = 96 bands:

    ====================  ================  ==================================================================
    layer                 output            why
    ====================  ================  ==================================================================
    mean of 8 frames      (B, 96, 24)       notes last longer
    bands to pitch        (B, 120, 24)      5 octaves of quarter tones, interpolated
    partials              (B, 16, 120, 24)  convolutions of 33 x 1 and 1 x 1, batch norm, ReLU: what is a tone
    octaves folded        (B, 32, 24, 24)   low and high, less the mean: which pitch classes stand out
    mean over time        (B, 32, 24)       how long each sounds
    profiles              (B, 64, 24)       in all rotations, batch norm, ReLU; maximum and mean over them
    mean of 3 frames      (B, 32, 24, 8)    moments
    chords                (B, 48, 24, 8)    in all rotations, batch norm, ReLU; maximum over them
    side by side          (B, 224)          profiles, mean and maximum of the chords over the moments
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
            nn.Conv1d(2 * MAPS, PROFILES, BINS_PER_OCTAVE, bias=False), nn.BatchNorm1d(PROFILES), nn.ReLU(inplace=True)
        )
        self.chords = nn.Sequential(
            nn.Conv2d(2 * MAPS, CHORDS, (BINS_PER_OCTAVE, 1), bias=False), nn.BatchNorm2d(CHORDS), nn.ReLU(inplace=True)
        )
        self.dense = nn.Linear(2 * PROFILES + 2 * CHORDS, width)

    def forward(self, x: Tensor) -> Tensor:
        """Spectrograms (B, M, T) to (B, width)."""
        x = self.get_buffer("pitches") @ functional.avg_pool1d(x, POOLED_FRAMES, ceil_mode=True)  # (B, 120, T')
        circle = fold(self.partials(x.unsqueeze(1)))  # (B, 32, 24, T')
        matches = self.profiles(rotations(circle.mean(dim=3)))  # (B, 64, 24), a rotation each
        moments = functional.avg_pool2d(circle, (1, MOMENT), ceil_mode=True)
        chords = self.chords(rotations(moments)).amax(dim=2)  # (B, 48, T'')
        heard = [matches.amax(dim=2), matches.mean(dim=2), chords.mean(dim=2), chords.amax(dim=2)]
        pitch: Tensor = self.dense(torch.cat(heard, dim=1))
        return pitch


def fold(tones: Tensor) -> Tensor:
    """Tones (B, C, 120, T) to pitch classes of the lower and of the higher octaves (B, 2 C, 24, T), 0 on average."""
    octaves = tones.unflatten(2, (OCTAVES, BINS_PER_OCTAVE))
    registers = octaves.split((LOW_OCTAVES, OCTAVES - LOW_OCTAVES), dim=2)
    circle = torch.cat([register.mean(dim=2) for register in registers], dim=1)
    return circle - circle.mean(dim=2, keepdim=True)


def rotations(circle: Tensor) -> Tensor:
    """The circle (B, C, 24, …) once and nearly again (B, C, 47, …), so that a convolution of 24 meets each rotation."""
    return torch.cat([circle, circle[:, :, :-1]], dim=2)


def _bands_to_pitches(n_mels: int, fmin: float, fmax: float) -> Tensor:
    """Weights (120, M) that read a spectrogram between its bands, at even steps of pitch."""
    bands = np.log2(band_centres(n_mels, fmin, fmax))
    pitches = math.log2(LOWEST_HZ) + np.arange(OCTAVES * BINS_PER_OCTAVE) / BINS_PER_OCTAVE
    weights = np.stack([np.interp(pitches, bands, band) for band in np.eye(n_mels)], axis=1)
    return torch.from_numpy(weights.astype(np.float32))
