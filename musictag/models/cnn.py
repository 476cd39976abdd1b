"""The poster's kind of network: convolutions, pooling, fully connected layers, one sigmoid per tag."""

from collections.abc import Sequence

from torch import Tensor, nn

from musictag.models.timbre import TimbrePath, dense


class CNN(nn.Module):
    """Log-mel clips (B, T, M) float32 to logits (B, K).

    Batch norm levels each mel band, `TimbrePath` says what sounds, then dropout, a dense layer with ReLU, dropout, and
    the head: one logit per tag; the sigmoid is the caller's.

    Args:
        n_mels: M.
        n_tags: K.
        channels: feature maps of each block.
        hidden: width of the layers after the blocks.
        dropout: share of inputs dropped before each dense layer.

    Raises:
        UsageError: a parameter that cannot build a network, by name.
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
        self.dense = dense(2 * hidden, hidden, dropout)
        self.head = nn.Linear(hidden, n_tags)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Log-mel clips (B, T, M) float32 to logits (B, K)."""
        x = self.input_norm(log_mel.transpose(1, 2))  # (B, M, T)
        logits: Tensor = self.head(self.dense(self.timbre(x)))
        return logits
