"""Rows of the features table to training batches: which clips of a track, in which order.

A row is a mapping with `track_id`, `clips` (the table's cell), `n_clips`, `start_s`, `duration_s` and `targets` (K,),
joined from the catalog by the caller. Nothing here knows where rows come from.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from musictag.features.config import FeatureConfig
from musictag.features.log_mel import n_frames
from musictag.features.table import decode_clips
from musictag.training.augment import augmented
from musictag.training.config import TrainingConfig

Row = Mapping[str, Any]
# One clip (T, M) float16 and its track's targets (K,) float32.
Example = tuple[npt.NDArray[np.float16], npt.NDArray[np.float32]]


def train_batches(
    rows: Iterable[Row], config: FeatureConfig, training: TrainingConfig, *, epoch: int, rank: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """What the worker `rank` learns in an epoch: the batches of `clip_batches`, augmented; the same on every run."""
    rng = np.random.default_rng([training.seed, epoch, rank])
    return augmented(clip_batches(rows, config, training, rng), training, rng)


def shard(track_ids: Collection[str], rank: int, n_workers: int, seed: Sequence[int]) -> list[str]:
    """The tracks that the worker `rank` of `n_workers` learns from: equally many for each, another draw for each seed.

    Up to `n_workers` - 1 tracks are nobody's, other ones with another seed.
    """
    rng = np.random.default_rng([*seed, n_workers])  # no rank is `n_workers`: the workers' own numbers are others
    order = rng.permutation(sorted(track_ids))
    return [str(track_id) for track_id in order[rank : len(order) // n_workers * n_workers : n_workers]]


def clip_batches(
    rows: Iterable[Row], config: FeatureConfig, training: TrainingConfig, rng: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of shuffled batches: log_mel (B, T, M) float32 and targets (B, K) float32.

    How many there are depends on the number of rows alone (`count_batches`), however long the tracks: workers with
    equally many rows take equally many steps. All batches hold `batch_size` clips but the last, which holds from 2 to
    `batch_size` + 1: batch normalization cannot learn from a single clip. Memory holds `shuffle_clips` clips.

    Args:
        rows: one per track, read once, in order.
        config: the front end that made the cells.
        training: says how many random clips of each track, all different where it has so many, else all of them, then
            again; how many make a batch; how many wait for a random one among them to be taken. With `crop` clips
            begin at any frame of the track, where its clips stand one behind the other, rather than where they do.
        rng: decides everything random here.
    """
    examples = _drawn(rows, config, training.clips_per_track, training.crop, rng)
    waiting: list[Example] = []
    for example in _shuffled(examples, training.shuffle_clips, rng):
        waiting.append(example)
        if len(waiting) == training.batch_size + 2:
            yield _collate(waiting[: training.batch_size])
            del waiting[: training.batch_size]
    if waiting:
        yield _collate(waiting)


def count_batches(n_tracks: int, training: TrainingConfig) -> int:
    """How many batches `clip_batches` makes of `n_tracks` rows."""
    n_clips = n_tracks * training.clips_per_track
    # The last batch takes one clip more rather than leave one alone; a single clip in all is still a batch.
    return max(min(n_clips, 1), -(-(n_clips - 1) // training.batch_size))


def _drawn(
    rows: Iterable[Row], config: FeatureConfig, clips_per_track: int, crop: bool, rng: np.random.Generator
) -> Iterator[Example]:
    """Exactly `clips_per_track` random clips of each row."""
    for row in rows:
        clips = decode_clips(row["clips"], config)  # (C, T, M)
        targets = np.asarray(row["targets"], dtype=np.float32)  # (K,)
        if crop and _stand_in_a_row(row["start_s"], config):
            n_samples = int(row["duration_s"] * config.sample_rate)
            frames = clips.reshape(-1, config.n_mels)[: max(config.clip_frames, n_frames(n_samples, config))]
            starts = rng.integers(len(frames) - config.clip_frames + 1, size=clips_per_track)
            chosen: Iterable[npt.NDArray[np.float16]] = (frames[start : start + config.clip_frames] for start in starts)
        else:
            rounds = -(-clips_per_track // len(clips))
            order = np.concatenate([rng.permutation(len(clips)) for _ in range(rounds)])
            chosen = (clips[clip] for clip in order[:clips_per_track])
        for clip in chosen:
            yield clip.copy(), targets  # A view would keep the whole track in memory.


def _stand_in_a_row(start_s: npt.ArrayLike, config: FeatureConfig) -> bool:
    """Whether clips that start there follow on each other."""
    gaps = np.diff(np.asarray(start_s, dtype=np.float64)) - config.clip_seconds
    return bool((np.abs(gaps) < 0.5 * config.hop_length / config.sample_rate).all())


def _shuffled(examples: Iterable[Example], size: int, rng: np.random.Generator) -> Iterator[Example]:
    """The same examples in random order, as far as a buffer of `size` allows."""
    buffer: list[Example] = []
    for example in examples:
        if len(buffer) < size:
            buffer.append(example)
        else:
            place = int(rng.integers(size))
            yield buffer[place]
            buffer[place] = example
    rng.shuffle(buffer)
    yield from buffer


def _collate(examples: list[Example]) -> tuple[Tensor, Tensor]:
    log_mel = np.stack([clip for clip, _ in examples]).astype(np.float32)
    return torch.from_numpy(log_mel), torch.from_numpy(np.stack([targets for _, targets in examples]))


def labelled_rows(rows: Iterable[Row], targets: Mapping[str, npt.NDArray[np.bool_]]) -> Iterator[Row]:
    """The rows whose track is in `targets`, each with its targets (K,)."""
    return ({**row, "targets": targets[row["track_id"]]} for row in rows if row["track_id"] in targets)
