"""Models, tracks and batches of no size, for the tests of several modules."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from musictag.features.config import FeatureConfig
from musictag.features.table import encode_clips
from musictag.models.architectures import build_model
from musictag.models.specs import TaggerSpec

CONFIG = FeatureConfig(n_mels=16, clip_frames=24)
SPEC = TaggerSpec(
    architecture="cnn",
    params={"channels": (4, 8), "hidden": 16},
    feature_config=CONFIG,
    vocabulary=("drums", "piano", "sad"),
    thresholds=(0.5, 0.25, 0.75),
    calibration=((1.0, 0.0), (3.0, -0.5), (0.5, 0.1)),
    provenance={},
)
N_TAGS = len(SPEC.vocabulary)
STEPS = 4


def small_model(seed: int = 0) -> nn.Module:
    """What `SPEC` describes, with fresh weights, not in training."""
    torch.manual_seed(seed)
    return build_model("cnn", SPEC.params, n_mels=CONFIG.n_mels, n_tags=N_TAGS).eval()


def track(n_clips: int, seed: int, last_share: float = 1.0) -> dict[str, Any]:
    """A row of the features table: random clips, the last with so much of it audio."""
    clips = np.random.default_rng(seed).random((n_clips, CONFIG.clip_frames, CONFIG.n_mels)).astype(np.float16)
    return {
        "track_id": f"t{seed}",
        "clips": encode_clips(clips),
        "start_s": [clip * CONFIG.clip_seconds for clip in range(n_clips)],
        "duration_s": (n_clips - 1 + last_share) * CONFIG.clip_seconds,
    }


def clips_of(row: Mapping[str, Any]) -> np.ndarray:
    """The clips of a row (C, T, M), read without the code under test."""
    return np.frombuffer(row["clips"], np.float16).reshape(-1, CONFIG.clip_frames, CONFIG.n_mels)


def batches(seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """`STEPS` batches of 16 clips, in which a tag is a band that sounds."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(STEPS):
        targets = torch.randint(2, (16, N_TAGS), generator=generator).float()
        log_mel = torch.rand(16, CONFIG.clip_frames, CONFIG.n_mels, generator=generator)
        log_mel[:, :, [2, 7, 12]] += targets[:, None]
        yield log_mel, targets


def validate(model: nn.Module) -> Mapping[str, float]:
    """The loss on one batch that no seed of the tests trains on."""
    assert not model.training
    (log_mel, targets), *_ = batches(seed=99)
    with torch.inference_mode():
        return {"val_loss": nn.functional.binary_cross_entropy_with_logits(model(log_mel), targets).item()}
