"""The rhythm path: a tempogram of learned onset curves, from which tempo, swing and metre can be recognized."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

ONSET_BANDS = 16
ONSET_FRAMES = 5
SHORTEST_LAG, LONGEST_LAG = 6, 160
"""In frames: 0.1 s (an eighth at 300 bpm) to 2.6 s (a bar of three quarters at 70 bpm)."""
N_LAGS = 96
PATTERN_LAGS = 25
"""Lags that a filter spans: a factor of 2.3, so that it covers a pattern of beats and half beats."""
MAPS, KEPT_MAPS = 64, 32
MIN_ENERGY = 1e-3


class RhythmPath(nn.Module):
    """Normalized spectrograms (B, M, T) to an embedding of their rhythms (B, width).

    The path computes the autocorrelation of a few learned onset curves over the clip, at lags that are evenly spaced on
    a logarithmic scale. A pattern then has the same shape at any tempo and only its position differs (Gruhne & Dittmar,
    "Improving rhythmic pattern features based on logarithmic preprocessing", AES 2009). The frames are not pooled
    before, since swing is a difference of about 5 frames. Shapes for T = 187 frames and M = 96 bands:

    ====================  =============  =======================================================================
    layer                 output         why
    ====================  =============  =======================================================================
    onsets                (B, 16, 187)   convolution of 5 frames over all bands, batch norm, ReLU
    autocorrelation       (B, 16, 161)   of the deviation from the mean; 1 at lag 0
    logarithmic lags      (B, 16, 96)    interpolated; batch norm
    pattern               (B, 64, 96)    convolutions of 25 and 9 lags, batch norm, ReLU
    maximum over lags     (B, 64)        which patterns occur, at any tempo
    mean of 4 lags        (B, 768)       of 32 maps: at which tempo
    dense                 (B, width)
    ====================  =============  =======================================================================

    Args:
        n_mels: M.
        width: length of the embedding.
    """

    def __init__(self, *, n_mels: int, width: int) -> None:
        super().__init__()
        self.onsets = nn.Sequential(
            nn.Conv1d(n_mels, ONSET_BANDS, ONSET_FRAMES, padding=ONSET_FRAMES // 2, bias=False),
            nn.BatchNorm1d(ONSET_BANDS),
            nn.ReLU(inplace=True),
        )
        self.register_buffer("lags", log_lags())
        self.norm = nn.BatchNorm1d(ONSET_BANDS)
        self.pattern = nn.Sequential(
            nn.Conv1d(ONSET_BANDS, MAPS, PATTERN_LAGS, padding=PATTERN_LAGS // 2, bias=False),
            nn.BatchNorm1d(MAPS),
            nn.ReLU(inplace=True),
            nn.Conv1d(MAPS, MAPS, 9, padding=4, bias=False),
            nn.BatchNorm1d(MAPS),
            nn.ReLU(inplace=True),
        )
        self.kept = nn.Conv1d(MAPS, KEPT_MAPS, kernel_size=1)
        self.dense = nn.Linear(MAPS + KEPT_MAPS * N_LAGS // 4, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return embeddings (B, width) for spectrograms (B, M, T)."""
        correlation = autocorrelation(self.onsets(x), LONGEST_LAG)  # (B, 16, LONGEST_LAG + 1)
        patterns = self.pattern(self.norm(correlation @ self.get_buffer("lags")))  # (B, 64, N_LAGS)
        positions = functional.avg_pool1d(self.kept(patterns), 4).flatten(1)
        rhythm: Tensor = self.dense(torch.cat([patterns.amax(dim=2), positions], dim=1))
        return rhythm


def autocorrelation(x: Tensor, longest_lag: int) -> Tensor:
    """Return the autocorrelation of curves (..., T), minus their means: (..., longest_lag + 1), 1 at lag 0.

    At each lag, the sum of products is divided by their number, T - lag, or by T // 4 if that is larger. The result is
    always float32, since half precision has no Fourier transform.
    """
    n_frames = x.shape[-1]
    with torch.autocast(x.device.type, enabled=False):
        x = x.float() - x.float().mean(dim=-1, keepdim=True)
        n = 2 ** math.ceil(math.log2(n_frames + longest_lag + 1))
        spectrum = torch.fft.rfft(x, n=n)
        sums = torch.fft.irfft(spectrum.real.square() + spectrum.imag.square(), n=n)[..., : longest_lag + 1]
        n_products = (n_frames - torch.arange(longest_lag + 1, device=x.device)).clamp(min=max(1, n_frames // 4))
        means = sums / n_products
        correlation: Tensor = means / (means[..., :1] + MIN_ENERGY)
    return correlation


def log_lags() -> Tensor:
    """Return weights (LONGEST_LAG + 1, N_LAGS) that interpolate an autocorrelation at logarithmically even lags."""
    lags = torch.logspace(math.log10(SHORTEST_LAG), math.log10(LONGEST_LAG), N_LAGS, dtype=torch.float64)
    frames = torch.arange(LONGEST_LAG + 1, dtype=torch.float64)[:, None]
    return (1 - (frames - lags).abs()).clamp(min=0).float()
