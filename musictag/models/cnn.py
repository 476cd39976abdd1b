"""A plain convolutional network: convolutions, pooling, fully connected layers, one output per tag."""

from collections.abc import Sequence

from torch import Tensor, nn

from musictag.models.layers import dense_layers
from musictag.models.timbre import TimbrePath


class CNN(nn.Module):
    """Log-mel clips (B, T, M) float32 to logits (B, K).

    Batch norm of each mel band, `TimbrePath`, dropout, a dense layer with ReLU, dropout, and the head: one logit per
    tag. The caller applies the sigmoid.

    Args:
        n_mels: M.
        n_tags: K.
        channels: feature maps of each block.
        hidden: width of the layers after the blocks.
        dropout: fraction of inputs dropped before each dense layer.

    Raises:
        UsageError: a parameter is invalid; the message names it.
    """

    def __init__(
        self,
        *,
        n_mels: int,
        n_tags: int,
        channels: Sequence[int] = (8, 32, 64, 128),
        hidden: int = 128,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        self.timbre = TimbrePath(n_mels=n_mels, channels=channels, hidden=hidden)
        self.input_norm = nn.BatchNorm1d(n_mels)
        self.dense = dense_layers(2 * hidden, hidden, dropout)
        self.head = nn.Linear(hidden, n_tags)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Return logits (B, K) for log-mel clips (B, T, M) float32."""
        x = self.input_norm(log_mel.transpose(1, 2))  # (B, M, T)
        logits: Tensor = self.head(self.dense(self.timbre(x)))
        return logits
