"""Losses: functions of logits (B, K), and of targets (B, K) from 0 to 1, that return one number to minimize.

`training.loop.fit` takes any of them. `docs/ablation.md` compares binary cross-entropy with other losses.
"""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor], Tensor]


def binary_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean binary cross-entropy over all clips and tags."""
    return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean()
