"""Features of tracks to scores and tags: clips through the network, joined per track, calibrated, thresholded.

A classical model hears a track whole: it scores the descriptors of all clips together. No engine is needed: the command
line, the tagging job, evaluation and training's validation all score through here.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from musictag.errors import FeatureMismatchError, UsageError
from musictag.evaluation import metrics
from musictag.features.clips import clip_weights
from musictag.features.config import FeatureConfig
from musictag.features.descriptors import VERSION, describe
from musictag.features.table import decode_clips
from musictag.models.artifact import TaggerSpec, load_model
from musictag.models.classical import Classical

Row = Mapping[str, Any]
Float32 = npt.NDArray[np.float32]
Clips = npt.NDArray[np.float16] | Float32
# Clips (C, T, M) and weights (C,) of a track.
Track = tuple[Clips, Float32]

SCORE_COLUMNS = ("track_id", "duration_s", "n_clips", "start_s", "clips")
"""Columns of the features table that scoring reads."""
# Clips that go through the network together. On a CPU what a small batch makes of a clip stays in the cache: musicnn
# takes up to twice as long for a clip in batches of 64. A GPU must have work for all of it.
BATCH_SIZE, GPU_BATCH_SIZE = 8, 256
# Tracks are decoded until they fill so many batches, then scored together: a track of two clips costs two clips, and
# memory does not grow with the number of tracks.
BATCHES_AT_ONCE = 8


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


def score_tracks(
    model: nn.Module, rows: Iterable[Row], config: FeatureConfig, *, batch_size: int | None = None
) -> Float32:
    """Joined scores (N, K), not calibrated, of tracks in the order of their rows; (0, 0) if there are none.

    Args:
        model: log_mel (B, T, M) to logits (B, K), or a classical one, on any device; its mode is restored afterwards.
        rows: one per track, with `clips` (the table's cell), `start_s` (C,) and `duration_s`; read once.
        config: the front end that made the cells.
        batch_size: clips that go through the network together, of whichever tracks; None: what suits the device.
    """
    joined: list[Float32] = []
    batch_size = batch_size or _batch_size(model)
    for group in _groups(rows, config, batch_size * BATCHES_AT_ONCE):
        if isinstance(model, Classical):
            joined += list(score_descriptors(model, _described(group, config)))
            continue
        scores = score_clips(model, np.concatenate([clips for clips, _ in group]), batch_size=batch_size)
        ends = np.cumsum([len(clips) for clips, _ in group])
        per_track = np.split(scores, ends[:-1])
        joined += [join(clip_scores, weights) for clip_scores, (_, weights) in zip(per_track, group, strict=True)]
    return np.stack(joined) if joined else np.zeros((0, 0), dtype=np.float32)


def score_labelled(
    model: nn.Module, rows: Iterable[Row], config: FeatureConfig
) -> tuple[list[str], npt.NDArray[np.bool_], Float32]:
    """Track ids, targets (N, K) and joined scores (N, K) of rows that carry `targets` as well; see `score_tracks`."""
    track_ids, targets = [], []

    def noted() -> Iterator[Row]:
        for row in rows:
            track_ids.append(row["track_id"])
            targets.append(np.asarray(row["targets"], dtype=np.bool_))
            yield row

    scores = score_tracks(model, noted(), config)
    return track_ids, np.array(targets).reshape(scores.shape), scores


def score_clips(model: nn.Module, clips: Clips, *, batch_size: int | None = None) -> Float32:
    """Scores (C, K), the sigmoid of the logits, of clips (C, T, M): float32, on a GPU with bfloat16 inside."""
    device = next(model.parameters()).device
    batch_size = batch_size or _batch_size(model)
    was_training = model.training
    model.eval()
    scores: list[Float32] = []
    with torch.inference_mode(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
        for start in range(0, len(clips), batch_size):
            log_mel = torch.from_numpy(clips[start : start + batch_size].astype(np.float32))  # (B, T, M)
            scores.append(torch.sigmoid(model(log_mel.to(device)).float()).cpu().numpy())
    model.train(was_training)
    return np.concatenate(scores)


def score_descriptors(model: Classical, descriptors: Float32) -> Float32:
    """Scores (N, K), the sigmoid of the logits, of the descriptors (N, D) of whole tracks.

    Raises `FeatureMismatchError` if the model was fitted on descriptors of another version.
    """
    if model.described_by != VERSION:
        raise FeatureMismatchError(
            f"the model was fitted on descriptors of version {model.described_by}, this musictag makes {VERSION}: "
            "fit it again with pipelines/baseline.py"
        )
    with torch.inference_mode():
        logits = model(torch.from_numpy(descriptors).to(model.mean.device))
    scores: Float32 = torch.sigmoid(logits).cpu().numpy()
    return scores


def join(clip_scores: Float32, weights: Float32) -> Float32:
    """A track's scores (K,) from those of its clips (C, K): their mean, weighted by (C,), how much of each is audio."""
    scores: Float32 = (weights @ clip_scores / weights.sum()).astype(np.float32)
    return scores


def calibrate(scores: Float32, calibration: Sequence[tuple[float, float]]) -> Float32:
    """Scores (..., K) that mean probabilities: sigmoid(scale * logit(score) + bias), one (scale, bias) per tag.

    Platt, "Probabilistic outputs for support vector machines", 1999.
    """
    scale, bias = np.asarray(calibration, dtype=np.float64).T
    logits = scale * metrics.logit(scores) + bias
    # The same as 1 / (1 + exp(-logits)), without its overflow.
    calibrated: Float32 = (0.5 * (1 + np.tanh(logits / 2))).astype(np.float32)
    return calibrated


def fit_outputs(
    targets: npt.NDArray[np.bool_], scores: Float32, min_precision: npt.NDArray[np.float64] | None = None
) -> tuple[tuple[tuple[float, float], ...], tuple[float, ...]]:
    """Calibration and thresholds (see `TaggerSpec`) from targets and joined scores (N, K) of validation tracks.

    `min_precision` (K,) is as `metrics.fit_thresholds` takes it.
    """
    calibration = tuple((float(scale), float(bias)) for scale, bias in metrics.fit_calibration(targets, scores))
    thresholds = metrics.fit_thresholds(targets, calibrate(scores, calibration), min_precision)
    return calibration, tuple(map(float, thresholds))


def check_features(spec: TaggerSpec, feature_hash: str) -> None:
    """Raise `FeatureMismatchError` unless features of this hash are what the model was trained on."""
    needed = spec.feature_config.feature_hash
    if feature_hash != needed:
        raise FeatureMismatchError(
            f"the features have hash {feature_hash}, the model needs {needed}: featurize with the model's settings, "
            f"{spec.feature_config.to_dict()}, into another table, or choose a model of these features"
        )


def _batch_size(model: nn.Module) -> int:
    on_gpu = any(parameter.is_cuda for parameter in model.parameters())  # a classical model has none
    return GPU_BATCH_SIZE if on_gpu else BATCH_SIZE


def _described(tracks: Sequence[Track], config: FeatureConfig) -> Float32:
    """Descriptors (N, D) of tracks, at least one."""
    return np.stack([describe(clips, weights, config) for clips, weights in tracks])


def _groups(rows: Iterable[Row], config: FeatureConfig, min_clips: int) -> Iterator[list[Track]]:
    """Clips and weights of tracks, some tracks at a time: as many as make `min_clips` clips."""
    group: list[Track] = []
    for row in rows:
        group.append((decode_clips(row["clips"], config), clip_weights(row["start_s"], row["duration_s"], config)))
        if sum(len(clips) for clips, _ in group) >= min_clips:
            yield group
            group = []
    if group:
        yield group
