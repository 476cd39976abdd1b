"""A network to train from scratch, with separate paths for timbre, rhythm and pitch."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from musictag.models.layers import dense_layers
from musictag.models.pitch import PitchPath
from musictag.models.rhythm import RhythmPath
from musictag.models.timbre import TimbrePath

RHYTHM_WIDTH, PITCH_WIDTH = 128, 64


class ThreePath(nn.Module):
    """Log-mel clips (B, T, M) float32 to logits (B, K).

    Convolutions over a spectrogram recognize instruments well, but their pooling removes the small differences that
    tempo, swing and mode depend on: a few hundredths of a second, a semitone. Therefore, after batch norm of each mel
    band, three paths process the same clip, and the dense layers get their concatenated results:

    =============  ==============  =======================================================================
    path           output          represents
    =============  ==============  =======================================================================
    `TimbrePath`   (B, 2 hidden)   timbres; its input is the mean of every two frames
    `RhythmPath`   (B, 128)        rhythms: the autocorrelation of onsets
    `PitchPath`    (B, 64)         chords and modes: pitch classes, in all keys
    =============  ==============  =======================================================================

    Args:
        n_mels: M.
        n_tags: K.
        channels: feature maps of the timbre path's blocks.
        hidden: width of the timbre path's later layers and of the dense layer.
        dropout: fraction of inputs dropped before each dense layer.
        fmin: lower edge of the lowest mel band, Hz.
        fmax: upper edge of the highest mel band, Hz.

    Raises:
        UsageError: a parameter is invalid; the message names it.
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
        self.dense = dense_layers(width, hidden, dropout)
        self.head = nn.Linear(hidden, n_tags)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Return logits (B, K) for log-mel clips (B, T, M) float32."""
        x = self.input_norm(log_mel.transpose(1, 2))  # (B, M, T)
        paths = [self.timbre(functional.avg_pool1d(x, 2, ceil_mode=True)), self.rhythm(x), self.pitch(x)]
        logits: Tensor = self.head(self.dense(self.norm(torch.cat(paths, dim=1))))
        return logits
