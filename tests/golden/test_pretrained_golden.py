from pathlib import Path

import numpy as np
import pytest

from musictag.features import extract
from musictag.models.artifact import load_model
from musictag.models.published import pretrained
from musictag.tagging.tagger import score_clips

GOLDEN = Path(__file__).parents[3] / "shared" / "data" / "musicnn"
EXCERPTS = ["hungarian_dance", "lets_go_fishin", "sugar_plum", "vibe_ace"]
N_CLIPS = 10

pytestmark = [
    pytest.mark.skipif(not GOLDEN.is_dir(), reason="the excerpts ../shared/data/musicnn are not here"),
    pytest.mark.parametrize("model", pretrained.PUBLISHED),
    pytest.mark.parametrize("excerpt", EXCERPTS),
]


def published_scores(model, excerpt):
    with np.load(GOLDEN / "golden.npz") as golden:
        scores = golden[f"{pretrained.PUBLISHED[model].checkpoint}/{excerpt}"]
    assert scores.shape == (N_CLIPS, 50)
    return scores


def test_scores_of_the_published_log_mel_equal_the_published_scores(model, excerpt):
    network, spec = load_model(pretrained.find(model))
    clip_frames = spec.feature_config.clip_frames
    with np.load(GOLDEN / "golden.npz") as golden:
        log_mel = golden[f"log_mel/{excerpt}"]
    clips = log_mel[: N_CLIPS * clip_frames].reshape(N_CLIPS, clip_frames, -1)
    np.testing.assert_allclose(score_clips(network, clips), published_scores(model, excerpt), rtol=0, atol=1e-5)


def test_scores_of_the_audio_equal_the_published_scores(model, excerpt):
    network, spec = load_model(pretrained.find(model))
    path = GOLDEN / f"{excerpt}.flac"
    clips, _, _ = extract.track_clips(path, str(path), spec.feature_config)
    scores = score_clips(network, clips[:N_CLIPS])
    np.testing.assert_allclose(scores, published_scores(model, excerpt), rtol=0, atol=1e-3)
