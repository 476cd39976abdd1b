"""The short-chunk residual network: many small convolutions with ways around them, and the loudest answer of all.

Won, Ferraro, Bogdanov & Serra, "Evaluation of CNN-based automatic music tagging models", SMC 2020.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from musictag.errors import UsageError
from musictag.models.timbre import dense, is_width


class ResNet(nn.Module):
    """Log-mel clips (B, T, M) float32 to logits (B, K).

    Shapes for the default `channels`, which are the paper's, T = 187 frames and M = 96 bands. They take a GPU; what two
    processor cores can train is a quarter of them, (32, 32, 64, 64, 64, 64, 128).

    ====================  ================  ================================================================
    layer                 output            why
    ====================  ================  ================================================================
    batch norm            (B, 1, 96, 187)   frequency is the height of an image
    residual 1            (B, 128, 48, 94)  two 3x3 convolutions, the first with a stride of 2
    residual 2            (B, 128, 24, 47)  the same, to the end
    residual 3            (B, 256, 12, 24)
    residual 4            (B, 256, 6, 12)
    residual 5            (B, 256, 3, 6)
    residual 6            (B, 256, 2, 3)
    residual 7            (B, 512, 1, 2)
    maximum over the rest (B, 512)          whether at all
    dense                 (B, 512)          dropout, ReLU, dropout
    head                  (B, K)            one logit per tag; the sigmoid is the caller's
    ====================  ================  ================================================================

    Args:
        n_mels: M.
        n_tags: K.
        channels: feature maps of each residual block.
        dropout: share of inputs dropped before each dense layer.

    Raises:
        UsageError: a parameter that cannot build a network, by name.
    """

    def __init__(
        self,
        *,
        n_mels: int,
        n_tags: int,
        channels: Sequence[int] = (128, 128, 256, 256, 256, 256, 512),
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if not isinstance(channels, Sequence) or not channels or not all(map(is_width, channels)):
            raise UsageError(f"channels is {channels}: positive whole numbers are needed")
        self.input_norm = nn.BatchNorm2d(1)
        widths = [1, *channels]
        self.blocks = nn.Sequential(*map(Residual, widths[:-1], widths[1:]))
        self.dense = dense(widths[-1], widths[-1], dropout)
        self.head = nn.Linear(widths[-1], n_tags)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Log-mel clips (B, T, M) float32 to logits (B, K)."""
        x = self.blocks(self.input_norm(log_mel.transpose(1, 2).unsqueeze(1)))  # (B, channels[-1], M', T')
        logits: Tensor = self.head(self.dense(x.amax(dim=(2, 3))))
        return logits


class Residual(nn.Module):
    """Two 3x3 convolutions and a way around them, both at half the resolution: (B, C, H, W) to (B, C', H/2, W/2)."""

    def __init__(self, width: int, maps: int) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(width, maps, kernel_size=3, stride=2, padding=1, bias=False)
        self.norm_1 = nn.BatchNorm2d(maps)
        self.conv_2 = nn.Conv2d(maps, maps, kernel_size=3, padding=1, bias=False)
        self.norm_2 = nn.BatchNorm2d(maps)
        self.around = nn.Sequential(
            nn.Conv2d(width, maps, kernel_size=3, stride=2, padding=1, bias=False), nn.BatchNorm2d(maps)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) to (B, C', H/2, W/2), rounded up."""
        through = self.norm_2(self.conv_2(functional.relu(self.norm_1(self.conv_1(x)))))
        return functional.relu(through + self.around(x))
