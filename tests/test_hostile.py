import numpy as np
import pytest

from hostile import FILES
from musictag.config import FeatureConfig
from musictag.features import track_clips

CONFIG = FeatureConfig()


@pytest.mark.parametrize("clips_per_track", [None, 2])
@pytest.mark.parametrize("name", FILES)
def test_a_file_plays_or_fails_for_the_right_reason(tmp_path, name, clips_per_track):
    make, outcome = FILES[name]
    path = tmp_path / name
    path.write_bytes(make())
    if isinstance(outcome, tuple):
        with pytest.raises(outcome, match=r"^a track: "):
            track_clips(path, "a track", CONFIG, clips_per_track)
        return
    clips, starts, duration_s = track_clips(path, "a track", CONFIG, clips_per_track)
    assert clips.shape == (len(starts), CONFIG.clip_frames, CONFIG.n_mels)
    assert np.isfinite(clips).all()
    assert duration_s == pytest.approx(outcome, abs=0.1)
