"""Rows of the features table to training batches: which clips of a track, in which order.

A row is a mapping with `track_id`, `clips` (the table's cell), `n_clips`, `start_s`, `duration_s` and `targets` (K,),
joined from the catalog by the caller. Nothing here knows where rows come from, and all randomness is the caller's
generator.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from musictag.config import FeatureConfig
from musictag.errors import UsageError
from musictag.features import decode_clips
from musictag.log_mel import n_frames

Row = Mapping[str, Any]
# One clip (T, M) float16 and its track's targets (K,) float32.
Example = tuple[npt.NDArray[np.float16], npt.NDArray[np.float32]]


def clip_batches(
    rows: Iterable[Row],
    config: FeatureConfig,
    *,
    clips_per_track: int,
    batch_size: int,
    shuffle_clips: int,
    rng: np.random.Generator,
    crop: bool = False,
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of shuffled batches: log_mel (B, T, M) float32 and targets (B, K) float32.

    How many there are depends on the number of rows alone (`count_batches`), however long the tracks: workers with
    equally many rows take equally many steps. All batches hold `batch_size` clips but the last, which holds from 2 to
    `batch_size` + 1: batch normalization cannot learn from a single clip. Memory holds `shuffle_clips` clips.

    Args:
        rows: one per track, read once, in order.
        config: the front end that made the cells.
        clips_per_track: random clips of each track, all different where it has so many; else all of them, then again.
        batch_size: B, at least 2.
        shuffle_clips: clips that wait for a random one among them to be taken.
        rng: decides everything random here.
        crop: clips begin at any frame of the track, where its clips stand one behind the other, rather than where the
            table's clips do.

    Raises:
        UsageError: a number is too small.
    """
    _check(clips_per_track, batch_size)
    if shuffle_clips < 1:
        raise UsageError(f"shuffle_clips is {shuffle_clips}: it must be at least 1")
    waiting: list[Example] = []
    for example in _shuffled(_drawn(rows, config, clips_per_track, crop, rng), shuffle_clips, rng):
        waiting.append(example)
        if len(waiting) == batch_size + 2:
            yield _collate(waiting[:batch_size])
            del waiting[:batch_size]
    if waiting:
        yield _collate(waiting)


def count_batches(n_tracks: int, *, clips_per_track: int, batch_size: int) -> int:
    """How many batches `clip_batches` makes of `n_tracks` rows."""
    _check(clips_per_track, batch_size)
    n_clips = n_tracks * clips_per_track
    # The last batch takes one clip more rather than leave one alone; a single clip in all is still a batch.
    return max(min(n_clips, 1), -(-(n_clips - 1) // batch_size))


def _check(clips_per_track: int, batch_size: int) -> None:
    if clips_per_track < 1:
        raise UsageError(f"clips_per_track is {clips_per_track}: it must be at least 1")
    if batch_size < 2:
        raise UsageError(f"batch_size is {batch_size}: it must be at least 2, batch normalization needs them")


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
