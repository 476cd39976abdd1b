import dataclasses
import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn

from musictag.errors import FeatureMismatchError, ModelError, UsageError
from musictag.evaluation import metrics
from musictag.evaluation.calibration import calibrate, fit_outputs
from musictag.features.clips import clip_weights
from musictag.models.artifact import save_model
from musictag.tagging.scorers import join, score_clips, score_labelled, score_tracks
from musictag.tagging.table import TAGS_SCHEMA, tag_rows
from musictag.tagging.tagger import Tagger, check_features
from small import CONFIG, SPEC, clips_of, small_model, track


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


def test_without_tracks_there_are_no_scores() -> None:
    assert score_tracks(small_model(), [], CONFIG).shape[0] == 0
    assert Tagger(small_model(), SPEC).track_scores([]).shape == (0, 3)


@pytest.mark.parametrize("training", [True, False])
def test_scoring_does_not_change_the_model(training: bool) -> None:
    model = small_model().train(training)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first, again = (score_tracks(model, [track(3, 1)], CONFIG) for _ in range(2))
    np.testing.assert_array_equal(first, again)  # No dropout.
    assert model.training is training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_calibration_is_platt_scaling_and_1_0_changes_nothing() -> None:
    scores = np.array([[0.2, 0.5, 0.9], [0.0, 1.0, 0.7]], dtype=np.float32)
    np.testing.assert_allclose(calibrate(scores, [(1, 0)] * 3), scores, atol=2e-7)
    calibrated = calibrate(scores[0], [(1.0, 0.0), (5.0, np.log(3)), (2.0, 0.0)])
    np.testing.assert_allclose(calibrated, [0.2, 0.75, 81 / 82], rtol=1e-5)
    assert calibrated.dtype == np.float32


def test_calibration_of_extreme_scores_is_finite() -> None:
    extreme = calibrate(np.array([0.0, 1.0], dtype=np.float32), [(1e4, 0.0), (1e4, 0.0)])
    np.testing.assert_array_equal(extreme, [0.0, 1.0])


def test_a_loaded_tagger_has_the_scores_of_the_saved_model(tmp_path: Path) -> None:
    model, rows = small_model(), [track(4, 1), track(2, 2)]
    save_model(tmp_path, model, SPEC)
    tagger = Tagger.load(tmp_path)
    assert tagger.spec == SPEC
    expected = calibrate(score_tracks(model, rows, CONFIG), SPEC.calibration)
    np.testing.assert_array_equal(tagger.track_scores(rows), expected)
    np.testing.assert_array_equal(tagger.clip_scores(clips_of(rows[0])), score_clips(model, clips_of(rows[0])))


def test_tags_above_their_thresholds_are_returned_best_first() -> None:
    tagger = Tagger(small_model(), SPEC)
    tags = tagger.tags_above(np.array([0.625, 0.875, 0.7], dtype=np.float32))
    assert tags == [("piano", 0.875), ("drums", 0.625)]
    at_the_thresholds = np.array(SPEC.thresholds, dtype=np.float32)
    assert tagger.tags_above(at_the_thresholds) == []  # As `metrics.give` counts.
    assert tagger.tags_above(np.zeros(3, dtype=np.float32)) == []


def test_features_of_other_settings_are_refused_with_both_hashes() -> None:
    check_features(SPEC, CONFIG.feature_hash)
    other = dataclasses.replace(CONFIG, hop_length=128).feature_hash
    with pytest.raises(FeatureMismatchError, match=f"hash {other}, the model needs {CONFIG.feature_hash}"):
        check_features(SPEC, other)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no tagger\.json"):
        Tagger.load(tmp_path)


def test_a_missing_gpu_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(tmp_path, small_model(), SPEC)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="finds no GPU here: use 'cpu'"):
        Tagger.load(tmp_path, device="cuda")


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


def test_tag_rows_have_the_identity_of_the_track_and_the_model() -> None:
    tagger, rows = Tagger(small_model(), SPEC), [stored(4, 1), stored(2, 2), stored(9, 3)]
    before = datetime.datetime.now(datetime.UTC)
    tagged = tag_rows(tagger, rows, "musictag", "7")
    table = pa.Table.from_pylist(tagged, TAGS_SCHEMA)  # Every column is there, and of its type.
    assert set(tagged[0]) == set(TAGS_SCHEMA.names)
    for name in ("track_id", "uri", "audio_etag", "audio_sha256", "feature_hash", "n_clips"):
        assert table[name].to_pylist() == [row[name] for row in rows], name
    assert set(zip(table["model"].to_pylist(), table["model_version"].to_pylist(), strict=True)) == {("musictag", "7")}
    scores = tagger.track_scores(rows)
    np.testing.assert_array_equal(np.array(table["scores"].to_pylist(), np.float32), scores)
    for row, expected in zip(tagged, scores, strict=True):
        assert [(tag["tag"], tag["score"]) for tag in row["tags"]] == tagger.tags_above(expected)
    assert any(row["tags"] for row in tagged)
    assert all(before <= at <= datetime.datetime.now(datetime.UTC) for at in table["tagged_at"].to_pylist())


def test_tag_rows_without_rows_are_empty() -> None:
    assert tag_rows(Tagger(small_model(), SPEC), [], "musictag", "7") == []


def stored(n_clips: int, seed: int) -> dict[str, Any]:
    identity = {"uri": f"{seed}.mp3", "audio_etag": f"e{seed}", "audio_sha256": f"s{seed}", "feature_hash": "abc"}
    return {**track(n_clips, seed), **identity, "n_clips": n_clips}


def test_min_precision_raises_the_threshold():
    targets = np.array([[True], [False], [True], [True], [False], [False], [False], [False]])
    scores = np.linspace(0.9, 0.2, 8, dtype=np.float32)[:, None]
    n_given = []
    for least in (None, np.array([0.99])):
        calibration, thresholds = fit_outputs(targets, scores, least)
        n_given.append(int((calibrate(scores, calibration) > np.array(thresholds)).sum()))
    assert n_given == [4, 1]


def test_fitted_calibration_and_thresholds_separate_the_validation_tracks():
    targets = np.array([[True, False]] * 6 + [[False, True]] * 6)
    scores = np.where(targets, 0.3, 0.1).astype(np.float32)  # ranked rightly, far too low
    calibration, thresholds = fit_outputs(targets, scores)
    spec = dataclasses.replace(SPEC, vocabulary=("a", "b"), calibration=calibration, thresholds=thresholds)
    given = calibrate(scores, spec.calibration) > np.array(spec.thresholds)
    assert (given == targets).all()
    assert (calibrate(scores, calibration)[targets] > 0.5).all()


@pytest.mark.parametrize("least", [None, np.array([0.9])])
def test_a_tag_without_positive_validation_tracks_is_never_given(least):
    scores = np.linspace(0.9, 0.2, 8, dtype=np.float32)[:, None]
    calibration, thresholds = fit_outputs(np.zeros((8, 1), bool), scores, least)
    assert calibration == ((1.0, 0.0),)
    spec = dataclasses.replace(SPEC, vocabulary=("a",), calibration=calibration, thresholds=thresholds)
    assert not metrics.give(np.ones((1, 1), np.float32), np.array(spec.thresholds)).any()
