import ctypes
import ctypes.util

import av
import numpy as np
import pytest
import soundfile

from musictag.audio import ffmpeg, mpg123, reader
from musictag.audio.decoders import MP3Decoder
from musictag.audio.libsndfile import SequentialFile, SoundFileDecoder
from musictag.audio.mixing import WAVE_LAYOUTS, Mixer
from musictag.errors import AudioCorruptError, AudioTruncatedError
from musictag.features.config import FeatureConfig
from musictag.features.extract import track_clips
from musictag.features.limits import Limits

SAMPLE_RATE = 44_100


def whole(decoder, *span):
    return np.concatenate([np.zeros(0, np.float32), *decoder.blocks(*span)])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.mp3", "a.flac", "a.ogg", "a.opus", "a.wav"])
@pytest.mark.parametrize("channels", [1, 2])
def test_any_part_equals_the_same_part_decoded_by_libsndfile(tmp_path, music, write_audio, name, channels):
    sample_rate = 48_000 if name == "a.opus" else SAMPLE_RATE
    path = write_audio(tmp_path / name, music(6.0, sample_rate, channels), sample_rate)
    with reader.open_audio(path, name) as fastest, soundfile.SoundFile(path) as file:
        everything = whole(SoundFileDecoder(file, name, Mixer()))
        assert fastest.n_samples == len(everything)
        np.testing.assert_allclose(whole(fastest), everything, atol=1e-5)
        spans = [(start, start + 20_000) for start in range(0, 250_000, 10_007)]
        for start, stop in [(0, 1_000), (70_001, 200_003), (250_000, 10**9), *spans]:
            np.testing.assert_allclose(whole(fastest, start, stop), everything[start:stop], atol=1e-5)


@pytest.fixture
def no_libmpg123(monkeypatch):
    """Make ctypes find no library, as on a machine without libmpg123."""
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    mpg123.library.cache_clear()
    yield
    mpg123.library.cache_clear()


def test_mp3_without_libmpg123_is_decoded_by_libsndfile(tmp_path, music, write_audio, no_libmpg123):
    path = write_audio(tmp_path / "a.mp3", music(5.0), SAMPLE_RATE)
    with reader.open_audio(path, "a") as decoder:
        assert decoder.mp3 is None


@pytest.mark.skipif(mpg123.library() is None, reason="libmpg123 is not installed")
def test_libmpg123_and_libsndfile_decode_the_same_samples(tmp_path, music, write_audio):
    path = write_audio(tmp_path / "a.mp3", music(5.0), SAMPLE_RATE)
    with reader.open_audio(path, "a") as decoder, SequentialFile(path) as file:
        assert type(decoder) is MP3Decoder
        np.testing.assert_allclose(whole(SoundFileDecoder(file, "a", Mixer())), whole(decoder), atol=1e-5)


@pytest.mark.slow
def test_a_part_of_m4a_equals_the_same_part_of_the_whole(tmp_path, music, write_audio):
    path = write_audio(tmp_path / "a.m4a", music(9.0), SAMPLE_RATE)
    with ffmpeg.open_ffmpeg(path, "a", Mixer()) as decoder:
        assert decoder.seeks
        everything = whole(decoder)
        for start in (0, 100_000, 10_000, 300_000, len(everything) - 5_000):
            part = whole(decoder, start, start + 60_000)
            expected = everything[start : start + 60_000]
            assert len(part) == len(expected)
            # AAC's noise substitution gives other noise when decoding begins elsewhere.
            assert np.corrcoef(part, expected)[0, 1] > 0.999


def test_raw_aac_cannot_seek(tmp_path, music, write_audio):
    path = write_audio(tmp_path / "a.aac", music(9.0), SAMPLE_RATE)
    with ffmpeg.open_ffmpeg(path, "a", Mixer()) as decoder:
        assert not decoder.seeks


def replace_by_another_file(path):
    beginning = path.read_bytes()[:100]
    path.unlink()
    path.write_bytes(bytes(100) + beginning)


@pytest.mark.parametrize("name", ["a.flac", "a.ogg"])
def test_a_file_replaced_after_opening_is_corrupt_if_its_decoder_reopens_it(tmp_path, music, write_audio, name):
    path = write_audio(tmp_path / name, music(3.0), SAMPLE_RATE)
    with reader.open_audio(path, "theirs") as decoder:
        replace_by_another_file(path)
        with pytest.raises(AudioCorruptError, match=r"theirs: (decoding failed|damaged)"):
            whole(decoder)


@pytest.mark.parametrize("name", ["a.mp3", "a.wav"])
def test_a_file_replaced_after_opening_is_read_to_its_end_if_its_decoder_keeps_it_open(
    tmp_path, music, write_audio, name
):
    path = write_audio(tmp_path / name, music(3.0), SAMPLE_RATE)
    with reader.open_audio(path, "theirs") as decoder:
        replace_by_another_file(path)
        assert len(whole(decoder)) == decoder.n_samples


@pytest.mark.parametrize("n_channels", [1, 2, 6, 7, 8, 11, 64])
def test_frames_of_any_number_of_channels_are_mixed_in_the_order_of_wav(n_channels):
    samples = np.random.default_rng(0).integers(-32_768, 32_768, (3, 1_000, n_channels), np.int16)
    frames = [av.AudioFrame.from_ndarray(part.reshape(1, -1), "s16", f"{n_channels} channels") for part in samples]
    for frame in frames:
        frame.sample_rate = SAMPLE_RATE
    mixed = np.concatenate(list(ffmpeg._mono_blocks(frames, 1_700, Mixer())))
    expected = Mixer().mono(samples.reshape(3_000, -1) / np.float32(32_768), WAVE_LAYOUTS.get(n_channels, ()))
    np.testing.assert_allclose(mixed, expected, atol=1e-6)


def test_a_damaged_flac_frame_is_an_error(tmp_path, music, write_audio):
    path = write_audio(tmp_path / "a.flac", music(3.0), SAMPLE_RATE)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises((AudioCorruptError, AudioTruncatedError)):
        track_clips(path, "a", FeatureConfig(), limits=Limits(max_damage=0))


@pytest.fixture(scope="module")
def uneven_flac(tmp_path_factory):
    """Loud noise, then silence, then soft noise, 24 bits: frames of a few and of thousands of bytes."""
    loudness = np.repeat([0.5, 0.0, 0.001], 20 * SAMPLE_RATE)
    samples = np.random.default_rng(0).uniform(-1, 1, (len(loudness), 2)) * loudness[:, None]
    path = tmp_path_factory.mktemp("flac") / "uneven.flac"
    soundfile.write(path, samples, SAMPLE_RATE, "PCM_24")
    return path


@pytest.mark.slow
def test_parts_of_flac_with_frames_of_very_different_sizes_equal_the_whole(uneven_flac):
    with reader.open_audio(uneven_flac, "a") as decoder:
        everything = whole(decoder)
        for start in np.random.default_rng(1).integers(0, len(everything), 100).tolist():
            stop = start + 50_000
            np.testing.assert_allclose(whole(decoder, start, stop), everything[start:stop], atol=1e-6)


def test_a_damaged_flac_frame_is_an_error_of_the_parts_that_need_it(uneven_flac, tmp_path):
    data = bytearray(uneven_flac.read_bytes())
    data[len(data) // 4] ^= 1  # within the 20 s of loud noise, which take nearly all bytes
    (tmp_path / "a.flac").write_bytes(data)
    with reader.open_audio(tmp_path / "a.flac", "a") as decoder:
        assert len(whole(decoder, 30 * SAMPLE_RATE, 32 * SAMPLE_RATE)) == 2 * SAMPLE_RATE
        with pytest.raises(AudioCorruptError, match="flac decoder"):
            whole(decoder, 0, 20 * SAMPLE_RATE)


class MallocInfo(ctypes.Structure):
    """The result of glibc's `mallinfo2`."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def glibc_bytes_in_use():
    """Return allocated bytes: unlike the resident memory, they do not depend on what earlier tests freed."""
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = MallocInfo
    return mallinfo2().uordblks


@pytest.mark.slow
def test_decoding_parts_does_not_leak_memory(tmp_path, music, write_audio):
    """PyAV's `decode` leaked 260 bytes per part, and a million tracks have ten million parts."""
    path = write_audio(tmp_path / "a.m4a", music(3.0), SAMPLE_RATE)

    def bytes_in_use_after(n_parts):
        for _ in range(n_parts):
            with ffmpeg.open_ffmpeg(path, "a", Mixer()) as decoder:
                whole(decoder, 50_000, 50_100)
        return glibc_bytes_in_use()

    before = bytes_in_use_after(200)
    assert bytes_in_use_after(1_000) - before < 1_000 * 60


def test_part_of_flac_with_a_damaged_frame_is_corrupt(tmp_path, music, write_audio):
    path = write_audio(tmp_path / "a.flac", music(6.0), SAMPLE_RATE)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with reader.open_audio(path, "a") as decoder, pytest.raises(AudioCorruptError, match="decoding failed"):
        whole(decoder, 2 * SAMPLE_RATE, 4 * SAMPLE_RATE)
