"""Clips of tracks to scores: through the network in batches, joined per track."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from musictag.errors import FeatureMismatchError
from musictag.features.clips import clip_weights
from musictag.features.config import FeatureConfig
from musictag.features.descriptors import VERSION, describe
from musictag.features.table import decode_clips
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
