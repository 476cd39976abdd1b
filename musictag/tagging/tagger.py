"""Tag with a model: compute calibrated scores from feature rows, and compare them with the thresholds.

It needs no engine. The command line and the tagging job score with it; evaluation and training use `scorers`.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Self

import torch
from torch import nn

from musictag.errors import UsageError
from musictag.evaluation.calibration import calibrate
from musictag.models.artifact import load_model
from musictag.models.specs import TaggerSpec
from musictag.tagging.scorers import Clips, Float32, Row, WeightedClips, make_scorer, score_tracks


class Tagger:
    """A model with the spec that is needed to tag with it.

    Attributes:
        spec: vocabulary, thresholds, front end and provenance of the model.
        model: the network or classical model, in evaluation mode on its device.
    """

    def __init__(self, model: nn.Module, spec: TaggerSpec, device: str = "cpu") -> None:
        self.spec = spec
        self.model = model.to(device).eval()
        self._scorer = make_scorer(self.model, spec.feature_config)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Self:
        """Load an artifact folder.

        Raises:
            ModelError: the artifact is broken.
            UsageError: the device does not exist.
        """
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise UsageError(f"device {device} was requested, but torch finds no GPU here: use 'cpu'")
        return cls(*load_model(folder), device)

    def raw_clip_scores(self, clips: Clips) -> Float32:
        """Return the taggram of one track: scores (C, K), not calibrated, of its clips (C, T, M).

        A classical model scores each clip as if it were a whole track.
        """
        return self._scorer.clip_scores(clips)

    def raw_track_scores(self, clip_scores: Float32, clips: Clips, weights: Float32) -> Float32:
        """Return the scores (K,), not calibrated, of one track.

        Args:
            clip_scores: (C, K), the result of `raw_clip_scores(clips)`; a classical model does not use them.
            clips: (C, T, M).
            weights: (C,), the fraction of each clip that is audio.
        """
        return self._scorer.joined_scores(clip_scores, WeightedClips(clips, weights))

    def track_scores(self, rows: Iterable[Row]) -> Float32:
        """Return calibrated scores (N, K) of tracks, in the order of their rows; see `score_tracks`."""
        scores = score_tracks(self.model, rows, self.spec.feature_config)
        return calibrate(scores.reshape(-1, len(self.spec.vocabulary)), self.spec.calibration)

    def tags_above(self, scores: Float32) -> list[tuple[str, float]]:
        """Return (tag, score) for each calibrated score (K,) of one track above the tag's threshold, best first."""
        scored = zip(self.spec.vocabulary, scores.tolist(), self.spec.thresholds, strict=True)
        above = [(tag, score) for tag, score, threshold in scored if score > threshold]
        return sorted(above, key=lambda tag_score: -tag_score[1])
