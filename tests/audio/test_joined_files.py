"""Audio after the declared end is decoded where the format allows it, and else a failure that says how much follows."""

import io
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from encoding import by_ffmpeg, by_soundfile
from musictag.audio.reader import open_audio, waveform_blocks
from musictag.errors import AudioCorruptError, AudioEmptyError, AudioTruncatedError
from musictag.features.config import FeatureConfig
from musictag.features.extract import track_clips

pytestmark = pytest.mark.slow

RATE = 16_000
ID3V1 = b"TAG" + b"a title".ljust(125, b"\0")
APE = b"APETAGEX" + struct.pack("<IIII8x", 2_000, 1_968, 1, 0) + bytes(range(1, 247)) * 8
ID3V2 = b"ID3\x04\0\0" + bytes([0, 0, 15, 80]) + bytes(2_000)


def seconds_of(path: Path) -> float:
    with open_audio(path, "a") as audio:
        return sum(map(len, waveform_blocks(audio, RATE))) / RATE


def part(folder: Path, write_audio, music, suffix: str, seconds: float, rate: int = 44_100, channels: int = 2) -> bytes:
    path = write_audio(folder / f"part{suffix}", music(seconds, rate, channels, seed=int(seconds)), rate)
    return path.read_bytes()


def decoded(path: Path, clips_per_track: int | None) -> float:
    return track_clips(path, "a", FeatureConfig(), clips_per_track)[2]


@pytest.mark.parametrize("suffix", [".mp3", ".ogg", ".aac"])
@pytest.mark.parametrize("clips_per_track", [None, 1])
def test_joined_files_are_one_track(tmp_path: Path, write_audio, music, suffix: str, clips_per_track) -> None:
    first, second = (part(tmp_path, write_audio, music, suffix, seconds) for seconds in (4.0, 6.0))
    (tmp_path / f"a{suffix}").write_bytes(first + second)
    assert decoded(tmp_path / f"a{suffix}", clips_per_track) == pytest.approx(10, abs=0.15)


def test_joined_mp3_files_with_tags_between_them_are_one_track(tmp_path: Path, write_audio, music) -> None:
    first, second = (part(tmp_path, write_audio, music, ".mp3", seconds) for seconds in (4.0, 6.0))
    (tmp_path / "a.mp3").write_bytes(ID3V2 + first + ID3V1 + ID3V2 + second + ID3V1)
    assert seconds_of(tmp_path / "a.mp3") == pytest.approx(10, abs=0.15)


def test_joined_mp3_files_with_large_tags_between_them_are_one_track(tmp_path: Path, write_audio, music) -> None:
    first, second = (part(tmp_path, write_audio, music, ".mp3", seconds) for seconds in (4.0, 6.0))
    cover = b"ID3\x04\0\0" + bytes([0, 4, 0, 0]) + bytes(range(1, 129)) * 512  # 64 KiB
    (tmp_path / "a.mp3").write_bytes(first + cover + second)
    assert seconds_of(tmp_path / "a.mp3") == pytest.approx(10, abs=0.15)


def test_joined_mp3_files_of_one_and_two_channels_are_one_track(tmp_path: Path, write_audio, music) -> None:
    first = part(tmp_path, write_audio, music, ".mp3", 4.0, channels=1)
    second = part(tmp_path, write_audio, music, ".mp3", 6.0, channels=2)
    (tmp_path / "a.mp3").write_bytes(first + second)
    assert seconds_of(tmp_path / "a.mp3") == pytest.approx(10, abs=0.15)


def test_joined_mp3_files_with_different_sample_rates_are_a_failure(tmp_path: Path, write_audio, music) -> None:
    for rate, message in ((48_000, "the sample rate changes"), (22_050, "bytes follow the declared audio")):
        first, second = (part(tmp_path, write_audio, music, ".mp3", 4.0, each) for each in (44_100, rate))
        (tmp_path / "a.mp3").write_bytes(first + second)
        with pytest.raises(AudioCorruptError, match=f"a: .*{message}"):
            seconds_of(tmp_path / "a.mp3")


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".aiff", ".au", ".caf", ".m4a"])
@pytest.mark.parametrize("clips_per_track", [None, 1])
def test_joined_files_of_other_formats_fail_with_the_bytes_that_follow(
    tmp_path: Path, write_audio, music, suffix: str, clips_per_track
) -> None:
    first, second = (part(tmp_path, write_audio, music, suffix, seconds) for seconds in (4.0, 6.0))
    (tmp_path / f"a{suffix}").write_bytes(first + second)
    message = f"a: {len(second):,} bytes follow the declared audio at byte {len(first):,}"
    with pytest.raises(AudioCorruptError, match=message):
        decoded(tmp_path / f"a{suffix}", clips_per_track)


@pytest.mark.parametrize("second", [".wav", ".flac", ".ogg", ".m4a"])
@pytest.mark.parametrize("tag", [b"", ID3V1])
def test_file_of_another_format_after_an_mp3_file_is_a_failure(
    tmp_path: Path, write_audio, music, second: str, tag: bytes
) -> None:
    first, other = (part(tmp_path, write_audio, music, suffix, 3.0) for suffix in (".mp3", second))
    (tmp_path / "a.mp3").write_bytes(first + tag + other)
    with pytest.raises(AudioCorruptError, match=f"a: {len(other):,} bytes follow the declared audio"):
        seconds_of(tmp_path / "a.mp3")


@pytest.mark.parametrize("clips_per_track", [None, 1])
@pytest.mark.parametrize("name", ["rifx", "wv", "tta", "flac", "wma", "mp3", "mp2"])
def test_bytes_after_the_audio_are_a_failure_unless_they_are_zero(
    tmp_path: Path, music, name: str, clips_per_track
) -> None:
    samples, rng = music(3.0), np.random.default_rng(0)
    content = {
        "rifx": lambda: rifx(samples),
        "wv": lambda: by_ffmpeg(samples, 44_100, "wv", "wavpack", {}),
        "tta": lambda: by_ffmpeg(samples, 44_100, "tta", "tta", {}),
        "flac": lambda: by_soundfile(samples, 44_100, "FLAC", "PCM_16"),
        "wma": lambda: by_ffmpeg(samples, 44_100, "asf", "wmav2", {}),
        "mp3": lambda: by_ffmpeg(samples, 44_100, "mp3", "libmp3lame", {}),
        "mp2": lambda: by_ffmpeg(samples, 44_100, "mp2", "mp2", {}),
    }[name]()
    path = tmp_path / "a"
    for after in (rng.bytes(40_000), content[:200] + rng.bytes(40_000)):
        path.write_bytes(content + after)
        with pytest.raises(
            (AudioCorruptError, AudioTruncatedError), match=r"a: .*(bytes follow|at the end|header declares)"
        ):
            decoded(path, clips_per_track)
    # Without a declared length, more zeros are a part that is missing; FFmpeg counts them as sound of WMA.
    path.write_bytes(content + bytes(400 if name in ("mp2", "wma") else 4_096))
    assert decoded(path, clips_per_track) == pytest.approx(3, abs=0.2)


@pytest.mark.parametrize("name", ["flac", "wv", "tta"])
def test_bytes_after_the_audio_of_a_file_with_a_tag_are_a_failure(tmp_path: Path, music, name: str) -> None:
    content = by_ffmpeg(music(3.0), 44_100, name, {"wv": "wavpack"}.get(name, name), {})
    (tmp_path / "a").write_bytes(ID3V2 + content + np.random.default_rng(0).bytes(200_000))
    with pytest.raises(AudioCorruptError, match="a: 200,000 bytes follow"):
        decoded(tmp_path / "a", None)


def test_end_of_a_flac_file_with_zeros_is_found_in_linear_time(tmp_path: Path, music) -> None:
    content = by_soundfile(music(3.0), 44_100, "FLAC", "PCM_16")
    (tmp_path / "a.flac").write_bytes(content + bytes(1_000_000))
    begin = time.process_time()
    assert decoded(tmp_path / "a.flac", None) == pytest.approx(3)
    assert time.process_time() - begin < 5  # in quadratic time it would take minutes


def test_lost_beginning_of_an_mp3_file_without_a_header_is_damage(tmp_path: Path, music) -> None:
    content = by_ffmpeg(music(9.0), 44_100, "mp3", "libmp3lame", {"write_xing": "0", "id3v2_version": "0"})
    n_lost = len(content) * 3 // 10
    (tmp_path / "a.mp3").write_bytes(np.random.default_rng(0).bytes(n_lost) + content[n_lost:])
    with pytest.raises(AudioCorruptError, match="are lost, --max-damage allows"):
        decoded(tmp_path / "a.mp3", None)


@pytest.mark.parametrize("share", [0.1, 0.95, 1.05])
def test_zeros_at_the_end_of_an_mp3_file_without_a_header_are_missing_frames(tmp_path: Path, music, share) -> None:
    content = by_ffmpeg(music(9.0), 44_100, "mp3", "libmp3lame", {"write_xing": "0", "id3v2_version": "0"})
    (tmp_path / "a.mp3").write_bytes(content + bytes(int(len(content) * share)))
    with pytest.raises(AudioCorruptError, match=r"are lost, --max-damage allows|less than half of its bytes"):
        decoded(tmp_path / "a.mp3", None)


def test_size_of_a_wma_file_that_no_file_can_have_is_truncation(tmp_path: Path, music) -> None:
    content = bytearray(by_ffmpeg(music(3.0), 44_100, "asf", "wmav2", {}))
    place = content.index(bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")) + 40
    content[place : place + 8] = b"\xff" * 8
    (tmp_path / "a.wma").write_bytes(content)
    with pytest.raises(AudioTruncatedError, match="its header declares"):
        decoded(tmp_path / "a.wma", None)


def rifx(samples: np.ndarray) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, samples, 44_100, format="WAV", subtype="PCM_16", endian="BIG")
    return stream.getvalue()


@pytest.mark.parametrize("before", [bytes(70_000), b"\xff" * 70_000, np.random.default_rng(0).bytes(200_000)])
def test_bytes_before_an_mp3_file_do_not_shift_it(tmp_path: Path, music, before: bytes) -> None:
    content = by_ffmpeg(music(4.0), 44_100, "mp3", "libmp3lame", {})
    good, bad = tmp_path / "good.mp3", tmp_path / "bad.mp3"
    good.write_bytes(content)
    bad.write_bytes(before + content)
    expected, found = (track_clips(path, "a", FeatureConfig()) for path in (good, bad))
    assert found.damaged_s == 0
    np.testing.assert_allclose(found.clips.astype(np.float32), expected.clips.astype(np.float32), atol=0.01)


def test_joined_wma_files_fail_with_the_bytes_that_follow(tmp_path: Path, music) -> None:
    first, second = (by_ffmpeg(music(seconds), 44_100, "asf", "wmav2", {}) for seconds in (3.0, 4.0))
    (tmp_path / "a.wma").write_bytes(first + second)
    with pytest.raises(AudioCorruptError, match=f"a: {len(second):,} bytes follow the declared audio"):
        seconds_of(tmp_path / "a.wma")


@pytest.mark.parametrize("suffix", [".opus", ".ogg"])
@pytest.mark.parametrize("between", [ID3V1, bytes(4), bytes(range(1, 251)) * 80], ids=["tag", "zeros", "junk"])
def test_bytes_after_the_last_page_of_an_ogg_file_are_never_ignored(
    tmp_path: Path, write_audio, music, suffix: str, between: bytes
) -> None:
    content = part(tmp_path, write_audio, music, suffix, 3.0, 48_000)
    (tmp_path / f"a{suffix}").write_bytes(content + between + content)
    with pytest.raises(AudioCorruptError, match=r"a: .* bytes follow the declared audio"):
        seconds_of(tmp_path / f"a{suffix}")


def test_wrong_byte_count_in_the_header_of_an_mp3_file_does_not_join_it(tmp_path: Path, write_audio, music) -> None:
    content = bytearray(part(tmp_path, write_audio, music, ".mp3", 9.0))
    place = max(content.find(b"Xing"), content.find(b"Info")) + 12
    content[place : place + 4] = struct.pack(">I", struct.unpack_from(">I", content, place)[0] - 5_000)
    (tmp_path / "a.mp3").write_bytes(content)
    with open_audio(tmp_path / "a.mp3", "a") as audio:
        assert audio.seeks


@pytest.mark.parametrize(
    "after",
    [
        b"LIST"
        + struct.pack("<I", 2_001)
        + bytes(range(1, 30)) * 69
        + b"id3 "
        + struct.pack("<I", 20_000)
        + b"\x89P" * 10_000,
        b"id3 " + struct.pack("<I", 50_000) + b"\x89P" * 10_000,
    ],
    ids=["odd size", "cut off"],
)
def test_metadata_after_the_samples_of_a_wav_file_may_be_odd_or_cut_off(
    tmp_path: Path, write_audio, music, after: bytes
) -> None:
    (tmp_path / "a.wav").write_bytes(part(tmp_path, write_audio, music, ".wav", 2.0) + after)
    assert seconds_of(tmp_path / "a.wav") == pytest.approx(2)


def test_wav_file_of_metadata_alone_is_empty(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav(0, 0) + b"id3 " + struct.pack("<I", 20_000) + b"\x89P" * 10_000)
    with pytest.raises(AudioEmptyError):
        seconds_of(tmp_path / "a.wav")


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".aiff", ".au", ".mp3", ".m4a"])
@pytest.mark.parametrize(
    "after", [ID3V1, APE, ID3V2, bytes(100_000), b"\n" * 500], ids=["ID3v1", "APE", "ID3v2", "zeros", "few"]
)
def test_tags_and_padding_may_follow_the_audio(tmp_path: Path, write_audio, music, suffix: str, after: bytes) -> None:
    (tmp_path / f"a{suffix}").write_bytes(part(tmp_path, write_audio, music, suffix, 2.0) + after)
    assert seconds_of(tmp_path / f"a{suffix}") == pytest.approx(2, abs=0.1)


def wav(n_bytes: int, declared: int) -> bytes:
    samples = np.random.default_rng(0).integers(-9_000, 9_000, n_bytes // 2, np.int16).tobytes()
    header = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 36 + declared, b"WAVE", b"fmt ", 16, 1, 2, 44_100, 176_400, 4, 16)
    return header + struct.pack("<4sI", b"data", declared) + samples


@pytest.mark.parametrize("declared", [0, 0xFFFF_FFFF, 0x7FFF_F000])
def test_size_that_the_recorder_did_not_know_or_write_extends_to_the_end(tmp_path: Path, declared: int) -> None:
    content = wav(4 * 88_200, declared & 0x7FFF_FFFF if declared == 0xFFFF_FFFF else declared)
    content = content[:40] + struct.pack("<I", declared) + content[44:]
    (tmp_path / "a.wav").write_bytes(content)
    assert seconds_of(tmp_path / "a.wav") == pytest.approx(2, abs=0.01)


def test_size_that_wrapped_is_a_failure(tmp_path: Path) -> None:
    """As of a file of 4 GiB and a second, whose size was stored modulo 4 GiB."""
    (tmp_path / "a.wav").write_bytes(wav(4 * 88_200, 4 * 44_100))
    with pytest.raises(AudioCorruptError, match=r"a: 176,400 bytes follow the declared audio at byte 176,444"):
        seconds_of(tmp_path / "a.wav")


@pytest.mark.parametrize("padding", [b"", b"\0"])
def test_byte_after_samples_of_odd_size_may_be_missing(tmp_path: Path, padding: bytes) -> None:
    samples = np.random.default_rng(0).integers(0, 256, 8_001, np.uint8).tobytes()
    header = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 44 + 8_001 + 2_000, b"WAVE", b"fmt ", 16, 1, 1, 8_000, 8_000, 1, 8)
    notes = b"LIST" + struct.pack("<I", 2_000) + bytes(range(1, 251)) * 8
    (tmp_path / "a.wav").write_bytes(header + struct.pack("<4sI", b"data", 8_001) + samples + padding + notes)
    assert seconds_of(tmp_path / "a.wav") == pytest.approx(1, abs=0.001)


@pytest.mark.parametrize(
    "junk", [bytes(70_000), bytes(2_000), b"ICY 200 OK\r\nicy-name: a radio\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"]
)
def test_rubbish_before_the_first_frame_of_an_mp3_file_is_skipped(
    tmp_path: Path, write_audio, music, junk: bytes
) -> None:
    (tmp_path / "a.mp3").write_bytes(junk + part(tmp_path, write_audio, music, ".mp3", 3.0))
    assert seconds_of(tmp_path / "a.mp3") == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize(("rate", "channels"), [(48_000, 2), (44_100, 1), (22_050, 1), (32_000, 2)])
def test_parts_of_an_ogg_chain_may_differ_in_rate_and_channels(
    tmp_path: Path, write_audio, music, rate: int, channels: int
) -> None:
    first = part(tmp_path, write_audio, music, ".ogg", 4.0)
    second = part(tmp_path, write_audio, music, ".ogg", 6.0, rate, channels)
    (tmp_path / "second.ogg").write_bytes(second)
    (tmp_path / "a.ogg").write_bytes(first + second)
    with open_audio(tmp_path / "a.ogg", "a") as audio:
        whole = np.concatenate(list(waveform_blocks(audio, RATE)))
    with open_audio(tmp_path / "second.ogg", "a") as audio:
        alone = np.concatenate(list(waveform_blocks(audio, RATE)))
    assert len(whole) == pytest.approx(10 * RATE, abs=5)
    # The second part is resampled to the rate of the first, and then to ours.
    np.testing.assert_allclose(whole[4 * RATE + 500 : 9 * RATE], alone[500 : 5 * RATE], atol=0.02)


def test_part_of_a_chain_that_is_no_audio_is_named(tmp_path: Path, write_audio, music) -> None:
    first = part(tmp_path, write_audio, music, ".ogg", 1.0)
    second = part(tmp_path, write_audio, music, ".ogg", 1.0).replace(b"\x01vorbis", b"\x01unknow")
    (tmp_path / "a.ogg").write_bytes(first + second)
    with pytest.raises(AudioCorruptError, match=r"a: "):
        seconds_of(tmp_path / "a.ogg")
