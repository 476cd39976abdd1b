"""A folder lists exactly the suffixes of files that the decoders open."""

from pathlib import Path

import numpy as np
import pytest

from encoding import by_ffmpeg, by_soundfile
from musictag.audio.reader import open_audio, waveform_blocks
from musictag.catalog.folder import AUDIO_SUFFIXES
from musictag.errors import AudioUnsupportedError

pytestmark = pytest.mark.slow

# The container, and the codec of FFmpeg.
FFMPEG = {
    ".3g2": ("3g2", "aac"),
    ".3ga": ("3gp", "aac"),
    ".3gp": ("3gp", "aac"),
    ".aac": ("adts", "aac"),
    ".adts": ("adts", "aac"),
    ".asf": ("asf", "wmav2"),
    ".f4a": ("ipod", "aac"),
    ".m2a": ("mp2", "mp2"),
    ".m4a": ("ipod", "aac"),
    ".m4b": ("ipod", "alac"),
    ".m4r": ("ipod", "aac"),
    ".m4v": ("mp4", "aac"),
    ".mk3d": ("matroska", "flac"),
    ".mka": ("matroska", "flac"),
    ".mkv": ("matroska", "aac"),
    ".mov": ("mov", "pcm_s16le"),
    ".mp2": ("mp2", "mp2"),
    ".mp4": ("mp4", "aac"),
    ".mpa": ("mp2", "mp2"),
    ".ogv": ("ogg", "flac"),
    ".ogx": ("ogg", "flac"),
    ".qt": ("mov", "pcm_s16le"),
    ".tta": ("tta", "tta"),
    ".weba": ("webm", "libopus"),
    ".webm": ("webm", "libopus"),
    ".wma": ("asf", "wmav2"),
    ".wmv": ("asf", "wmav2"),
    ".wv": ("wv", "wavpack"),
}
SOUNDFILE = {
    ".aif": ("AIFF", "PCM_16"),
    ".aifc": ("AIFF", "FLOAT"),
    ".aiff": ("AIFF", "PCM_24"),
    ".au": ("AU", "PCM_16"),
    ".avr": ("AVR", "PCM_16"),
    ".bwf": ("WAV", "PCM_16"),
    ".caf": ("CAF", "ALAC_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".htk": ("HTK", "PCM_16"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
    ".mpga": ("MP3", "MPEG_LAYER_III"),
    ".oga": ("OGG", "VORBIS"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".paf": ("PAF", "PCM_16"),
    ".pvf": ("PVF", "PCM_16"),
    ".rf64": ("RF64", "PCM_16"),
    ".sf": ("IRCAM", "PCM_16"),
    ".snd": ("AU", "ULAW"),
    ".sph": ("NIST", "PCM_16"),
    ".svx": ("SVX", "PCM_16"),
    ".voc": ("VOC", "PCM_16"),
    ".w64": ("W64", "PCM_16"),
    ".wav": ("WAV", "PCM_16"),
    ".wave": ("WAVEX", "PCM_16"),
}
# Containers of one channel, as libsndfile writes them.
MONO = {".htk", ".svx"}
# No package that can be installed here encodes Monkey's Audio, DSD and Speex.
NOT_MADE_HERE = {".ape", ".dsf", ".spx"}


def encode(suffix: str, samples: np.ndarray, sample_rate: int) -> bytes:
    if suffix in MONO:
        samples = samples.mean(axis=1, keepdims=True)
    if suffix in SOUNDFILE:
        return by_soundfile(samples, sample_rate, *SOUNDFILE[suffix])
    return by_ffmpeg(samples, sample_rate, *FFMPEG[suffix], {})


def test_every_listed_suffix_is_tried() -> None:
    assert FFMPEG.keys() | SOUNDFILE.keys() | NOT_MADE_HERE == AUDIO_SUFFIXES


@pytest.mark.parametrize("suffix", sorted(AUDIO_SUFFIXES - NOT_MADE_HERE))
def test_listed_suffix_is_decoded(tmp_path: Path, music, suffix: str) -> None:
    samples = music(2.0, 48_000)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(encode(suffix, samples, 48_000))
    with open_audio(path, "a") as audio:
        waveform = np.concatenate(list(waveform_blocks(audio, 16_000)))
    assert len(waveform) == pytest.approx(2 * 16_000, abs=2_000)
    assert np.std(waveform) == pytest.approx(np.std(samples.mean(axis=1)), rel=0.2)


def test_raw_samples_are_unsupported(tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(bytes(1_000))
    with pytest.raises(AudioUnsupportedError, match="raw samples"), open_audio(tmp_path / "a.raw", "a"):
        pass
