import ctypes

import av
import numpy as np
import pytest
import soundfile

from musictag.audio import ffmpeg, mpg123, reader
from musictag.audio.decoders import SoundFileDecoder
from musictag.errors import AudioCorruptError, AudioTruncatedError
from musictag.features.config import FeatureConfig
from musictag.features.extract import track_clips

SAMPLE_RATE = 44_100


def whole(decoder, *span):
    return np.concatenate([np.zeros(0, np.float32), *decoder.blocks(*span)])


@pytest.mark.parametrize("name", ["a.mp3", "a.flac", "a.ogg", "a.opus", "a.wav"])
@pytest.mark.parametrize("channels", [1, 2])
def test_any_part_is_what_libsndfile_gives_of_the_whole(tmp_path, music, write_audio, name, channels):
    sample_rate = 48_000 if name == "a.opus" else SAMPLE_RATE
    path = write_audio(tmp_path / name, music(6.0, sample_rate, channels), sample_rate)
    with reader.open_audio(path, name) as fastest, soundfile.SoundFile(path) as file:
        everything = whole(SoundFileDecoder(file, name))
        assert fastest.n_samples == len(everything)
        np.testing.assert_allclose(whole(fastest), everything, atol=1e-5)
        spans = [(start, start + 20_000) for start in range(0, 250_000, 10_007)]
        for start, stop in [(0, 1_000), (70_001, 200_003), (250_000, 10**9), *spans]:
            np.testing.assert_allclose(whole(fastest, start, stop), everything[start:stop], atol=1e-5)


def test_mp3_is_the_same_without_the_systems_libmpg123(tmp_path, music, write_audio, monkeypatch):
    path = write_audio(tmp_path / "a.mp3", music(5.0), SAMPLE_RATE)
    with reader.open_audio(path, "a") as here:
        expected = whole(here)
    monkeypatch.setattr(mpg123, "library", lambda: None)
    with reader.open_audio(path, "a") as elsewhere:
        assert type(elsewhere) is SoundFileDecoder
        np.testing.assert_allclose(whole(elsewhere), expected, atol=1e-5)


def test_a_part_of_m4a_lies_where_it_lies_in_the_whole(tmp_path, music, write_audio):
    path = write_audio(tmp_path / "a.m4a", music(9.0), SAMPLE_RATE)
    with ffmpeg.open_ffmpeg(path, "a") as decoder:
        assert decoder.seeks
        everything = whole(decoder)
        for start in (0, 100_000, 10_000, 300_000, len(everything) - 5_000):
            part = whole(decoder, start, start + 60_000)
            expected = everything[start : start + 60_000]
            assert len(part) == len(expected)
            # The encoder leaves noise to the decoder, which makes up another one from another beginning.
            assert np.corrcoef(part, expected)[0, 1] > 0.999


def test_raw_aac_has_no_numbers_and_is_decoded_from_its_beginning(tmp_path, music, write_audio):
    path = write_audio(tmp_path / "a.aac", music(9.0), SAMPLE_RATE)
    with ffmpeg.open_ffmpeg(path, "a") as decoder:
        assert not decoder.seeks


@pytest.mark.parametrize("name", ["a.mp3", "a.flac", "a.ogg"])
def test_a_file_that_becomes_another_one_while_it_is_read_is_corrupt(tmp_path, music, write_audio, name):
    path = write_audio(tmp_path / name, music(3.0), SAMPLE_RATE)
    other = path.read_bytes()[:100]
    with reader.open_audio(path, "theirs") as decoder:
        path.unlink()
        path.write_bytes(bytes(100) + other)
        if name == "a.mp3" and mpg123.library():  # it holds the file that it opened
            assert len(whole(decoder)) == decoder.n_samples
        else:
            with pytest.raises(AudioCorruptError, match=r"theirs: (decoding broke off|damaged)"):
                whole(decoder)


@pytest.mark.parametrize("n_channels", [1, 2, 6, 7, 8, 11, 64])
def test_frames_of_any_number_of_channels_become_their_mean(n_channels):
    samples = np.random.default_rng(0).integers(-32_768, 32_768, (3, 1_000, n_channels), np.int16)
    frames = [av.AudioFrame.from_ndarray(part.reshape(1, -1), "s16", f"{n_channels} channels") for part in samples]
    for frame in frames:
        frame.sample_rate = SAMPLE_RATE
    mixed = np.concatenate(list(ffmpeg._joined(frames, 1_700)))
    np.testing.assert_allclose(mixed, samples.reshape(3_000, -1).mean(axis=1) / 32_768, atol=1e-6)


def test_one_damaged_frame_of_flac_is_not_left_out_in_silence(tmp_path, music, write_audio):
    path = write_audio(tmp_path / "a.flac", music(3.0), SAMPLE_RATE)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises((AudioCorruptError, AudioTruncatedError)):
        track_clips(path, "a", FeatureConfig())


class MallocInfo(ctypes.Structure):
    """What glibc's `mallinfo2` answers."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def glibc_bytes_in_use():
    """Unlike the resident memory, it doesn't depend on what earlier tests left free."""
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = MallocInfo
    return mallinfo2().uordblks


def test_parts_of_a_file_leave_no_memory_behind(tmp_path, music, write_audio):
    """A million tracks have ten million parts: 260 bytes of each were kept."""
    path = write_audio(tmp_path / "a.m4a", music(3.0), SAMPLE_RATE)

    def bytes_in_use_after(n_parts):
        for _ in range(n_parts):
            with ffmpeg.open_ffmpeg(path, "a") as decoder:
                whole(decoder, 50_000, 50_100)
        return glibc_bytes_in_use()

    before = bytes_in_use_after(200)
    assert bytes_in_use_after(1_000) - before < 1_000 * 60
