"""What a network is told of its mistakes: losses of logits against targets, decision by decision.

Logits and targets are (B, K); targets are shares from 0 to 1, for mixup and smoothing blend them. A loss is (B, K);
what trains is the mean of one, made of a name and its settings by `mean_loss`.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

FOCUS = 2.0
"""The focal loss's exponent."""
FOCUS_POSITIVE, FOCUS_NEGATIVE, MARGIN = 1.0, 4.0, 0.05
"""The asymmetric loss's exponents, and how low a negative's score must be to count no more."""

LEAST_SHARE = 1e-3


def bce(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy of each tag, by itself."""
    return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def focal(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy that counts less the surer a decision is right (Lin et al., "Focal loss", ICCV 2017)."""
    scores = torch.sigmoid(logits)
    wrong = targets * (1 - scores) + (1 - targets) * scores
    return wrong**FOCUS * bce(logits, targets)


def asymmetric(logits: Tensor, targets: Tensor) -> Tensor:
    """A focal loss that forgives negatives sooner, low ones wholly (Ridnik et al., "Asymmetric loss", ICCV 2021)."""
    scores = torch.sigmoid(logits)
    shifted = (scores - MARGIN).clamp(min=0)
    positive = (1 - scores) ** FOCUS_POSITIVE * -functional.logsigmoid(logits)
    negative = shifted**FOCUS_NEGATIVE * -torch.log1p(-shifted)
    return targets * positive + (1 - targets) * negative


Loss = Callable[[Tensor, Tensor], Tensor]

LOSSES: dict[str, Loss] = {"bce": bce, "focal": focal, "asymmetric": asymmetric}


def mean_loss(
    logits: Tensor, targets: Tensor, *, name: str = "bce", smoothing: float = 0.0, weights: Tensor | None = None
) -> Tensor:
    """The mean over all decisions, a number.

    Args:
        logits: of a batch.
        targets: theirs.
        name: of the loss in `LOSSES`.
        smoothing: share of the way to 1/2 that targets are moved first (Szegedy et al., "Rethinking the inception
            architecture for computer vision", CVPR 2016).
        weights: (K,), how much a positive of each tag weighs; None: as much as a negative.
    """
    loss = LOSSES[name](logits, targets * (1 - smoothing) + smoothing / 2)
    if weights is not None:
        loss = loss * (1 + targets * (weights.to(targets.device) - 1))
    return loss.mean()


def class_weights(shares: npt.ArrayLike, strength: float) -> Tensor:
    """The weight (K,) of a tag's positives, from the share of tracks (K,) that have it, which is kept above 0.1 %.

    At a strength of 1 positives and negatives of a tag count alike in all; at 0 every decision counts alike.
    """
    inside = np.clip(np.asarray(shares, dtype=np.float64), LEAST_SHARE, 1 - LEAST_SHARE)
    return torch.from_numpy(((1 - inside) / inside) ** strength).float()
