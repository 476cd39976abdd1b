from pathlib import Path

import numpy as np
import pytest
import torch

from musictag.errors import ModelError, UsageError
from musictag.evaluation.calibration import calibrate
from musictag.models.artifact import save_model
from musictag.tagging.scorers import score_clips, score_tracks
from musictag.tagging.tagger import Tagger
from small import CONFIG, SPEC, clips_of, small_model, track


def test_without_tracks_there_are_no_scores() -> None:
    assert score_tracks(small_model(), [], CONFIG).shape[0] == 0
    assert Tagger(small_model(), SPEC).track_scores([]).shape == (0, 3)


def test_a_loaded_tagger_has_the_scores_of_the_saved_model(tmp_path: Path) -> None:
    model, rows = small_model(), [track(4, 1), track(2, 2)]
    save_model(tmp_path, model, SPEC)
    tagger = Tagger.load(tmp_path)
    assert tagger.spec == SPEC
    expected = calibrate(score_tracks(model, rows, CONFIG), SPEC.calibration)
    np.testing.assert_array_equal(tagger.track_scores(rows), expected)
    np.testing.assert_array_equal(tagger.raw_clip_scores(clips_of(rows[0])), score_clips(model, clips_of(rows[0])))


def test_tags_above_their_thresholds_are_returned_best_first() -> None:
    tagger = Tagger(small_model(), SPEC)
    tags = tagger.tags_above(np.array([0.625, 0.875, 0.7], dtype=np.float32))
    assert tags == [("piano", 0.875), ("drums", 0.625)]
    at_the_thresholds = np.array(SPEC.thresholds, dtype=np.float32)
    assert tagger.tags_above(at_the_thresholds) == []  # As `metrics.give` counts.
    assert tagger.tags_above(np.zeros(3, dtype=np.float32)) == []


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no tagger\.json"):
        Tagger.load(tmp_path)


def test_a_missing_gpu_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(tmp_path, small_model(), SPEC)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="finds no GPU here: use 'cpu'"):
        Tagger.load(tmp_path, device="cuda")
