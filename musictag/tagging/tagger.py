"""Features of tracks to scores and tags: clips through the network, joined per track, calibrated, thresholded.

A classical model hears a track whole: it scores the descriptors of all clips together. No engine is needed: the command
line, the tagging job, evaluation and training's validation all score through here.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import nn

from musictag.errors import FeatureMismatchError, UsageError
from musictag.evaluation.calibration import calibrate
from musictag.models.artifact import load_model
from musictag.models.classical import Classical
from musictag.models.specs import TaggerSpec
from musictag.tagging.scorers import Clips, Float32, Row, _described, join, score_clips, score_descriptors, score_tracks


class Tagger:
    """A model that is ready to tag.

    Attributes:
        spec: its vocabulary, thresholds, front end and provenance.
        model: its network, in evaluation mode on the device it was loaded to.
    """

    def __init__(self, model: nn.Module, spec: TaggerSpec, device: str = "cpu") -> None:
        self.spec = spec
        self.model = model.to(device).eval()

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Self:
        """The tagger of an artifact folder; `ModelError` if that is broken, `UsageError` if the device is not there."""
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise UsageError(f"device {device} is asked for, but torch finds no GPU here: use 'cpu'")
        return cls(*load_model(folder), device)

    def clip_scores(self, clips: Clips) -> Float32:
        """Scores (C, K) of the clips (C, T, M) of one track: its taggram, as the network gives it (not calibrated).

        A classical model takes each clip for a track of its own.
        """
        if isinstance(self.model, Classical):
            alone = [(clip[None], np.ones(1, dtype=np.float32)) for clip in clips]
            return score_descriptors(self.model, _described(alone, self.spec.feature_config))
        return score_clips(self.model, clips)

    def joined_scores(self, clip_scores: Float32, clips: Clips, weights: Float32) -> Float32:
        """Scores (K,), not calibrated, of a track from its `clip_scores` (C, K), clips (C, T, M) and weights (C,).

        A classical model does without the scores of the clips.
        """
        if isinstance(self.model, Classical):
            (clip_scores,) = score_descriptors(self.model, _described([(clips, weights)], self.spec.feature_config))
            return clip_scores
        return join(clip_scores, weights)

    def track_scores(self, rows: Iterable[Row]) -> Float32:
        """Calibrated scores (N, K) of tracks, in the order of their rows; see `score_tracks`."""
        scores = score_tracks(self.model, rows, self.spec.feature_config)
        return calibrate(scores.reshape(-1, len(self.spec.vocabulary)), self.spec.calibration)

    def tags_above(self, scores: Float32) -> list[tuple[str, float]]:
        """The tags whose calibrated score, of the (K,) of one track, is above its threshold, best first."""
        scored = zip(self.spec.vocabulary, scores.tolist(), self.spec.thresholds, strict=True)
        above = [(tag, score) for tag, score, threshold in scored if score > threshold]
        return sorted(above, key=lambda tag_score: -tag_score[1])


def check_features(spec: TaggerSpec, feature_hash: str) -> None:
    """Raise `FeatureMismatchError` unless features of this hash are what the model was trained on."""
    needed = spec.feature_config.feature_hash
    if feature_hash != needed:
        raise FeatureMismatchError(
            f"the features have hash {feature_hash}, the model needs {needed}: featurize with the model's settings, "
            f"{spec.feature_config.to_dict()}, into another table, or choose a model of these features"
        )
