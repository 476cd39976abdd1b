"""Encoded streams that are stored as samples are refused by name, and so are levels that no music has."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from encoding import by_ffmpeg
from musictag.audio import bitstreams
from musictag.audio.reader import open_audio, waveform_blocks
from musictag.errors import AudioCorruptError
from musictag.features.config import FeatureConfig
from musictag.features.extract import track_clips

RATE = 48_000


def dts(sync_word: bytes) -> bytes:
    """Make frames of the size of DTS on compact discs; their content is random, because no encoder is at hand."""
    rng = np.random.default_rng(0)
    return b"".join(sync_word + rng.bytes(2_044) for _ in range(100))


@pytest.fixture(scope="session")
def streams(music) -> dict[str, bytes]:
    """Streams as the bytes of 16-bit samples."""
    return {
        "Dolby Digital": by_ffmpeg(music(4.0, RATE), RATE, "spdif", "ac3", {}, bit_rate=448_000),
        "DTS": dts(b"\xfe\x7f\x01\x80"),
        "DTS, another byte order": dts(b"\x7f\xfe\x80\x01"),
        "DTS of 14 bits": dts(b"\xff\x1f\x00\xe8"),
    }


@pytest.mark.parametrize("kind", ["Dolby Digital", "DTS", "DTS, another byte order", "DTS of 14 bits"])
@pytest.mark.parametrize(
    ("suffix", "subtype"), [(".wav", "PCM_16"), (".flac", "PCM_16"), (".aiff", "PCM_16"), (".wav", "PCM_24")]
)
def test_encoded_stream_in_samples_is_refused_by_name(
    tmp_path: Path, streams: dict[str, bytes], kind: str, suffix: str, subtype: str
) -> None:
    content = streams[kind][: len(streams[kind]) // 4 * 4]
    path = tmp_path / f"a{suffix}"
    soundfile.write(path, np.frombuffer(content, "<i2").reshape(-1, 2), RATE, subtype=subtype)
    with (
        pytest.raises(AudioCorruptError, match=f"a: the samples are a {kind[:3]}.* stream, not sound"),
        open_audio(path, "a"),
    ):
        pass


@pytest.mark.parametrize(("suffix", "container", "codec"), [
    (".wv", "wv", "wavpack"), (".tta", "tta", "tta"), (".m4a", "mp4", "alac"), (".mka", "matroska", "flac"),
    (".mka", "matroska", "pcm_s16le"), (".mov", "mov", "pcm_s16le"), (".mov", "mov", "pcm_s24be"),
])  # fmt: skip
@pytest.mark.parametrize("kind", ["Dolby Digital", "DTS"])
@pytest.mark.parametrize("clips_per_track", [None, 2])
def test_encoded_stream_in_lossless_files_is_refused_by_name(
    tmp_path: Path, streams: dict[str, bytes], suffix: str, container: str, codec: str, kind: str, clips_per_track
) -> None:
    content = streams[kind][: len(streams[kind]) // 4 * 4] * 8
    samples = np.frombuffer(content, "<i2").reshape(-1, 2).astype(np.float32) / 32_768
    silence = np.zeros((RATE, 2), np.float32)
    data = by_ffmpeg(np.concatenate([silence, samples]), RATE, container, codec, {})
    (tmp_path / f"a{suffix}").write_bytes(data)
    with pytest.raises(AudioCorruptError, match=f"a: the samples are a {kind[:3]}.* stream, not sound"):
        track_clips(tmp_path / f"a{suffix}", "a", FeatureConfig(clip_frames=60), clips_per_track)


def test_music_and_noise_are_not_taken_for_streams(tmp_path: Path, music) -> None:
    noise = np.random.default_rng(0).integers(-32_768, 32_768, (10 * RATE, 2), np.int16)
    clipped = np.clip(4 * music(4.0, RATE)[:, :1], -1, 1)
    opposite = np.hstack([clipped, -clipped])
    for samples in (music(4.0, RATE), noise, np.zeros((RATE, 2), np.int16), noise[:100], opposite, -opposite):
        soundfile.write(tmp_path / "a.wav", samples, RATE)
        assert bitstreams.encoded_stream(tmp_path / "a.wav") is None


@pytest.mark.parametrize("peak", [127, 32_767, 2**23, 2**31])
def test_integers_stored_as_floats_are_refused(tmp_path: Path, music, peak: int) -> None:
    samples = music(1.0, RATE)
    soundfile.write(tmp_path / "a.wav", samples / np.abs(samples).max() * peak, RATE, "FLOAT")
    with (
        open_audio(tmp_path / "a.wav", "a") as audio,
        pytest.raises(AudioCorruptError, match="integers stored as floats"),
    ):
        list(waveform_blocks(audio, 16_000))


def test_hot_float_files_are_accepted(tmp_path: Path, music) -> None:
    samples = music(1.0, RATE)
    soundfile.write(tmp_path / "a.wav", samples / np.abs(samples).max() * 10, RATE, "FLOAT")
    with open_audio(tmp_path / "a.wav", "a") as audio:
        assert max(np.abs(block).max(initial=0) for block in waveform_blocks(audio, 16_000)) > 1
