"""Several networks that are trained and used as one."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Ensemble(nn.Module):
    """Log-mel clips (B, T, M) float32 to logits (B, K): the mean of the members' logits.

    If each member ends in a linear `head`, the ensemble is one linear head over the concatenated embeddings of all
    members, and training it fits all of them to a common loss.

    Args:
        members: networks with the same M and K, at least one.
    """

    def __init__(self, members: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Return logits (B, K) for log-mel clips (B, T, M) float32."""
        return torch.stack([member(log_mel) for member in self.members]).mean(dim=0)
