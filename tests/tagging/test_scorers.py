from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from musictag.features.clips import clip_weights
from musictag.tagging.scorers import join, score_clips, score_labelled, score_tracks
from small import CONFIG, clips_of, small_model, track


class Counting(nn.Module):
    """A network that records the size of every batch."""

    def __init__(self) -> None:
        super().__init__()
        self.model = small_model()
        self.sizes: list[int] = []

    def forward(self, log_mel: Tensor) -> Tensor:
        self.sizes.append(len(log_mel))
        return self.model(log_mel)


def test_join_is_the_mean_weighted_by_audio() -> None:
    clip_scores = np.array([[1.0, 0.0], [0.0, 0.5], [0.4, 0.8]], dtype=np.float32)
    joined = join(clip_scores, np.array([1.0, 1.0, 0.5], dtype=np.float32))
    np.testing.assert_allclose(joined, [1.2 / 2.5, 0.9 / 2.5], rtol=1e-6)
    assert joined.dtype == np.float32


def test_clip_scores_are_the_sigmoid_of_the_logits_for_any_batch_size() -> None:
    model, clips = small_model(), clips_of(track(7, seed=1))
    with torch.inference_mode():
        expected = torch.sigmoid(model(torch.from_numpy(clips.astype(np.float32)))).numpy()
    for batch_size in (1, 3, 7, 64):
        scores = score_clips(model, clips, batch_size=batch_size)
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_the_scores_of_a_track_do_not_depend_on_other_tracks() -> None:
    model, rows = small_model(), [track(5, 1, 0.3), track(1, 2), track(9, 3, 0.6), track(2, 4)]
    together = score_tracks(model, rows, CONFIG, batch_size=4)
    assert together.shape == (4, 3)
    assert together.dtype == np.float32
    for row, scores in zip(rows, together, strict=True):
        weights = clip_weights(row["start_s"], row["duration_s"], CONFIG)
        alone = join(score_clips(model, clips_of(row)), weights)
        np.testing.assert_allclose(scores, alone, atol=1e-6)
    assert np.ptp(together, axis=0).min() > 1e-5  # They are not all the same track.


def test_short_tracks_share_batches() -> None:
    model = Counting()
    score_tracks(model, (track(1, seed) for seed in range(100)), CONFIG, batch_size=16)
    assert sum(model.sizes) == 100
    assert len(model.sizes) == 7


def test_tracks_are_read_lazily() -> None:
    model, behind = Counting(), []

    def rows() -> Any:
        for n_read in range(200):
            behind.append(n_read - sum(model.sizes))
            yield track(1, n_read)

    assert score_tracks(model, rows(), CONFIG, batch_size=4).shape == (200, 3)
    assert max(behind) <= 8 * 4


@pytest.mark.parametrize("training", [True, False])
def test_scoring_does_not_change_the_model(training: bool) -> None:
    model = small_model().train(training)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first, again = (score_tracks(model, [track(3, 1)], CONFIG) for _ in range(2))
    np.testing.assert_array_equal(first, again)  # No dropout.
    assert model.training is training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_score_labelled_returns_ids_targets_and_scores_in_the_same_order() -> None:
    model, rows = small_model(), [track(n_clips, seed) for seed, n_clips in enumerate((3, 1, 40, 2))]
    truth = np.random.default_rng(0).random((4, 3)) < 0.5
    labelled = ({**row, "targets": targets.tolist()} for row, targets in zip(rows, truth, strict=True))
    track_ids, targets, scores = score_labelled(model, labelled, CONFIG)
    assert track_ids == ["t0", "t1", "t2", "t3"]
    assert targets.dtype == np.bool_
    np.testing.assert_array_equal(targets, truth)
    np.testing.assert_array_equal(scores, score_tracks(model, rows, CONFIG))


def test_score_labelled_without_tracks_returns_empty_arrays() -> None:
    track_ids, targets, scores = score_labelled(small_model(), [], CONFIG)
    assert track_ids == []
    assert targets.shape == scores.shape == (0, 0)
