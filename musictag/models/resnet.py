"""The short-chunk residual network: 3x3 convolutions with shortcuts, then the maximum over frequency and time.

Won, Ferraro, Bogdanov & Serra, "Evaluation of CNN-based automatic music tagging models", SMC 2020.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from musictag.errors import UsageError
from musictag.models.layers import are_widths, dense_layers


class ResNet(nn.Module):
    """Log-mel clips (B, T, M) float32 to logits (B, K).

    Shapes for the default `channels`, those of the paper, T = 187 frames and M = 96 bands. Training with the default
    needs a GPU; two CPU cores can train a quarter of the channels, (32, 32, 64, 64, 64, 64, 128).

    ====================  ================  ================================================================
    layer                 output            why
    ====================  ================  ================================================================
    batch norm            (B, 1, 96, 187)   frequency is the height of an image
    residual 1            (B, 128, 48, 94)  two 3x3 convolutions, the first with a stride of 2
    residual 2            (B, 128, 24, 47)  like residual 1, as are all following blocks
    residual 3            (B, 256, 12, 24)
    residual 4            (B, 256, 6, 12)
    residual 5            (B, 256, 3, 6)
    residual 6            (B, 256, 2, 3)
    residual 7            (B, 512, 1, 2)
    global maximum        (B, 512)          whether a feature occurs anywhere
    dense                 (B, 512)          dropout, ReLU, dropout
    head                  (B, K)            one logit per tag; the caller applies the sigmoid
    ====================  ================  ================================================================

    Args:
        n_mels: M.
        n_tags: K.
        channels: feature maps of each residual block.
        dropout: fraction of inputs dropped before each dense layer.

    Raises:
        UsageError: a parameter is invalid; the message names it.
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
        if not are_widths(channels):
            raise UsageError(f"channels is {channels}: positive integers are needed")
        self.input_norm = nn.BatchNorm2d(1)
        widths = [1, *channels]
        self.blocks = nn.Sequential(*map(Residual, widths[:-1], widths[1:]))
        self.dense = dense_layers(widths[-1], widths[-1], dropout)
        self.head = nn.Linear(widths[-1], n_tags)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Return logits (B, K) for log-mel clips (B, T, M) float32."""
        x = self.blocks(self.input_norm(log_mel.transpose(1, 2).unsqueeze(1)))  # (B, channels[-1], M', T')
        logits: Tensor = self.head(self.dense(x.amax(dim=(2, 3))))
        return logits


class Residual(nn.Module):
    """Two 3x3 convolutions and a shortcut, both with a stride of 2: (B, C, H, W) to (B, C', H/2, W/2)."""

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
        """Return images (B, C', H/2, W/2), rounded up, for images (B, C, H, W)."""
        residual = self.norm_2(self.conv_2(functional.relu(self.norm_1(self.conv_1(x)))))
        return functional.relu(residual + self.around(x))
