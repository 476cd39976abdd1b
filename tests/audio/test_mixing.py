"""Two channels are mixed to their mean, surround as in ITU-R BS.775; channels that cancel each other are not mixed."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoding import SOUNDFILE_OF_SUFFIX, by_ffmpeg, by_soundfile
from musictag.audio import mpg123
from musictag.audio.mixing import Mixer
from musictag.features.config import FeatureConfig
from musictag.features.extract import track_clips

CONFIG = FeatureConfig()
SAMPLE_RATE = 48_000
SURROUND = ("FL", "FR", "FC", "LFE", "BL", "BR")


FFMPEG = {
    ".flac": ("flac", "flac"),
    ".m4a": ("mp4", "aac"),
    ".mka": ("matroska", "pcm_s16le"),
    ".opus": ("ogg", "libopus"),
    ".wav": ("wav", "pcm_s16le"),
}


def write(path: Path, samples: np.ndarray, layout: str = "") -> Path:
    """Write samples (samples, channels); with FFmpeg and its name of a layout, or else with libsndfile."""
    if layout:
        content = by_ffmpeg(samples, SAMPLE_RATE, *FFMPEG[path.suffix], {}, layout, 512_000)
    else:
        content = by_soundfile(samples, SAMPLE_RATE, *SOUNDFILE_OF_SUFFIX[path.suffix])
    path.write_bytes(content)
    return path


def clips_of(path: Path, clips_per_track: int | None = None) -> np.ndarray:
    return track_clips(path, path.name, CONFIG, clips_per_track)[0].astype(np.float32)


@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_channels_without_a_position_are_mixed_to_their_mean(seed: int, n_channels: int) -> None:
    block = np.random.default_rng(seed).standard_normal((50, n_channels)).astype(np.float32)
    np.testing.assert_allclose(Mixer().mono(block), block.mean(axis=1), atol=1e-6)


def test_mix_of_surround_channels_has_the_gains_of_the_recommendation() -> None:
    found = Mixer().mono(np.eye(6, dtype=np.float32), SURROUND)
    np.testing.assert_allclose(found, [0.5, 0.5, 0.7071, 0, 0.3536, 0.3536], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("a.wav", ""),
        ("a.flac", ""),
        ("a.ogg", ""),
        ("a.wav", "5.1"),
        ("a.flac", "5.1"),
        ("a.opus", "5.1"),
        ("a.m4a", "5.1"),
    ],
)
def test_music_in_the_front_channels_of_surround_is_as_loud_as_in_two_channels(
    tmp_path: Path, music, name, layout
) -> None:
    samples = music(4.0, SAMPLE_RATE)
    channels = np.zeros((len(samples), 6), np.float32)
    right = (
        2 if name == "a.ogg" else 1
    )  # libsndfile writes the channels as they are; Vorbis has the centre before the right
    channels[:, [0, right]] = samples
    expected = clips_of(write(tmp_path / "two.wav", samples))
    np.testing.assert_allclose(clips_of(write(tmp_path / name, channels, layout)).mean(), expected.mean(), rtol=0.02)


@pytest.fixture(params=["libmpg123", "libsndfile"])
def mp3_library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "libsndfile":
        monkeypatch.setattr(mpg123, "library", lambda: None)
    elif mpg123.library() is None:
        pytest.skip("libmpg123 is not installed")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3", "a.opus"])
@pytest.mark.parametrize("clips_per_track", [None, 2])
@pytest.mark.usefixtures("mp3_library")
def test_inverted_channel_does_not_silence_the_track(tmp_path: Path, music, name: str, clips_per_track) -> None:
    left = music(16.0, SAMPLE_RATE)[:, :1]
    path = write(tmp_path / name, np.hstack([left, -left]), "stereo" if name == "a.opus" else "")
    expected = clips_of(write(tmp_path / "left.wav", left), clips_per_track)
    assert abs(clips_of(path, clips_per_track).mean() / expected.mean() - 1) < 0.05


def test_loudest_channel_is_taken_if_channels_cancel(tmp_path: Path, music) -> None:
    left = music(4.0, SAMPLE_RATE)[:, :1]
    np.testing.assert_allclose(
        clips_of(write(tmp_path / "a.wav", np.hstack([-0.99 * left, left]))),
        clips_of(write(tmp_path / "b.wav", left)),
        atol=0.01,
    )


@pytest.mark.parametrize("right", [0.0, 0.5, 1.0, -0.5, -0.9])
def test_channels_that_do_not_cancel_are_mixed(tmp_path: Path, music, right: float) -> None:
    left = music(4.0, SAMPLE_RATE)[:, :1]
    np.testing.assert_allclose(
        clips_of(write(tmp_path / "a.wav", np.hstack([left, right * left]))),
        clips_of(write(tmp_path / "b.wav", left * (1 + right) / 2)),
        atol=0.05,
    )


def test_silence_stays_silence(tmp_path: Path) -> None:
    for name in ("a.wav", "a.flac", "a.ogg", "a.mp3"):
        assert clips_of(write(tmp_path / name, np.zeros((4 * SAMPLE_RATE, 2), np.float32))).max() < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3", "a.opus"])
@pytest.mark.parametrize("clips_per_track", [None, 4])
@pytest.mark.usefixtures("mp3_library")
def test_channels_that_cancel_in_most_of_the_file_are_not_mixed(
    tmp_path: Path, music, name: str, clips_per_track
) -> None:
    left = music(20.0, SAMPLE_RATE)[:, :1]
    right = np.concatenate([left[: 3 * SAMPLE_RATE], -left[3 * SAMPLE_RATE :]])
    path = write(tmp_path / name, np.hstack([left, right]), "stereo" if name == "a.opus" else "")
    expected = clips_of(write(tmp_path / "left.wav", left), clips_per_track)
    found = clips_of(path, clips_per_track)
    np.testing.assert_allclose(found.mean(axis=(1, 2)) / expected.mean(axis=(1, 2)), 1, atol=0.05)


@given(st.integers(0, 2**32 - 1), st.floats(-0.9, 1))
def test_no_block_of_stereo_music_cancels(seed: int, correlation: float) -> None:
    rng = np.random.default_rng(seed)
    left, other = rng.standard_normal((2, 500)).astype(np.float32)
    mixer = Mixer()
    mixer.mono(np.column_stack([left, correlation * left + (1 - correlation**2) ** 0.5 * other]))
    assert mixer.better_channels is None


def test_low_frequency_effects_alone_do_not_replace_the_mix() -> None:
    rng = np.random.default_rng(0)
    music_block, effects = rng.standard_normal((2, 1_000, 6)).astype(np.float32)
    effects[:, [0, 1, 2, 4, 5]] = 0
    mixer = Mixer()
    for block in (music_block, music_block, music_block, effects):
        mixer.mono(block, SURROUND)
    assert mixer.better_channels is None


@pytest.mark.parametrize("suffix", [".aiff", ".au", ".caf", ".mka"])
def test_channels_of_files_without_positions_have_the_order_of_wav(tmp_path: Path, music, suffix: str) -> None:
    samples = music(2.0, SAMPLE_RATE)
    channels = np.zeros((len(samples), 6), np.float32)
    channels[:, :2], channels[:, 2] = samples, samples[:, 0]
    expected = clips_of(write(tmp_path / "a.wav", channels))
    path = write(tmp_path / f"a{suffix}", channels, "5.1" if suffix == ".mka" else "")
    np.testing.assert_allclose(clips_of(path), expected, atol=0.05)


def test_silent_channels_without_a_known_position_do_not_count(tmp_path: Path, music) -> None:
    samples = music(2.0, SAMPLE_RATE)
    channels = np.zeros((len(samples), 12), np.float32)
    channels[:, [2, 9]] = samples
    np.testing.assert_allclose(
        clips_of(write(tmp_path / "a.wav", channels)), clips_of(write(tmp_path / "b.wav", samples)), atol=0.01
    )


def test_sound_in_the_channel_that_is_not_mixed_is_heard_if_it_is_alone(tmp_path: Path, music) -> None:
    samples = np.zeros((2 * SAMPLE_RATE, 6), np.float32)
    samples[:, 3] = music(2.0, SAMPLE_RATE, 1)[:, 0]
    np.testing.assert_allclose(
        clips_of(write(tmp_path / "a.aiff", samples)), clips_of(write(tmp_path / "b.wav", samples[:, 3:4])), atol=0.01
    )
