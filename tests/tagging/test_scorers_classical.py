import dataclasses

import numpy as np
import pytest
import torch

from musictag.errors import FeatureMismatchError
from musictag.evaluation.calibration import calibrate
from musictag.features.clips import clip_weights
from musictag.features.descriptors import DESCRIPTORS, VERSION, describe
from musictag.features.table import encode_clips
from musictag.models.architectures import build_model
from musictag.models.classical import LinearSVM
from musictag.tagging.scorers import join, score_tracks
from musictag.tagging.tagger import Tagger
from small import CONFIG, SPEC, clips_of, track


def linear_svm(described_by: int = VERSION) -> LinearSVM:
    sizes = {"descriptors": len(DESCRIPTORS), "learned": 3}
    model = LinearSVM(n_mels=16, n_tags=3, described_by=described_by, sizes=sizes)
    generator = torch.Generator().manual_seed(0)
    model.weight.copy_(torch.randn(model.weight.shape, generator=generator) / 100)
    model.learned.copy_(torch.arange(3))
    return model


def classical_tagger() -> Tagger:
    model = linear_svm()
    return Tagger(model, dataclasses.replace(SPEC, architecture="linear-svm", params=model.params))


def test_a_classical_model_scores_the_descriptors_of_whole_tracks() -> None:
    tagger, rows = classical_tagger(), [track(5, 1, 0.3), track(1, 2), track(9, 3, 0.6)]
    weights = [clip_weights(row["start_s"], row["duration_s"], CONFIG) for row in rows]
    whole = np.stack([describe(clips_of(row), of, CONFIG) for row, of in zip(rows, weights, strict=True)])
    with torch.inference_mode():
        expected = torch.sigmoid(tagger.model(torch.from_numpy(whole))).numpy()
    scores = score_tracks(tagger.model, iter(rows), CONFIG)
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    assert np.ptp(scores, axis=0).min() > 1e-3
    np.testing.assert_array_equal(tagger.track_scores(rows), calibrate(scores, SPEC.calibration))
    # The command line scores a single track; the result is the same.
    clip_scores = tagger.raw_clip_scores(clips_of(rows[0]))
    assert clip_scores.shape == (5, 3)
    np.testing.assert_allclose(
        tagger.raw_track_scores(clip_scores, clips_of(rows[0]), weights[0]), expected[0], atol=1e-6
    )


def test_a_taggram_of_a_classical_model_scores_each_clip_as_a_track() -> None:
    tagger, row = classical_tagger(), track(3, 1)
    alone = {**row, "clips": encode_clips(clips_of(row)[1:2]), "start_s": [0.0], "duration_s": CONFIG.clip_seconds}
    expected = score_tracks(tagger.model, [alone], CONFIG)
    np.testing.assert_allclose(tagger.raw_clip_scores(clips_of(row))[1:2], expected, atol=1e-6)


def test_a_network_joins_the_scores_of_its_clips() -> None:
    tagger, clips, weights = (
        Tagger(build_model("cnn", SPEC.params, n_mels=16, n_tags=3).eval(), SPEC),
        clips_of(track(2, 1)),
        np.array([1.0, 0.5], np.float32),
    )
    clip_scores = tagger.raw_clip_scores(clips)
    np.testing.assert_array_equal(tagger.raw_track_scores(clip_scores, clips, weights), join(clip_scores, weights))


def test_descriptors_of_another_version_are_refused() -> None:
    with pytest.raises(FeatureMismatchError, match=f"version {VERSION + 1}, this musictag computes version {VERSION}"):
        score_tracks(linear_svm(VERSION + 1), [track(1, 1)], CONFIG)
