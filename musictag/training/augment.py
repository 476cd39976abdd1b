"""Random changes of training clips against overfitting."""

import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from musictag.training.config import TrainingConfig

FILTER_POINTS = 6
LN_10 = math.log(10)


def augment(
    batches: Iterable[tuple[Tensor, Tensor]], config: TrainingConfig, rng: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield each batch, log_mel (B, T, M) and targets (B, K), with the augmentations of the configuration."""
    for log_mel, targets in batches:
        if config.filter_db:
            log_mel = filter_augment(log_mel, config.filter_db, rng)
        yield log_mel, targets


def filter_augment(log_mel: Tensor, std_db: float, rng: np.random.Generator) -> Tensor:
    """Return clips (B, T, M) with levels changed per mel band, as another microphone or mix would change them.

    Each clip has a random curve of gains: linear between `FILTER_POINTS` points that are evenly spaced over the bands
    and drawn from a normal distribution with mean 0 and standard deviation `std_db`, in dB. Gains multiply power, so
    silence stays silent. After Nam et al., "FilterAugment", ICASSP 2022.
    """
    n_bands = log_mel.shape[2]
    points = rng.normal(0, std_db, (len(log_mel), FILTER_POINTS))
    bands, knots = np.linspace(0, FILTER_POINTS - 1, n_bands), np.arange(FILTER_POINTS)
    curves = np.stack([np.interp(bands, knots, clip_points) for clip_points in points])  # (B, M), dB
    gains = torch.from_numpy(10 ** (curves / 10)).to(log_mel.dtype)[:, None]
    # From log10(1 + power) to power, and back.
    return log_mel.mul(LN_10).expm1_().mul_(gains).log1p_().div_(LN_10)
