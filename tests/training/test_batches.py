import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from musictag.features.config import FeatureConfig
from musictag.features.table import encode_clips
from musictag.training.augment import apply_gains
from musictag.training.batches import (
    Batch,
    clip_batches,
    count_batches,
    labelled_rows,
    shard,
    to_device,
    train_batches,
)
from musictag.training.config import TrainingConfig

CONFIG = FeatureConfig(n_mels=4, clip_frames=6)


def rows(n_clips_of: list[int]) -> Iterator[dict[str, Any]]:
    # Each number of a clip is 16 * track + clip, which float16 holds exactly.
    for track, n_clips in enumerate(n_clips_of):
        clips = np.stack([np.full((6, 4), 16 * track + clip, dtype=np.float16) for clip in range(n_clips)])
        targets = np.array([track % 2, track % 3 == 0], dtype=np.float32)
        yield {"track_id": f"t{track}", "clips": encode_clips(clips), "n_clips": n_clips, "targets": targets}


def batches(
    n_clips_of: list[int], *, clips_per_track: int = 3, batch_size: int = 4, shuffle_clips: int = 8, seed: int = 0
) -> list[tuple[Tensor, Tensor]]:
    training = TrainingConfig(clips_per_track=clips_per_track, batch_size=batch_size, shuffle_clips=shuffle_clips)
    return list(clip_batches(rows(n_clips_of), CONFIG, training, np.random.default_rng(seed)))


def drawn(made: list[tuple[Tensor, Tensor]]) -> list[tuple[int, int]]:
    numbers = [int(number) for log_mel, _ in made for number in log_mel[:, 0, 0]]
    return [divmod(number, 16) for number in numbers]


def test_batches_have_documented_shapes_and_the_targets_of_their_tracks() -> None:
    for log_mel, targets in batches([5, 2, 9, 3]):
        assert log_mel.shape[1:] == (6, 4)
        assert (log_mel.dtype, targets.dtype) == (torch.float16, torch.float32)
        assert (log_mel == log_mel[:, :1, :1]).all()
        tracks = log_mel[:, 0, 0].int() // 16
        torch.testing.assert_close(targets[:, 0], (tracks % 2).float())
        torch.testing.assert_close(targets[:, 1], (tracks % 3 == 0).float())


def test_targets_may_be_a_list() -> None:
    row = {**next(rows([2])), "targets": [0.0, 1.0]}
    training = TrainingConfig(clips_per_track=2, batch_size=4)
    ((_, targets),) = clip_batches([row], CONFIG, training, np.random.default_rng(0))
    assert targets.tolist() == [[0.0, 1.0], [0.0, 1.0]]


def test_each_track_gives_clips_per_track_different_clips() -> None:
    by_track = {}
    for track, clip in drawn(batches([5, 3, 9, 16], clips_per_track=3)):
        by_track.setdefault(track, []).append(clip)
    assert sorted(by_track) == [0, 1, 2, 3]
    for clips in by_track.values():
        assert len(clips) == len(set(clips)) == 3


def test_short_track_repeats_clips() -> None:
    clips = [clip for _, clip in drawn(batches([2], clips_per_track=5))]
    assert sorted(clips.count(clip) for clip in (0, 1)) == [2, 3]


def test_all_clips_of_a_track_are_drawn_eventually() -> None:
    seen = {clip for seed in range(40) for _, clip in drawn(batches([12], clips_per_track=2, seed=seed))}
    assert seen == set(range(12))


@pytest.mark.parametrize("batch_size", [2, 3, 4, 7])
@pytest.mark.parametrize("n_tracks", range(8))
@pytest.mark.parametrize("clips_per_track", [1, 3])
def test_number_of_batches_depends_only_on_the_number_of_tracks(
    n_tracks: int, clips_per_track: int, batch_size: int
) -> None:
    sizes = []
    for n_clips_of in ([1] * n_tracks, [16] * n_tracks, list(range(1, n_tracks + 1))):
        made = batches(n_clips_of, clips_per_track=clips_per_track, batch_size=batch_size)
        training = TrainingConfig(clips_per_track=clips_per_track, batch_size=batch_size)
        assert len(made) == count_batches(n_tracks, training)
        sizes.append([len(log_mel) for log_mel, _ in made])
    assert sizes[0] == sizes[1] == sizes[2]
    assert sum(sizes[0]) == n_tracks * clips_per_track
    assert all(size == batch_size for size in sizes[0][:-1])
    if n_tracks * clips_per_track > 1:
        assert 2 <= sizes[0][-1] <= batch_size + 1


def test_same_seed_gives_the_same_batches() -> None:
    first, again, other = (batches([5] * 6, seed=seed) for seed in (1, 1, 2))
    for (log_mel, targets), (log_mel_again, targets_again) in zip(first, again, strict=True):
        assert torch.equal(log_mel, log_mel_again)
        assert torch.equal(targets, targets_again)
    assert drawn(first) != drawn(other)


def test_large_buffer_mixes_all_tracks() -> None:
    tracks = [track for track, _ in drawn(batches([4] * 20, shuffle_clips=1000))]
    assert tracks != sorted(tracks)
    assert np.mean(tracks[:30]) == pytest.approx(9.5, abs=4)  # without shuffling it is 4.5


def test_buffer_of_one_keeps_the_order() -> None:
    tracks = [track for track, _ in drawn(batches([4] * 20, shuffle_clips=1))]
    assert tracks == sorted(tracks)


def test_rows_are_read_only_when_needed() -> None:
    n_read = 0

    def endless() -> Iterator[dict[str, Any]]:
        nonlocal n_read
        for _ in itertools.count():
            n_read += 1
            yield next(rows([2]))

    training = TrainingConfig(clips_per_track=2, batch_size=4, shuffle_clips=20)
    stream = clip_batches(endless(), CONFIG, training, np.random.default_rng(0))
    for n_batches in range(1, 6):
        next(stream)
        # the buffer, the yielded batches, and two clips kept back in case the last batch would be too small
        assert 2 * n_read <= 20 + 4 * n_batches + 2 + 2


def test_rows_get_the_targets_of_their_track() -> None:
    targets = {"t2": np.array([True, False]), "t0": np.array([False, True]), "elsewhere": np.array([True, True])}
    stored = [{name: value for name, value in row.items() if name != "targets"} for row in rows([1, 2, 3])]
    labelled = list(labelled_rows(stored, targets))
    assert [row["track_id"] for row in labelled] == ["t0", "t2"]
    assert [row["targets"].tolist() for row in labelled] == [[False, True], [True, False]]
    assert [row["clips"] for row in labelled] == [stored[0]["clips"], stored[2]["clips"]]
    assert all("targets" not in row for row in stored)


def test_rows_are_labelled_lazily() -> None:
    endless = ({"track_id": f"t{n}"} for n in itertools.count())
    labelled = labelled_rows(endless, {"t1": np.array([True])})
    assert next(iter(labelled))["track_id"] == "t1"


def test_batches_are_float32_on_the_device_and_unchanged_by_default() -> None:
    batch = Batch(torch.rand(3, 6, 4).half(), torch.eye(3), None)
    log_mel, targets = to_device(batch, "cpu")
    assert log_mel.dtype == torch.float32
    assert torch.equal(log_mel, batch.log_mel.float())
    assert torch.equal(targets, batch.targets)


def test_batches_are_filtered_on_the_device() -> None:
    batch = Batch(torch.rand(3, 6, 4).half(), torch.eye(3), 1 + torch.rand(3, 4))
    log_mel, _ = to_device(batch, "cpu")
    assert batch.gains is not None
    assert torch.equal(log_mel, apply_gains(batch.log_mel.float(), batch.gains))


def test_batches_depend_on_epoch_and_rank_only() -> None:
    training = TrainingConfig(clips_per_track=2, batch_size=8, filter_db=4.0)
    given = [
        next(train_batches(rows([5] * 2), CONFIG, training, epoch=epoch, rank=rank))
        for epoch, rank in ((3, 1), (3, 1), (4, 1), (3, 0))
    ]
    (first, targets), (again, targets_again), *others = given
    assert torch.equal(first, again)
    assert torch.equal(targets, targets_again)
    assert not any(torch.equal(first, other) for other, _ in others)
    assert len(first[0].unique()) > 1  # augmented: unfiltered clips hold one number each


def cropped(starts: list[float], duration_s: float, seed: int = 0) -> list[list[int]]:
    """Return the frame numbers of each clip drawn from a track."""
    clips = np.arange(6 * len(starts), dtype=np.float16).reshape(-1, 6, 1).repeat(4, axis=2)
    row = {"track_id": "t", "clips": encode_clips(clips), "n_clips": len(starts), "start_s": starts,
           "duration_s": duration_s, "targets": np.array([True])}  # fmt: skip
    training = TrainingConfig(clips_per_track=200, batch_size=50, shuffle_clips=8, crop=True)
    stream = clip_batches([row], CONFIG, training, np.random.default_rng(seed))
    return [clip[:, 0].int().tolist() for log_mel, _ in stream for clip in log_mel]


@pytest.mark.parametrize(("n_tracks", "n_workers", "each"), [(10, 3, 3), (9, 3, 3), (2, 3, 0), (5, 1, 5), (0, 2, 0)])
def test_workers_get_equally_many_different_tracks(n_tracks: int, n_workers: int, each: int) -> None:
    tracks = {f"t{number}" for number in range(n_tracks)}
    shards = [shard(tracks, rank, n_workers, seed=[0, 0]) for rank in range(n_workers)]
    assert [len(tracks_of_one) for tracks_of_one in shards] == [each] * n_workers
    assert len(set().union(*shards)) == n_workers * each
    assert set().union(*shards) <= tracks


def test_shards_differ_by_epoch_and_are_reproducible() -> None:
    tracks = [f"t{number}" for number in range(5)]
    epochs = [shard(tracks, 0, 2, seed=[0, epoch]) for epoch in range(20)]
    assert epochs == [shard(tracks[::-1], 0, 2, seed=[0, epoch]) for epoch in range(20)]
    assert len({frozenset(epoch) for epoch in epochs}) > 1
    assert set().union(*epochs) == set(tracks)


def test_crops_start_at_any_frame_and_end_with_the_track() -> None:
    adjacent = [clip * CONFIG.clip_seconds for clip in range(3)]
    # The last of 16 frames is centred on the last sample: 2 frames of the third clip are padding.
    seen = cropped(adjacent, duration_s=15 * CONFIG.hop_length / CONFIG.sample_rate)
    assert len(seen) == 200
    assert {clip[0] for clip in seen} == set(range(11))
    assert all(clip == list(range(clip[0], clip[0] + 6)) for clip in seen)


def test_track_of_one_clip_has_one_crop() -> None:
    assert {tuple(clip) for clip in cropped([0.0], duration_s=0.01)} == {tuple(range(6))}


def test_clips_with_gaps_are_not_cropped() -> None:
    starts = {clip[0] for clip in cropped([0.0, 10 * CONFIG.clip_seconds, 20 * CONFIG.clip_seconds], duration_s=99.0)}
    assert starts == {0, 6, 12}
