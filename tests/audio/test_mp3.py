import mmap

import numpy as np
import pytest
import soundfile

from musictag.audio import decoders, mp3, mpeg_headers, mpg123, pcm, reader
from musictag.audio.libsndfile import SequentialFile, SoundFileDecoder
from musictag.audio.mixing import Mixer

SECONDS = 8
needs_libmpg123 = pytest.mark.skipif(mpg123.library() is None, reason="libmpg123 is not installed")


def write(path, samples, rate, mode="CONSTANT"):
    with soundfile.SoundFile(path, "w", rate, samples.shape[1], format="MP3", bitrate_mode=mode) as file:
        file.write(samples)
    return path


def read(data):
    """Return the frames of the bytes of a file."""
    with mmap.mmap(-1, len(data)) as mapped:
        mapped[:] = data
        return mp3.find_frames(mapped)


def channels_agree(data):
    return mp3.channels_agree(data, read(data))


def mixed(decoder, *span):
    return np.concatenate(list(decoder.blocks(*span)))


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "of_frame"), [(44_100, 1_152), (32_000, 1_152), (22_050, 576), (11_025, 576)])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_all_frames_are_found(tmp_path, music, rate, of_frame, channels, mode):
    data = write(tmp_path / "a.mp3", music(SECONDS, rate, channels), rate, mode).read_bytes()
    frames = read(data)
    assert channels_agree(data)
    assert abs(len(frames.begins) * of_frame - SECONDS * rate) < 4 * of_frame
    assert {data[begin] for begin in frames.begins} == {0xFF}


def with_window(data, begin, bit):
    """Change the window of one channel in one frame to that for attacks."""
    changed = bytearray(data)
    for at, value in enumerate((1, 0, 1, 0), bit):
        byte, mask = begin + mpeg_headers.HEADER_BYTES + at // 8, 0x80 >> at % 8
        changed[byte] = changed[byte] & ~mask | value * mask
    return bytes(changed)


@pytest.mark.parametrize(("rate", "windows"), [(44_100, mp3.WINDOWS_OF_1), (22_050, mp3.WINDOWS_OF_2)])
def test_different_windows_of_the_channels_are_found_in_each_granule(tmp_path, music, rate, windows):
    data = write(tmp_path / "a.mp3", music(SECONDS, rate, 2), rate).read_bytes()
    begin = int(read(data).begins[-9])
    for left, right in windows:
        assert not channels_agree(with_window(data, begin, left))
        assert not channels_agree(with_window(data, begin, right))
        assert channels_agree(with_window(with_window(data, begin, left), begin, right))


@needs_libmpg123
def test_channels_with_different_windows_are_decoded_by_libsndfile(tmp_path, music):
    path = write(tmp_path / "a.mp3", music(SECONDS), 44_100)
    data = path.read_bytes()
    begins = read(data).begins
    for begin in begins[50:100].tolist():
        data = with_window(data, begin, mp3.WINDOWS_OF_1[0][1])
    path.write_bytes(data)
    with reader.open_audio(path, "a") as decoder:
        assert decoder.mp3 is None


@pytest.mark.parametrize("rate", [44_100, 22_050, 11_025])
def test_blocks_equal_a_single_read_of_the_file(tmp_path, music, monkeypatch, rate):
    path = write(tmp_path / "a.mp3", music(SECONDS, rate, 1), rate)
    monkeypatch.setattr(pcm, "BLOCK_SAMPLES", 5_003)
    with SequentialFile(path) as file:
        samples = mixed(SoundFileDecoder(file, "a", Mixer()))
    np.testing.assert_allclose(samples, soundfile.read(path, dtype="float32")[0], atol=1e-5)


@pytest.mark.slow
@needs_libmpg123
@pytest.mark.parametrize("rate", [44_100, 22_050, 11_025])
@pytest.mark.parametrize("channels", [1, 2])
def test_parts_equal_the_same_parts_of_the_whole(tmp_path, music, rate, channels):
    """Small frames use bits of many earlier frames."""
    path = write(tmp_path / "a.mp3", music(SECONDS, rate, channels), rate)
    with reader.open_audio(path, "a") as decoder:
        assert isinstance(decoder, decoders.MP3Decoder)
        for each in (decoder, SoundFileDecoder(decoder.file, "a", Mixer())):
            everything = mixed(each)
            for start in range(1_000, 7 * rate, 10_007):
                expected = everything[start : start + rate]
                np.testing.assert_allclose(mixed(each, start, start + rate), expected, atol=1e-5)


@pytest.mark.parametrize("data", [b"\xff", b"\xff\xfd\xb0\x04", b"\x00\xfb\xb0\x04", bytes(100)])
def test_no_frame_of_layer_3_gives_none(data):
    with mmap.mmap(-1, len(data)) as mapped:
        mapped[:] = data
        assert mp3.find_frames(mapped) is None
