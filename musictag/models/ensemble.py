"""Several networks as one: each hears the clip in its own way, and all have a say in every tag."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Ensemble(nn.Module):
    """Log-mel clips (B, T, M) float32 to logits (B, K): the mean of the members' logits.

    Members that end in a linear `head` make one linear head over the embeddings of all of them, side by side: what one
    has not learned to hear, another may have, and training all together lets each mend what the others miss.

    Args:
        members: networks of the same M and K, at least one.
    """

    def __init__(self, members: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Log-mel clips (B, T, M) float32 to logits (B, K)."""
        return torch.stack([member(log_mel) for member in self.members]).mean(dim=0)
