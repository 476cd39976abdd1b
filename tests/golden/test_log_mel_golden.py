from pathlib import Path

import numpy as np
import pytest

from golden import synthesize
from musictag.audio import reader
from musictag.features.config import FeatureConfig
from musictag.features.log_mel import log_mel

SHARED = Path(__file__).parents[3] / "shared"
GOLDEN = SHARED / "data" / "musicnn"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the folder ../shared with the excerpts is not here")


def read_audio(path):
    with reader.open_audio(path, str(path)) as opened:
        return np.concatenate(list(reader.waveform_blocks(opened, FeatureConfig().sample_rate)))


def synthesized(name):
    with np.load(synthesize.EXPECTED) as expected:
        return expected[name]


@needs_shared
def test_shared_folder_has_the_results_of_the_published_package():
    assert (GOLDEN / "golden.npz").is_file()


def test_synthesized_audio_is_the_same_as_when_its_results_were_recorded():
    one_step = 1 / 32_768
    waveform = synthesize.synthesize()[:: synthesize.WAVEFORM_STEP]
    np.testing.assert_allclose(waveform, synthesized("waveform"), rtol=0, atol=1.01 * one_step)


def test_reader_changes_no_sample_of_synthesized_audio(tmp_path):
    np.testing.assert_array_equal(read_audio(synthesize.write_audio(tmp_path)), synthesize.synthesize())


def test_log_mel_of_synthesized_audio_equals_the_recorded_one(tmp_path):
    spectrogram = log_mel(read_audio(synthesize.write_audio(tmp_path)), FeatureConfig())
    np.testing.assert_allclose(spectrogram[:: synthesize.LOG_MEL_STEP], synthesized("log_mel"), rtol=0, atol=1e-4)


@needs_shared
@pytest.mark.parametrize("name", ["hungarian_dance", "lets_go_fishin", "sugar_plum", "vibe_ace"])
def test_log_mel_of_real_music_equals_what_the_published_models_saw(name):
    with np.load(GOLDEN / "golden.npz") as golden:
        expected = golden[f"log_mel/{name}"]
    np.testing.assert_allclose(log_mel(read_audio(GOLDEN / f"{name}.flac"), FeatureConfig()), expected, atol=1e-4)
