"""Batches made harder, so that a network cannot learn them by heart: log_mel (B, T, M) and targets (B, K)."""

import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from musictag.training.config import TrainingConfig

FILTER_POINTS = 6
LN_10 = math.log(10)


def augmented(
    batches: Iterable[tuple[Tensor, Tensor]], config: TrainingConfig, rng: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """The same batches, as far as the configuration asks for it augmented."""
    for log_mel, targets in batches:
        if config.filter_db:
            log_mel = filter_augment(log_mel, config.filter_db, rng)
        if config.mask_bands or config.mask_frames:
            log_mel = spec_augment(log_mel, config.mask_bands, config.mask_frames, rng)
        if config.mixup:
            log_mel, targets = mixup(log_mel, targets, config.mixup, rng)
        yield log_mel, targets


def mixup(log_mel: Tensor, targets: Tensor, alpha: float, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Each clip blended with another of the batch, and their targets alike; new tensors.

    The share is drawn once for all, from Beta(alpha, alpha) (Zhang et al., "mixup", ICLR 2018).
    """
    share = float(rng.beta(alpha, alpha))
    others = torch.from_numpy(rng.permutation(len(targets)))
    return share * log_mel + (1 - share) * log_mel[others], share * targets + (1 - share) * targets[others]


def filter_augment(log_mel: Tensor, decibels: float, rng: np.random.Generator) -> Tensor:
    """Each clip as another microphone or another mix would give it: bands louder and softer by a smooth random curve.

    The curve runs through `FILTER_POINTS` points, evenly over the bands, each drawn from a normal distribution around
    0 dB with this deviation (after Nam et al., "FilterAugment", ICASSP 2022). It works on power: silence stays silent.
    """
    n_bands = log_mel.shape[2]
    points = rng.normal(0, decibels, (len(log_mel), FILTER_POINTS))
    bands, knots = np.linspace(0, FILTER_POINTS - 1, n_bands), np.arange(FILTER_POINTS)
    curves = np.stack([np.interp(bands, knots, of_clip) for of_clip in points])  # (B, M), dB
    gains = torch.from_numpy(10 ** (curves / 10)).to(log_mel.dtype)[:, None]
    # From log10(1 + power) to power, and back.
    return log_mel.mul(LN_10).expm1_().mul_(gains).log1p_().div_(LN_10)


def spec_augment(log_mel: Tensor, n_bands: int, n_frames: int, rng: np.random.Generator) -> Tensor:
    """Each clip with a run of mel bands and a run of frames silenced, of any length up to these; a new tensor.

    Park et al., "SpecAugment", Interspeech 2019, without its warping of time, which would change tempo.
    """
    masked = log_mel.clone()
    for clip in masked:
        for axis, longest in ((1, n_bands), (0, n_frames)):
            length = int(rng.integers(min(longest, clip.shape[axis]) + 1))
            first = int(rng.integers(clip.shape[axis] - length + 1))
            clip.narrow(axis, first, length).zero_()
    return masked
