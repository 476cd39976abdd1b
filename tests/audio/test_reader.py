import math

import librosa
import numpy as np
import pytest
import soundfile

from musictag.audio import pcm, reader
from musictag.errors import (
    AudioCorruptError,
    AudioEmptyError,
    AudioTruncatedError,
    AudioUnreachableError,
    AudioUnsupportedError,
)
from musictag.storage import fetch

RATE = 16_000


def load(uri):
    with fetch.local_audio(str(uri)) as path, reader.open_audio(path, str(uri)) as opened:
        return np.concatenate(list(reader.waveform_blocks(opened, RATE)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sample_rate", "channels", "subtype"),
    [
        ("a.wav", 44_100, 2, None),
        ("a.wav", 16_000, 1, "FLOAT"),
        ("a.wav", 8_000, 1, None),
        ("a.wav", 48_000, 9, None),
        ("a.aiff", 22_050, 2, None),
        ("a.flac", 96_000, 2, "PCM_24"),
        ("a.ogg", 44_100, 2, None),
        ("a.opus", 48_000, 2, None),
        ("a.mp3", 44_100, 2, None),
        ("a.mp3", 22_050, 1, None),
    ],
)
def test_waveform_equals_that_of_librosa(tmp_path, music, write_audio, name, sample_rate, channels, subtype):
    path = write_audio(tmp_path / name, music(4.3, sample_rate, channels), sample_rate, subtype)
    waveform = load(path)
    assert waveform.dtype == np.float32
    np.testing.assert_allclose(waveform, librosa.load(path, sr=RATE)[0], atol=1e-4)


@pytest.mark.parametrize("name", ["a.mp3", "a.flac", "a.ogg", "a.m4a", "a.wav"])
@pytest.mark.parametrize("sample_rate", [44_100, RATE])
def test_waveform_does_not_depend_on_the_block_size(tmp_path, music, write_audio, monkeypatch, name, sample_rate):
    path = write_audio(tmp_path / name, music(3.0, sample_rate), sample_rate)
    whole = load(path)
    for size in (1_000, 4_096):
        monkeypatch.setattr(pcm, "BLOCK_SAMPLES", size)
        blocks = load(path)
        assert len(blocks) == len(whole)
        np.testing.assert_allclose(blocks, whole, atol=1e-5)


def test_blocks_of_a_thousand_channels_are_not_larger_than_others(tmp_path, music, write_audio):
    mono = music(1.0, RATE, 1)
    path = write_audio(tmp_path / "a.wav", np.repeat(mono, 1_000, axis=1), RATE, "FLOAT")
    with reader.open_audio(path, "a") as opened:
        blocks = list(opened.blocks())
    np.testing.assert_allclose(np.concatenate(blocks), mono[:, 0], atol=1e-5)
    assert max(map(len, blocks)) <= pcm.BLOCK_VALUES / 1_000


@pytest.mark.parametrize("sample_rate", [1, 999, 1_000_001, 2**31 - 1])
def test_an_implausible_sample_rate_is_corrupt(tmp_path, music, write_audio, sample_rate):
    path = write_audio(tmp_path / "a.wav", music(1.0), 44_100)
    header = bytearray(path.read_bytes())
    header[24:28] = sample_rate.to_bytes(4, "little")
    path.write_bytes(header)
    assert_fails(path, AudioCorruptError, f"the header declares {sample_rate:,} samples per second")


@pytest.mark.slow
def test_m4a_is_decoded_although_libsndfile_does_not_support_it(tmp_path, music, write_audio):
    samples = music(4.0)
    path = write_audio(tmp_path / "a.m4a", samples, 44_100)
    with pytest.raises(soundfile.LibsndfileError):
        soundfile.SoundFile(path)
    waveform = load(path)
    original = librosa.resample(samples.mean(axis=1), orig_sr=44_100, target_sr=RATE)
    assert len(original) <= len(waveform) < len(original) + 0.1 * RATE
    # AAC is lossy, but has neither a delay nor another gain.
    error = waveform[: len(original)] - original
    assert error.std() < 0.1 * original.std()


@pytest.mark.parametrize("sample_rate", [44_100, 48_000, 22_050, 8_000, 96_000, 16_000])
@pytest.mark.parametrize("place", ["start", "middle", "end"])
def test_an_excerpt_equals_the_same_samples_of_the_whole(tmp_path, music, write_audio, sample_rate, place):
    path = write_audio(tmp_path / "a.flac", music(6.0, sample_rate), sample_rate)
    assert_excerpt_equals_whole(path, place)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.mp3", "a.ogg", "a.wav"])
@pytest.mark.parametrize("place", ["start", "middle", "end"])
def test_an_excerpt_of_each_format_equals_the_same_samples_of_the_whole(tmp_path, music, write_audio, name, place):
    assert_excerpt_equals_whole(write_audio(tmp_path / name, music(6.0), 44_100), place)


def assert_excerpt_equals_whole(path, place):
    whole = load(path)
    start, stop = {"start": (0, 20_011), "middle": (33_333, 61_003), "end": (len(whole) - 20_011, len(whole))}[place]
    with reader.open_audio(path, str(path)) as opened:
        np.testing.assert_allclose(reader.excerpt(opened, RATE, start, stop), whole[start:stop], atol=1e-5)


def test_an_excerpt_of_a_track_longer_than_a_block_equals_the_same_samples_of_the_whole(tmp_path, music, write_audio):
    path = write_audio(tmp_path / "a.wav", music(8.0), 44_100)
    assert 2 * pcm.BLOCK_SAMPLES < 8 * 44_100
    assert_excerpt_equals_whole(path, "middle")


@pytest.mark.parametrize(("seconds", "sample_rate"), [(0.2, 44_100), (0.001, 48_000), (1 / 8_000, 8_000)])
def test_a_very_short_track_is_decoded(tmp_path, music, write_audio, seconds, sample_rate):
    path = write_audio(tmp_path / "a.wav", music(seconds, sample_rate), sample_rate)
    assert len(load(path)) == math.ceil(round(seconds * sample_rate) * RATE / sample_rate)


def test_silence_is_decoded(tmp_path, write_audio):
    waveform = load(write_audio(tmp_path / "a.flac", np.zeros((44_100, 2), np.float32), 44_100))
    assert len(waveform) == RATE
    assert not waveform.any()


def assert_fails(uri, error, reason=None):
    with pytest.raises(error, match=reason) as caught:
        load(uri)
    assert str(uri) in str(caught.value)


def test_a_missing_file_is_unreachable(tmp_path):
    assert_fails(tmp_path / "a.mp3", AudioUnreachableError, "No such file")


def test_a_folder_is_unreachable(tmp_path):
    assert_fails(tmp_path, AudioUnreachableError, "Is a directory")


@pytest.mark.slow
@pytest.mark.parametrize("uri", ["gopher://somewhere/a.mp3", "http://127.0.0.1:9/a.mp3"])
def test_an_unknown_scheme_or_a_silent_host_is_unreachable(uri):
    assert_fails(uri, AudioUnreachableError)


def test_a_file_of_zero_bytes_is_an_error(tmp_path):
    (tmp_path / "a.mp3").touch()
    assert_fails(tmp_path / "a.mp3", AudioEmptyError, "0 bytes")


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_a_header_without_samples_is_an_error(tmp_path, write_audio, name):
    assert_fails(write_audio(tmp_path / name, np.zeros((0, 2), np.float32), 44_100), AudioEmptyError)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("a.mp3", "not an MP3"), ("a.wav", "not recognised"), ("a.m4a", "not recognised"), ("a.txt", "not recognised")],
)
def test_a_text_file_with_an_audio_suffix_is_unsupported(tmp_path, name, reason):
    (tmp_path / name).write_text("These are the lyrics of a song, and no sound.\n" * 100)
    assert_fails(tmp_path / name, AudioUnsupportedError, reason)


@pytest.mark.parametrize("name", ["a.mp3", "a.flac"])
def test_a_file_truncated_to_60_percent_is_an_error(tmp_path, music, write_audio, name):
    path = write_audio(tmp_path / name, music(5.0), 44_100)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    assert_fails(path, (AudioTruncatedError, AudioCorruptError))


def test_the_error_of_a_truncated_mp3_has_both_durations(tmp_path, music, write_audio):
    path = write_audio(tmp_path / "a.mp3", music(5.0), 44_100)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    assert_fails(path, AudioTruncatedError, r"declares 5\.\d+ s, the file has [23]\.\d+ s")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_of_nan_or_infinity_are_corrupt(tmp_path, music, write_audio, value):
    samples = music(1.0)
    samples[20_000, 1] = value
    assert_fails(write_audio(tmp_path / "a.wav", samples, 44_100, "FLOAT"), AudioCorruptError, "NaN, infinity")
