"""Random changes of training clips against overfitting.

Random numbers are drawn with the batch, where it is made; they are applied on the device that trains.
"""

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

FILTER_POINTS = 6
LN_10 = math.log(10)


def draw_gains(n_clips: int, n_mels: int, std_db: float, rng: np.random.Generator) -> Tensor:
    """Return random gains of power (B, M), float32, one curve for each clip, as another microphone or mix has them.

    Each curve is linear, in dB, between `FILTER_POINTS` points that are evenly spaced over the bands and drawn from a
    normal distribution with mean 0 and standard deviation `std_db`. After Nam et al., "FilterAugment", ICASSP 2022.
    """
    points = rng.normal(0, std_db, (n_clips, FILTER_POINTS))
    return torch.from_numpy((10 ** (points @ _interpolation(n_mels) / 10)).astype(np.float32))


def apply_gains(log_mel: Tensor, gains: Tensor) -> Tensor:
    """Return clips (B, T, M), float32, with the power of each mel band multiplied by gains (B, M).

    Silence stays silent. Both are on one device.
    """
    # From log10(1 + power) to power, and back.
    return log_mel.mul(LN_10).expm1_().mul_(gains[:, None]).log1p_().div_(LN_10)


def _interpolation(n_mels: int) -> npt.NDArray[np.float64]:
    """Return the weight of each point at each band, (`FILTER_POINTS`, M)."""
    bands, points = np.linspace(0, FILTER_POINTS - 1, n_mels), np.arange(FILTER_POINTS)
    weights: npt.NDArray[np.float64] = np.maximum(0.0, 1 - np.abs(bands - points[:, None]))
    return weights
