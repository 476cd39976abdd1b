"""Compute the scores of clips and tracks, not yet calibrated, from log-mel clips.

There is one scorer for each kind of model. A network scores every clip, and the scores of a track's clips are joined. A
classical model scores the descriptors that are computed from all clips of a track together.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

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
from musictag.tagging.half_precision import join_on_device, score_on_device

Row = Mapping[str, Any]
Float32 = npt.NDArray[np.float32]
Clips = npt.NDArray[np.float16] | Float32

SCORE_COLUMNS = ("track_id", "duration_s", "n_clips", "start_s", "clips")
"""Columns of the features table that scoring reads."""

# Clips that go through the network together. On a CPU the intermediate results of a small batch fit into the cache:
# musicnn takes up to twice as long per clip in batches of 64. A GPU needs large batches to be fully used, as far as its
# memory allows: the vgg network needs 14 MB for a clip.
BATCH_SIZE, GPU_BATCH_SIZE = 8, 1024
GPU_BYTES_PER_CLIP = 32 << 20
# Tracks are decoded until they fill this number of batches, then scored together: short tracks share batches, and the
# memory needed does not depend on the number of tracks.
BATCHES_PER_GROUP = 8


class WeightedClips(NamedTuple):
    """The decoded clips of one track."""

    clips: Clips
    """(C, T, M)."""
    weights: Float32
    """(C,), the fraction of each clip that is audio."""


class Scorer(Protocol):
    """Interface of the two kinds of scorers. Scores are not calibrated."""

    batch_size: int
    """Clips that are processed together."""

    def clip_scores(self, clips: Clips) -> Float32:
        """Score each of the clips (C, T, M) of one track: (C, K)."""

    def joined_scores(self, clip_scores: Float32, track: WeightedClips) -> Float32:
        """Return the scores (K,) of a track whose clips have the scores `clip_scores` (C, K)."""

    def score_group(self, tracks: Sequence[WeightedClips]) -> Float32:
        """Score some tracks, at least one: (N, K)."""


class NetworkScorer:
    """Scores clips with a network in float32; a track's scores are the weighted mean of its clips' scores.

    Args:
        model: log_mel (B, T, M) to logits (B, K), on any device; scoring restores its mode (training or evaluation).
        batch_size: clips that go through the network together, also of different tracks; None: suitable for the device.
    """

    def __init__(self, model: nn.Module, batch_size: int | None = None) -> None:
        self.model = model
        self.batch_size = batch_size or _default_batch_size(model)

    def clip_scores(self, clips: Clips) -> Float32:
        """See `Scorer`."""
        device = next(self.model.parameters()).device
        scores: list[Float32] = []
        with _evaluating(self.model), torch.inference_mode():
            for start in range(0, len(clips), self.batch_size):
                log_mel = torch.from_numpy(clips[start : start + self.batch_size].astype(np.float32))  # (B, T, M)
                scores.append(torch.sigmoid(self.model(log_mel.to(device))).cpu().numpy())
        return np.concatenate(scores)

    def joined_scores(self, clip_scores: Float32, track: WeightedClips) -> Float32:
        """See `Scorer`."""
        return join(clip_scores, track.weights)

    def score_group(self, tracks: Sequence[WeightedClips]) -> Float32:
        """See `Scorer`."""
        scores = self.clip_scores(np.concatenate([track.clips for track in tracks]))
        ends = np.cumsum([len(track.clips) for track in tracks])
        per_track = np.split(scores, ends[:-1])
        return np.stack([self.joined_scores(*pair) for pair in zip(per_track, tracks, strict=True)])


class HalfNetworkScorer:
    """Scores clips with a network in float16; waits for a GPU once for each group of tracks.

    Tracks for which the network exceeds the range of float16 are scored in float32.

    Args:
        model: see `NetworkScorer`.
        batch_size: see `NetworkScorer`.
    """

    def __init__(self, model: nn.Module, batch_size: int | None = None) -> None:
        self.model = model
        self.batch_size = batch_size or _default_batch_size(model)
        # By default, torch lets cuDNN compute float32 convolutions in TF32, with the range of float32 and the precision
        # of float16. Do not switch that off (`torch.backends.cudnn.allow_tf32`): an H100 scores 12,700 clips/s by
        # msd-musicnn with TF32, 2,340 without it, and 27,000 in float16.
        self.in_float32 = NetworkScorer(model, self.batch_size)

    def clip_scores(self, clips: Clips) -> Float32:
        """See `Scorer`."""
        with _evaluating(self.model):
            scores: Float32 = score_on_device(self.model, [_as_float16(clips)], self.batch_size).cpu().numpy()
        return scores if np.isfinite(scores).all() else self.in_float32.clip_scores(clips)

    def joined_scores(self, clip_scores: Float32, track: WeightedClips) -> Float32:
        """See `Scorer`."""
        return join(clip_scores, track.weights)

    def score_group(self, tracks: Sequence[WeightedClips]) -> Float32:
        """See `Scorer`."""
        with _evaluating(self.model):
            clips = [_as_float16(track.clips) for track in tracks]
            of_clips = score_on_device(self.model, clips, self.batch_size)
            scores: Float32 = join_on_device(of_clips, [track.weights for track in tracks]).cpu().numpy()
        if exceeding := [n for n, of_track in enumerate(scores) if not np.isfinite(of_track).all()]:
            scores[exceeding] = self.in_float32.score_group([tracks[n] for n in exceeding])
        return scores


class ClassicalScorer:
    """Scores the descriptors of whole tracks with a classical model.

    Args:
        model: descriptors (N, D) to logits (N, K), on any device.
        config: the front end that made the clips.
        batch_size: tracks are decoded until they hold `batch_size * BATCHES_PER_GROUP` clips.
    """

    def __init__(self, model: Classical, config: FeatureConfig, batch_size: int | None = None) -> None:
        self.model = model
        self.config = config
        self.batch_size = batch_size or BATCH_SIZE

    def clip_scores(self, clips: Clips) -> Float32:
        """Score each clip as if it were a whole track."""
        return self.score_group([WeightedClips(clip[None], np.ones(1, dtype=np.float32)) for clip in clips])

    def joined_scores(self, clip_scores: Float32, track: WeightedClips) -> Float32:
        """Score all clips together; `clip_scores` is not used, since it does not determine the track's scores."""
        scores: Float32 = self.score_group([track])[0]
        return scores

    def score_group(self, tracks: Sequence[WeightedClips]) -> Float32:
        """See `Scorer`."""
        descriptors = np.stack([describe(track.clips, track.weights, self.config) for track in tracks])
        return score_descriptors(self.model, descriptors)


def make_scorer(model: nn.Module, config: FeatureConfig, *, batch_size: int | None = None) -> Scorer:
    """Return the scorer for this kind of model; `config` is the front end that made the clips."""
    if isinstance(model, Classical):
        return ClassicalScorer(model, config, batch_size)
    return _network_scorer(model, batch_size)


def score_tracks(
    model: nn.Module, rows: Iterable[Row], config: FeatureConfig, *, batch_size: int | None = None
) -> Float32:
    """Return joined scores (N, K) of tracks, in the order of their rows; (0, 0) if there are none.

    Args:
        model: a network or a classical model, on any device; its mode is restored at the end.
        rows: one per track, with `clips` (the cell of the features table), `start_s` (C,) and `duration_s`; read once.
        config: the front end that made the clips.
        batch_size: see `NetworkScorer`.
    """
    scorer = make_scorer(model, config, batch_size=batch_size)
    groups = _groups(rows, config, scorer.batch_size * BATCHES_PER_GROUP)
    scores = [scorer.score_group(group) for group in groups]
    return np.concatenate(scores) if scores else np.zeros((0, 0), dtype=np.float32)


def score_labelled(
    model: nn.Module, rows: Iterable[Row], config: FeatureConfig
) -> tuple[list[str], npt.NDArray[np.bool_], Float32]:
    """Return track ids, targets (N, K) and joined scores (N, K) of rows that have `targets`; see `score_tracks`."""
    track_ids, targets = [], []

    def collect() -> Iterator[Row]:
        for row in rows:
            track_ids.append(row["track_id"])
            targets.append(np.asarray(row["targets"], dtype=np.bool_))
            yield row

    scores = score_tracks(model, collect(), config)
    return track_ids, np.array(targets).reshape(scores.shape), scores


def score_clips(model: nn.Module, clips: Clips, *, batch_size: int | None = None) -> Float32:
    """Return scores (C, K), the sigmoid of a network's logits, of clips (C, T, M); on a GPU computed in float16."""
    return _network_scorer(model, batch_size).clip_scores(clips)


def score_descriptors(model: Classical, descriptors: Float32) -> Float32:
    """Return scores (N, K), the sigmoid of the logits, of the descriptors (N, D) of whole tracks.

    Raises:
        FeatureMismatchError: the model was fitted on descriptors of another version.
    """
    if model.described_by != VERSION:
        raise FeatureMismatchError(
            f"the model was fitted on descriptors of version {model.described_by}, this musictag computes version "
            f"{VERSION}: fit it again with pipelines/baseline.py"
        )
    with torch.inference_mode():
        logits = model(torch.from_numpy(descriptors).to(model.mean.device))
    scores: Float32 = torch.sigmoid(logits).cpu().numpy()
    return scores


def join(clip_scores: Float32, weights: Float32) -> Float32:
    """Return the scores (K,) of a track: the mean of its clips' scores (C, K), weighted by `weights` (C,)."""
    scores: Float32 = (weights @ clip_scores / weights.sum()).astype(np.float32)
    return scores


def _network_scorer(model: nn.Module, batch_size: int | None) -> NetworkScorer | HalfNetworkScorer:
    return (HalfNetworkScorer if _gpu(model) else NetworkScorer)(model, batch_size)


def _default_batch_size(model: nn.Module) -> int:
    if (gpu := _gpu(model)) is None:
        return BATCH_SIZE
    memory: int = torch.cuda.get_device_properties(gpu).total_memory
    return max(1, min(GPU_BATCH_SIZE, memory // GPU_BYTES_PER_CLIP))


def _gpu(model: nn.Module) -> torch.device | None:
    """Return the GPU that holds the model, or None."""
    device = next(model.parameters()).device
    return device if device.type == "cuda" else None


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Switch a model to evaluation mode until the body ends."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _as_float16(clips: Clips) -> npt.NDArray[np.float16]:
    return clips.astype(np.float16, copy=False)


def _groups(rows: Iterable[Row], config: FeatureConfig, min_clips: int) -> Iterator[list[WeightedClips]]:
    """Decode tracks and yield them in groups of at least `min_clips` clips; the last group may have fewer."""
    group: list[WeightedClips] = []
    for row in rows:
        weights = clip_weights(row["start_s"], row["duration_s"], config)
        group.append(WeightedClips(decode_clips(row["clips"], config), weights))
        if sum(len(track.clips) for track in group) >= min_clips:
            yield group
            group = []
    if group:
        yield group
