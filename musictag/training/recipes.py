"""Training settings that work: for training from scratch, and for fine-tuning."""

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
"""Settings to train a network from scratch; chosen in `docs/ablation.md`."""


FINE_TUNING = TrainingConfig(
    epochs=10,
    head_epochs=2,
    learning_rate=3e-3,
    body_rate=1 / 3,
    frozen_norm=True,
    clips_per_track=5,
    patience=4,
)
"""Settings to train a pretrained network; the best ones on the validation tracks of Emotify (ADR 9)."""


DEFAULT_MODEL = "three-path"
"""Network to train from scratch by default."""


FOLDS = 5
"""Default number of folds in fine-tuning; their networks are averaged (ADR 9)."""
