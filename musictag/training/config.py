"""How to train: the settings, and the learning rate that follows from them."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from musictag.errors import UsageError
from musictag.training.losses import LOSSES

SCHEDULES = ("cosine", "plateau")
PLATEAU_EPOCHS = 2
"""Epochs without a better validation loss after which the plateau schedule halves the learning rate."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How to train; validated when made, `UsageError` names the field."""

    epochs: int = 30
    """Passes over the training tracks, at most."""
    batch_size: int = 32
    """Clips of a step, on each worker."""
    learning_rate: float = 1e-3
    """The peak of the head's schedule."""
    weight_decay: float = 1e-4
    """AdamW's (Loshchilov & Hutter, 2019)."""
    clips_per_track: int = 4
    """Random clips of each track in one epoch."""
    shuffle_clips: int = 2048
    """Clips that wait in memory to be shuffled."""
    patience: int = 6
    """Epochs without a better validation loss after which training ends."""
    warmup: float = 0.05
    """Share of all steps in which the learning rate rises to its peak."""
    head_epochs: int = 0
    """Epochs at the start in which the head alone learns."""
    body_rate: float = 1.0
    """Learning rate of the body as a share of the head's; 0 trains the head alone."""
    schedule: str = "cosine"
    """How the learning rate falls after its peak: "cosine", or by half on a "plateau" of the validation loss."""
    averaging: float = 0.0
    """What is judged and kept is the mean of the weights over the last steps, each step before counting so much less
    (exponential moving average); 0 keeps the last weights themselves."""
    loss: str = "bce"
    """A name in `musictag.training.losses.LOSSES`."""
    smoothing: float = 0.0
    """Share of the way from 0 and 1 to 1/2 that targets are moved (label smoothing)."""
    class_weight: float = 0.0
    """How far rare positives weigh more: see `musictag.training.losses.class_weights`."""
    mixup: float = 0.0
    """Alpha of `musictag.training.augment.mixup`; 0 does without."""
    crop: bool = False
    """Clips begin at any frame of a track, not only where the table's do: see `training.batches.clip_batches`."""
    filter_db: float = 0.0
    """Deviation of the curve by which `musictag.training.augment.filter_augment` changes levels, dB; 0 does without."""
    mask_bands: int = 0
    """Mel bands that `musictag.training.augment.spec_augment` silences, at most."""
    mask_frames: int = 0
    """Frames that it silences, at most."""
    frozen_norm: bool = False
    """Batch norm keeps the statistics that it has: of a hundred thousand songs they are better than of a batch."""
    seed: int = 0
    """Decides everything random."""

    def __post_init__(self) -> None:
        for name, least in (
            ("epochs", 1), ("head_epochs", 0), ("batch_size", 2), ("clips_per_track", 1), ("shuffle_clips", 1),
            ("patience", 1), ("mask_bands", 0), ("mask_frames", 0), ("seed", 0),
        ):  # fmt: skip
            if getattr(self, name) < least:
                raise UsageError(f"TrainingConfig.{name} is {getattr(self, name)}: it must be at least {least}")
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise UsageError(f"TrainingConfig.learning_rate is {self.learning_rate}: it must be positive")
        for name in ("weight_decay", "body_rate", "mixup", "class_weight", "filter_db"):
            if not (getattr(self, name) >= 0 and math.isfinite(getattr(self, name))):
                raise UsageError(f"TrainingConfig.{name} is {getattr(self, name)}: it must not be negative")
        for name in ("warmup", "averaging", "smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"TrainingConfig.{name} is {getattr(self, name)}: it must be at least 0 and below 1")
        for name, known in (("schedule", SCHEDULES), ("loss", LOSSES)):
            if getattr(self, name) not in known:
                raise UsageError(f"TrainingConfig.{name} is {getattr(self, name)!r}: it is one of {', '.join(known)}")
        if self.schedule == "plateau" and self.head_epochs:
            raise UsageError(f"TrainingConfig.head_epochs is {self.head_epochs}: it goes with the cosine schedule only")


def learning_rate_at(progress: float, config: TrainingConfig, history: Sequence[Mapping[str, float]] = ()) -> float:
    """Learning rate after the share `progress` (0 to 1) of all steps: linear warm-up, then the schedule's fall.

    `history` has the `val_loss` of each epoch that is over; a plateau is seen in it.
    """
    if progress < config.warmup:
        return config.learning_rate * progress / config.warmup
    if config.schedule == "plateau":
        return config.learning_rate * 0.5 ** _plateaus([epoch["val_loss"] for epoch in history])
    return config.learning_rate * _cosine(progress, config.warmup)


def body_rate_at(progress: float, config: TrainingConfig, history: Sequence[Mapping[str, float]] = ()) -> float:
    """The body's learning rate: a share of the head's; after head epochs it sets in at its peak and falls to 0."""
    if not config.head_epochs:
        return config.body_rate * learning_rate_at(progress, config, history)
    start = config.head_epochs / config.epochs
    if min(progress, 1.0) <= start:
        return 0.0
    return config.body_rate * config.learning_rate * _cosine(progress, start)


def _plateaus(val_losses: Sequence[float]) -> int:
    """How often the lowest loss so far stood for `PLATEAU_EPOCHS` epochs."""
    lowest, waited, plateaus = math.inf, 0, 0
    for val_loss in val_losses:
        waited = 0 if val_loss < lowest else waited + 1
        lowest = min(lowest, val_loss)
        if waited == PLATEAU_EPOCHS:
            waited, plateaus = 0, plateaus + 1
    return plateaus


def _cosine(progress: float, start: float) -> float:
    """Half a cosine from 1 at `start` to 0 at 1 and beyond."""
    falling = (min(progress, 1.0) - start) / (1 - start)
    return 0.5 * (1 + math.cos(math.pi * falling))
