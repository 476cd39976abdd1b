"""The timbre path: 2-D convolutions over the spectrogram that keep pitch, then convolutions over time."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from musictag.errors import UsageError
from musictag.models.layers import are_widths

# Steps of the temporal convolution. A step is 8 frames (0.13 s), so 9 steps span 1.2 s: two beats at 100 bpm or faster;
# together with the receptive field of the earlier convolutions, two beats at 70 bpm or faster.
TEMPORAL_STEPS = 9


class TimbrePath(nn.Module):
    """Normalized spectrograms (B, M, T) to an embedding of their timbres (B, 2 * hidden).

    Shapes for `channels` = (8, 32, 64, 128), `hidden` = 128, clips of T = 187 frames and M = 96 bands:

    ================  =================  ========================================================================
    layer             output             why
    ================  =================  ========================================================================
    input             (B, 96, 187)       frequency is the height of an image
    block 1           (B, 8, 48, 94)     3x3 convolution, 2x2 max pool, batch norm, ReLU
    block 2           (B, 32, 24, 47)    the same
    block 3           (B, 64, 12, 24)    the same
    block 4           (B, 128, 6, 24)    the last block pools frequency only: 24 steps of 8 frames stay for rhythm
    flatten           (B, 768, 24)       each step holds its spectrum, so that pitch is not averaged out
    pitch             (B, 128, 24)       convolution of 1 step, batch norm, ReLU: chords, timbres, strokes
    rhythm            (B, 128, 24)       convolution of 9 steps, batch norm, ReLU: sequences of sounds and their timing
    pool over time    (B, 256)           mean (for how long) and maximum (whether it occurs)
    ================  =================  ========================================================================

    A block pools before batch norm and ReLU, which then process a quarter of the numbers. Pooling rounds sizes up, so
    that spectrograms of any size are accepted.

    Args:
        n_mels: M.
        channels: feature maps of each block.
        hidden: channels of the pitch and rhythm layers.

    Raises:
        UsageError: a parameter is invalid; the message names it.
    """

    def __init__(self, *, n_mels: int, channels: Sequence[int], hidden: int) -> None:
        super().__init__()
        for name, widths in (("n_mels", [n_mels]), ("hidden", [hidden]), ("channels", channels)):
            if not are_widths(widths):
                raise UsageError(f"{name} is {widths}: positive integers are needed")
        blocks: list[nn.Module] = []
        width, height = 1, n_mels
        for number, maps in enumerate(channels, start=1):
            pool = (2, 1) if number == len(channels) else (2, 2)
            blocks += [
                nn.Conv2d(width, maps, kernel_size=3, padding=1, bias=False),
                nn.MaxPool2d(pool, ceil_mode=True),
                nn.BatchNorm2d(maps),
                nn.ReLU(inplace=True),
            ]
            width, height = maps, -(-height // 2)
        # The layout channels_last halves the time on a CPU. `forward` gives its input the same layout, so that weights,
        # outputs and gradients all have it.
        self.blocks = nn.Sequential(*blocks).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.pitch = nn.Sequential(
            nn.Conv1d(width * height, hidden, kernel_size=1, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True)
        )
        self.rhythm = nn.Sequential(
            nn.Conv1d(hidden, hidden, kernel_size=TEMPORAL_STEPS, padding=TEMPORAL_STEPS // 2, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return embeddings (B, 2 * hidden) for spectrograms (B, M, T)."""
        x = x.contiguous().unsqueeze(-1).permute(0, 3, 1, 2)  # (B, 1, M, T), channels_last
        x = self.blocks(x).flatten(1, 2)  # (B, channels[-1] * M', T')
        x = self.rhythm(self.pitch(x))  # (B, hidden, T')
        return torch.cat([x.mean(dim=2), x.amax(dim=2)], dim=1)
