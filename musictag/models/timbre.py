"""What sounds: convolutions over the spectrogram, which keep pitch, then a look along time."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from musictag.errors import UsageError

# Steps of the temporal convolution. A step is 8 frames (0.13 s), so 9 steps see 1.2 s: two beats down to 100 bpm, and
# with what the convolutions below see around them, down to 70 bpm.
TEMPORAL_STEPS = 9


class TimbrePath(nn.Module):
    """Levelled spectrograms (B, M, T) to what sounds in them, (B, 2 * hidden).

    Shapes for `channels` = (8, 32, 64, 128), `hidden` = 128, clips of T = 187 frames and M = 96 bands:

    ================  =================  ========================================================================
    layer             output             why
    ================  =================  ========================================================================
    input             (B, 96, 187)       frequency is the height of an image
    block 1           (B, 8, 48, 94)     3x3 convolution, 2x2 max pool, batch norm, ReLU
    block 2           (B, 32, 24, 47)    the same
    block 3           (B, 64, 12, 24)    the same
    block 4           (B, 128, 6, 24)    the last block pools frequency only: 24 steps of 8 frames stay for rhythm
    flatten           (B, 768, 24)       each step holds its spectrum: pitch is a place here, not averaged away
    pitch             (B, 128, 24)       convolution of 1 step, batch norm, ReLU: chords, timbres, strokes
    rhythm            (B, 128, 24)       convolution of 9 steps, batch norm, ReLU: what follows what, how soon
    pool over time    (B, 256)           mean (how much of the clip) and max (whether at all)
    ================  =================  ========================================================================

    A block pools before it normalizes: ReLU and max pool commute, and what follows then sees a quarter of the numbers.
    Pooling rounds sizes up, so that clips and spectrograms of any size pass.

    Args:
        n_mels: M.
        channels: feature maps of each block.
        hidden: width of what comes after them.

    Raises:
        UsageError: a parameter that cannot build a network, by name.
    """

    def __init__(self, *, n_mels: int, channels: Sequence[int], hidden: int) -> None:
        super().__init__()
        for name, widths in (("n_mels", [n_mels]), ("hidden", [hidden]), ("channels", channels)):
            if not isinstance(widths, Sequence) or not widths or not all(map(is_width, widths)):
                raise UsageError(f"{name} is {widths}: positive whole numbers are needed")
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
        # Half the time on a CPU; `forward` lays its input out alike, so that weights, outputs and gradients all agree.
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
        """Spectrograms (B, M, T) to (B, 2 * hidden)."""
        x = x.contiguous().unsqueeze(-1).permute(0, 3, 1, 2)  # (B, 1, M, T), laid out channels last
        x = self.blocks(x).flatten(1, 2)  # (B, channels[-1] * M', T')
        x = self.rhythm(self.pitch(x))  # (B, hidden, T')
        return torch.cat([x.mean(dim=2), x.amax(dim=2)], dim=1)


def dense(width: int, hidden: int, dropout: float) -> nn.Sequential:
    """The layers between what the paths heard (B, width) and the head, which gets (B, hidden).

    Raises `UsageError` unless `dropout`, the share of inputs dropped before each dense layer, is from 0 to below 1.
    """
    if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise UsageError(f"dropout is {dropout}: it must be at least 0 and below 1")
    return nn.Sequential(nn.Dropout(dropout), nn.Linear(width, hidden), nn.ReLU(inplace=True), nn.Dropout(dropout))


def is_width(number: object) -> bool:
    """Whether this is a number of channels."""
    return isinstance(number, int) and number > 0
