"""Encoded streams that are stored as samples are refused by name, and so are levels that no music has."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

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


def dolby_e(words: tuple[int, int], n_samples: float) -> np.ndarray:
    """Make frames of SMPTE 337M, int32 (samples, 2): two words at every `n_samples`, and random bits behind them."""
    rng = np.random.default_rng(0)
    samples = np.zeros((round(100 * n_samples), 2), np.int32)
    for begin in (np.arange(100) * n_samples).astype(int):
        samples[begin : begin + 800] = rng.integers(-(2**31), 2**31, (800, 2)) & -4096
        samples[begin] = np.array(words, np.uint32).view(np.int32)
    return samples


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


@pytest.mark.parametrize(
    "words",
    [(0xF872_0000, 0x4E1F_0000), (0x6F87_2000, 0x54E1_F000), (0x96F8_7200, 0xA54E_1F00)],
    ids=["16", "20", "24"],
)
@pytest.mark.parametrize("n_samples", [1_600, 1_601.6, 1_920, 2_000, 2_002])
def test_dolby_e_is_refused_by_name(tmp_path: Path, words: tuple[int, int], n_samples: float) -> None:
    soundfile.write(tmp_path / "a.wav", dolby_e(words, n_samples), RATE, subtype="PCM_24")
    with (
        pytest.raises(AudioCorruptError, match=r"a: the samples are a Dolby .* stream, not sound"),
        open_audio(tmp_path / "a.wav", "a"),
    ):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize(("rate", "bit_rate"), [(48_000, 448_000), (44_100, 192_000), (32_000, 64_000)])
def test_frames_of_dolby_digital_as_samples_are_refused_by_name(
    tmp_path: Path, music, rate: int, bit_rate: int, swap: bool
) -> None:
    content = by_ffmpeg(music(10.0, rate), rate, "ac3", "ac3", {}, bit_rate=bit_rate)
    samples = np.frombuffer(content[: len(content) // 4 * 4], "<i2").reshape(-1, 2)
    soundfile.write(tmp_path / "a.wav", samples.byteswap() if swap else samples, rate)
    assert bitstreams.encoded_stream(tmp_path / "a.wav") == bitstreams.AC_3


def test_stream_with_silence_in_the_middle_is_found(tmp_path: Path, streams: dict[str, bytes]) -> None:
    samples = np.frombuffer(streams["DTS"], "<i2").reshape(-1, 2)
    silence = np.zeros((bitstreams.N_SAMPLES + 2, 2), np.int16)
    soundfile.write(tmp_path / "a.wav", np.concatenate([samples, silence, samples]), RATE)
    assert bitstreams.encoded_stream(tmp_path / "a.wav") == "DTS"


@pytest.mark.slow
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
    offset = np.full((RATE, 2), 0x0B77, np.int16)
    others = (np.zeros((RATE, 2), np.int16), noise[:100], opposite, -opposite, offset, offset.byteswap())
    for samples in (music(4.0, RATE), noise, *others):
        soundfile.write(tmp_path / "a.wav", samples, RATE)
        assert bitstreams.encoded_stream(tmp_path / "a.wav") is None


@given(st.integers(0, 2**32 - 1), st.sampled_from([b"\x0b\x77", b"\x77\x0b", b"\x72\xf8\x1f\x4e", b"\xf8\x96\x4e\xa5"]))
def test_sync_words_at_random_places_are_no_stream(seed: int, word: bytes) -> None:
    rng = np.random.default_rng(seed)
    content = bytearray(rng.bytes(4 * bitstreams.N_SAMPLES))
    for begin in rng.integers(0, bitstreams.N_SAMPLES, 20).tolist():
        content[4 * begin : 4 * begin + len(word)] = word
    assert bitstreams.encoding_of(bytes(content)) is None


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
