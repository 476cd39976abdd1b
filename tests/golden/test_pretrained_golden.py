from pathlib import Path

import numpy as np
import pytest

from golden import synthesize
from musictag.features import extract
from musictag.features.config import FeatureConfig
from musictag.features.log_mel import log_mel
from musictag.models.artifact import load_model
from musictag.models.published import pretrained
from musictag.tagging.scorers import score_clips

SHARED = Path(__file__).parents[3] / "shared"
GOLDEN = SHARED / "data" / "musicnn"
EXCERPTS = ["hungarian_dance", "lets_go_fishin", "sugar_plum", "vibe_ace"]
N_CLIPS = 10

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the folder ../shared with the excerpts is not here")
pytestmark = [pytest.mark.slow, pytest.mark.parametrize("model", pretrained.PUBLISHED)]


def published_scores(model, excerpt):
    with np.load(GOLDEN / "golden.npz") as golden:
        scores = golden[f"{pretrained.PUBLISHED[model].checkpoint}/{excerpt}"]
    assert scores.shape == (N_CLIPS, 50)
    return scores


def synthesized_scores(model):
    with np.load(synthesize.EXPECTED) as expected:
        scores = expected[f"scores/{model}"]
    assert scores.shape == (synthesize.N_CLIPS, 50)
    return scores


def test_scores_of_the_synthesized_log_mel_equal_the_recorded_scores(model):
    network, spec = load_model(pretrained.find(model))
    assert spec.feature_config == FeatureConfig()
    clips = synthesize.clips_of(log_mel(synthesize.synthesize(), FeatureConfig()), FeatureConfig())
    np.testing.assert_allclose(score_clips(network, clips), synthesized_scores(model), rtol=0, atol=1e-5)


def test_scores_of_the_synthesized_audio_equal_the_recorded_scores(model, tmp_path):
    network, spec = load_model(pretrained.find(model))
    path = synthesize.write_audio(tmp_path)
    clips, _, _, _ = extract.track_clips(path, str(path), spec.feature_config)
    scores = score_clips(network, clips[: synthesize.N_CLIPS])
    np.testing.assert_allclose(scores, synthesized_scores(model), rtol=0, atol=1e-3)


@needs_shared
@pytest.mark.parametrize("excerpt", EXCERPTS)
def test_scores_of_the_published_log_mel_equal_the_published_scores(model, excerpt):
    network, spec = load_model(pretrained.find(model))
    with np.load(GOLDEN / "golden.npz") as golden:
        clips = synthesize.clips_of(golden[f"log_mel/{excerpt}"], spec.feature_config, N_CLIPS)
    np.testing.assert_allclose(score_clips(network, clips), published_scores(model, excerpt), rtol=0, atol=1e-5)


@needs_shared
@pytest.mark.parametrize("excerpt", EXCERPTS)
def test_scores_of_the_audio_equal_the_published_scores(model, excerpt):
    network, spec = load_model(pretrained.find(model))
    path = GOLDEN / f"{excerpt}.flac"
    clips, _, _, _ = extract.track_clips(path, str(path), spec.feature_config)
    scores = score_clips(network, clips[:N_CLIPS])
    np.testing.assert_allclose(scores, published_scores(model, excerpt), rtol=0, atol=1e-3)
