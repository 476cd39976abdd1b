"""Training settings, and the learning rates that follow from them."""

import dataclasses
import math

from musictag.errors import UsageError

MINIMUMS = {
    "epochs": 1, "head_epochs": 0, "batch_size": 2, "clips_per_track": 1, "shuffle_clips": 1, "patience": 1, "seed": 0,
    "weight_decay": 0, "body_rate": 0, "filter_db": 0,
}  # fmt: skip
"""The smallest allowed values of settings."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Training settings. Raises `UsageError`, which names the field, for a value out of range."""

    epochs: int = 30
    """Maximum number of passes over the training tracks."""
    batch_size: int = 32
    """Clips per step of all workers together."""
    learning_rate: float = 1e-3
    """Peak learning rate of the head."""
    weight_decay: float = 1e-4
    """Weight decay of AdamW (Loshchilov & Hutter, 2019)."""
    clips_per_track: int = 4
    """Random clips of each track per epoch."""
    shuffle_clips: int = 2048
    """Size of the shuffle buffer, in clips."""
    patience: int = 6
    """Training ends after this number of epochs without a lower validation loss."""
    warmup: float = 0.05
    """Share of all steps in which the learning rate rises to its peak."""
    head_epochs: int = 0
    """Epochs at the start in which only the head is trained."""
    body_rate: float = 1.0
    """Learning rate of the body as a share of the head's; 0 trains only the head."""
    crop: bool = False
    """Cut clips at random frames of a track, see `training.batches.clip_batches`."""
    filter_db: float = 0.0
    """Standard deviation of `training.augment.filter_augment`, in dB; 0 turns it off."""
    frozen_norm: bool = False
    """Keep the statistics of batch normalization: those of a large training set are better than those of a batch."""
    seed: int = 0
    """Seed of all random numbers."""

    def __post_init__(self) -> None:
        for name, minimum in MINIMUMS.items():
            value = getattr(self, name)
            if not (value >= minimum and math.isfinite(value)):
                raise UsageError(f"TrainingConfig.{name} is {value}: it must be at least {minimum}")
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise UsageError(f"TrainingConfig.learning_rate is {self.learning_rate}: it must be positive")
        if not 0 <= self.warmup < 1:
            raise UsageError(f"TrainingConfig.warmup is {self.warmup}: it must be at least 0 and below 1")

    def per_worker(self, n_workers: int) -> "TrainingConfig":
        """Return the settings of each of several workers, which divide a batch evenly.

        Raises `UsageError` if the batch size is no multiple of the number of workers, or leaves one clip for each.
        """
        share, rest = divmod(self.batch_size, n_workers)
        if rest or share < MINIMUMS["batch_size"]:
            nearest = max(MINIMUMS["batch_size"], round(self.batch_size / n_workers)) * n_workers
            raise UsageError(
                f"a batch of {self.batch_size} clips cannot be divided by {n_workers} workers into equal shares of at "
                f"least {MINIMUMS['batch_size']}: choose another --batch-size, such as {nearest}, or another number of "
                "workers"
            )
        return dataclasses.replace(self, batch_size=share)


def learning_rate_at(progress: float, config: TrainingConfig) -> float:
    """Return the head's learning rate after a share `progress` of all steps: linear warm-up, then a cosine to 0."""
    if progress < config.warmup:
        return config.learning_rate * progress / config.warmup
    return config.learning_rate * _cosine(progress, config.warmup)


def body_rate_at(progress: float, config: TrainingConfig) -> float:
    """Return the body's learning rate after a share `progress` of all steps.

    Without head epochs it is a constant share of the head's. With head epochs it is 0 during them, then starts at its
    peak without a warm-up and falls to 0.
    """
    if not config.head_epochs:
        return config.body_rate * learning_rate_at(progress, config)
    start = config.head_epochs / config.epochs
    if min(progress, 1.0) <= start:
        return 0.0
    return config.body_rate * config.learning_rate * _cosine(progress, start)


def _cosine(progress: float, start: float) -> float:
    """Return half a cosine, from 1 at `start` to 0 at 1 and later."""
    falling = (min(progress, 1.0) - start) / (1 - start)
    return 0.5 * (1 + math.cos(math.pi * falling))
