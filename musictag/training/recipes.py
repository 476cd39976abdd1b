"""Training settings that are known to work: from scratch, and from networks that are trained already."""

from musictag.training.config import TrainingConfig

FROM_SCRATCH = TrainingConfig(
    epochs=20,
    patience=8,
    batch_size=64,
    learning_rate=2e-3,
    clips_per_track=8,
    crop=True,
    filter_db=4.0,
)
"""How to train what starts from nothing: what was left of all that `docs/ablation.md` tried."""


FINE_TUNING = TrainingConfig(
    epochs=10,
    head_epochs=2,
    learning_rate=3e-3,
    body_rate=1 / 3,
    frozen_norm=True,
    clips_per_track=5,
    patience=4,
)
"""How to train what starts from other networks: what did best on the validation tracks of Emotify (ADR 9)."""


DEFAULT_MODEL = "three-path"
"""The network to train from nothing where none is named."""


FOLDS = 5
"""How many networks fine-tuning trains, each with another part of the tracks held back, to take their mean (ADR 9)."""
