"""Our own network to train from nothing: it hears what sounds, when it sounds and which notes, each in its own way."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from musictag.models.pitch import PitchPath
from musictag.models.rhythm import RhythmPath
from musictag.models.timbre import TimbrePath, dense

RHYTHM_WIDTH, PITCH_WIDTH = 128, 64


class ThreePath(nn.Module):
    """Log-mel clips (B, T, M) float32 to logits (B, K).

    Convolutions over a spectrogram name instruments well, but pool away what tempo, swing and mode are made of: a few
    hundredths of a second, a semitone. Batch norm levels each mel band; then three paths hear the same clip, and their
    results lie side by side before the dense layers:

    =============  ==============  =======================================================================
    path           output          hears
    =============  ==============  =======================================================================
    `TimbrePath`   (B, 2 hidden)   what sounds; of every two frames the mean, as time is the next one's
    `RhythmPath`   (B, 128)        when: onsets, correlated with themselves
    `PitchPath`    (B, 64)         which notes: pitch classes in all keys
    =============  ==============  =======================================================================

    Args:
        n_mels: M.
        n_tags: K.
        channels: feature maps of the timbre path's blocks.
        hidden: width of its later layers and of the dense layer.
        dropout: share of inputs dropped before each dense layer.
        fmin: where the lowest mel band begins, Hz.
        fmax: where the highest ends, Hz.

    Raises:
        UsageError: a parameter that cannot build a network, by name.
    """

    def __init__(
        self,
        *,
        n_mels: int,
        n_tags: int,
        channels: Sequence[int] = (16, 32, 64, 128),
        hidden: int = 128,
        dropout: float = 0.3,
        fmin: float = 0.0,
        fmax: float = 8000.0,
    ) -> None:
        super().__init__()
        self.input_norm = nn.BatchNorm1d(n_mels)
        self.timbre = TimbrePath(n_mels=n_mels, channels=channels, hidden=hidden)
        self.rhythm = RhythmPath(n_mels=n_mels, width=RHYTHM_WIDTH)
        self.pitch = PitchPath(n_mels=n_mels, width=PITCH_WIDTH, fmin=fmin, fmax=fmax)
        width = 2 * hidden + RHYTHM_WIDTH + PITCH_WIDTH
        self.norm = nn.BatchNorm1d(width)
        self.dense = dense(width, hidden, dropout)
        self.head = nn.Linear(hidden, n_tags)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Log-mel clips (B, T, M) float32 to logits (B, K)."""
        x = self.input_norm(log_mel.transpose(1, 2))  # (B, M, T)
        heard = [self.timbre(functional.avg_pool1d(x, 2, ceil_mode=True)), self.rhythm(x), self.pitch(x)]
        logits: Tensor = self.head(self.dense(self.norm(torch.cat(heard, dim=1))))
        return logits
