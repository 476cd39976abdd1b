"""Make training batches from rows of a features table: choose clips of each track and shuffle them.

`draw_batches` makes batches on the host, in float16 as the table holds them; `to_device` moves one to the device that
trains, where it becomes float32 and is augmented. `loader` does so ahead of the training step.

A row is a mapping with `track_id`, `clips` (the table's cell), `n_clips`, `start_s`, `duration_s` and `targets` (K,),
which `labelled_rows` adds.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from musictag.features.config import FeatureConfig
from musictag.features.log_mel import n_frames
from musictag.features.table import decode_clips
from musictag.training.augment import apply_gains, draw_gains
from musictag.training.config import TrainingConfig

Row = Mapping[str, Any]
Example = tuple[npt.NDArray[np.float16], npt.NDArray[np.float32]]
"""One clip (T, M) and the targets (K,) of its track."""


class Batch(NamedTuple):
    """Clips on the host, with the random numbers of their augmentation."""

    log_mel: Tensor
    """(B, T, M), float16."""
    targets: Tensor
    """(B, K), float32."""
    gains: Tensor | None
    """(B, M), float32, see `augment.apply_gains`."""


def train_batches(
    rows: Iterable[Row], config: FeatureConfig, training: TrainingConfig, *, epoch: int, rank: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the augmented batches of one worker in one epoch, log_mel (B, T, M) and targets (B, K), both float32."""
    return (to_device(batch, "cpu") for batch in draw_batches(rows, config, training, epoch=epoch, rank=rank))


def draw_batches(
    rows: Iterable[Row], config: FeatureConfig, training: TrainingConfig, *, epoch: int, rank: int = 0
) -> Iterator[Batch]:
    """Yield the batches of one worker in one epoch; the same ones for the same seed, epoch and rank."""
    rng = np.random.default_rng([training.seed, epoch, rank])
    for log_mel, targets in clip_batches(rows, config, training, rng):
        gains = draw_gains(len(targets), config.n_mels, training.filter_db, rng) if training.filter_db else None
        yield Batch(log_mel, targets, gains)


def to_device(batch: Batch, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Return a batch on the device, augmented: log_mel (B, T, M) and targets (B, K), both float32.

    From pinned memory to a GPU, nothing waits for the copies.
    """
    log_mel, targets = (tensor.to(device, non_blocking=True) for tensor in (batch.log_mel, batch.targets))
    log_mel = log_mel.float()
    if batch.gains is not None:
        log_mel = apply_gains(log_mel, batch.gains.to(device, non_blocking=True))
    return log_mel, targets


def shard(track_ids: Collection[str], rank: int, n_workers: int, seed: Sequence[int]) -> list[str]:
    """Return the random share of the tracks that worker `rank` trains on.

    All workers get the same number of tracks, without overlap. Up to `n_workers` - 1 tracks are left out; another seed
    leaves out others.
    """
    # `n_workers` is no rank, so these numbers differ from those of `train_batches`.
    rng = np.random.default_rng([*seed, n_workers])
    order = rng.permutation(sorted(track_ids))
    return [str(track_id) for track_id in order[rank : len(order) // n_workers * n_workers : n_workers]]


def clip_batches(
    rows: Iterable[Row], config: FeatureConfig, training: TrainingConfig, rng: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield one epoch of shuffled batches: log_mel (B, T, M) float16 and targets (B, K) float32.

    The number of batches depends only on the number of rows (`count_batches`), not on the lengths of tracks: workers
    with the same number of rows take the same number of steps. Each batch holds `batch_size` clips, except the last
    one, which holds from 2 to `batch_size` + 1: batch normalization cannot train on a single clip. Memory holds
    `shuffle_clips` clips.

    Args:
        rows: one per track; they are read once, in order.
        config: settings of the features.
        training: `clips_per_track` clips are drawn from each track without repetition; shorter tracks repeat their
            clips. With `crop`, clips start at any frame of a track, if the clips of its row follow each other without
            gaps; otherwise they are the clips of the row.
        rng: source of all random numbers.
    """
    examples = (example for row in rows for example in _draw_clips(row, config, training, rng))
    pending: list[Example] = []
    for example in _shuffle(examples, training.shuffle_clips, rng):
        pending.append(example)
        if len(pending) == training.batch_size + 2:
            yield _collate(pending[: training.batch_size])
            del pending[: training.batch_size]
    if pending:
        yield _collate(pending)


def count_batches(n_tracks: int, training: TrainingConfig) -> int:
    """Return the number of batches that `clip_batches` makes from `n_tracks` rows."""
    n_clips = n_tracks * training.clips_per_track
    # The last batch takes one more clip if that clip would be alone. A single clip in total is still a batch.
    return max(min(n_clips, 1), -(-(n_clips - 1) // training.batch_size))


def _draw_clips(
    row: Row, config: FeatureConfig, training: TrainingConfig, rng: np.random.Generator
) -> Iterator[Example]:
    """Yield exactly `clips_per_track` random clips of a row."""
    clips = decode_clips(row["clips"], config)  # (C, T, M)
    targets = np.asarray(row["targets"], dtype=np.float32)  # (K,)
    n_drawn = training.clips_per_track
    if training.crop and _are_adjacent(row["start_s"], config):
        # The first clip begins later than the track if the beginning is damaged.
        n_samples = int((row["duration_s"] - row["start_s"][0]) * config.sample_rate)
        frames = clips.reshape(-1, config.n_mels)[: max(config.clip_frames, n_frames(n_samples, config))]
        starts = rng.integers(len(frames) - config.clip_frames + 1, size=n_drawn)
        drawn: Iterable[npt.NDArray[np.float16]] = (frames[start : start + config.clip_frames] for start in starts)
    else:
        n_rounds = -(-n_drawn // len(clips))
        order = np.concatenate([rng.permutation(len(clips)) for _ in range(n_rounds)])
        drawn = (clips[clip] for clip in order[:n_drawn])
    for clip in drawn:
        yield clip.copy(), targets  # a view would keep the whole track in memory


def _are_adjacent(start_s: npt.ArrayLike, config: FeatureConfig) -> bool:
    """Return whether clips with these start times follow each other without gaps."""
    gaps = np.diff(np.asarray(start_s, dtype=np.float64)) - config.clip_seconds
    return bool((np.abs(gaps) < 0.5 * config.hop_length / config.sample_rate).all())


def _shuffle(examples: Iterable[Example], size: int, rng: np.random.Generator) -> Iterator[Example]:
    """Yield the examples in random order, with a shuffle buffer of `size` examples."""
    buffer: list[Example] = []
    for example in examples:
        if len(buffer) < size:
            buffer.append(example)
        else:
            index = int(rng.integers(size))
            yield buffer[index]
            buffer[index] = example
    rng.shuffle(buffer)
    yield from buffer


def _collate(examples: list[Example]) -> tuple[Tensor, Tensor]:
    log_mel = np.stack([clip for clip, _ in examples])
    return torch.from_numpy(log_mel), torch.from_numpy(np.stack([targets for _, targets in examples]))


def labelled_rows(rows: Iterable[Row], targets: Mapping[str, npt.NDArray[np.bool_]]) -> Iterator[Row]:
    """Yield the rows whose track is in `targets`, with its targets (K,)."""
    return ({**row, "targets": targets[row["track_id"]]} for row in rows if row["track_id"] in targets)
