from pathlib import Path

import numpy as np
import pytest

from musictag.audio import reader
from musictag.features.config import FeatureConfig
from musictag.features.log_mel import log_mel

GOLDEN = Path(__file__).parents[3] / "shared" / "data" / "musicnn"

pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the excerpts ../shared/data/musicnn are not here")


@pytest.mark.parametrize("name", ["hungarian_dance", "lets_go_fishin", "sugar_plum", "vibe_ace"])
def test_log_mel_of_real_music_equals_what_the_published_models_saw(name):
    with np.load(GOLDEN / "golden.npz") as golden:
        expected = golden[f"log_mel/{name}"]
    path = GOLDEN / f"{name}.flac"
    with reader.open_audio(path, str(path)) as opened:
        waveform = np.concatenate(list(reader.waveform_blocks(opened, FeatureConfig().sample_rate)))
    np.testing.assert_allclose(log_mel(waveform, FeatureConfig()), expected, atol=1e-4)
