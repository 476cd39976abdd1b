"""Recognize encoded audio that is stored as if it were samples.

Rips of DTS and Dolby Digital discs keep the encoded stream in the samples of a WAV or FLAC file with two channels.
Played as samples, it is noise.
"""

import re
from pathlib import Path

import soundfile

from musictag.audio.libsndfile import UNKNOWN_LENGTH
from musictag.errors import AudioCorruptError

# The words with which frames begin, as the bytes of 16-bit samples in both byte orders.
_SYNC_WORDS = {
    "DTS": rb"\xfe\x7f\x01\x80|\x7f\xfe\x80\x01|\xff\x1f\x00\xe8|\x1f\xff\xe8\x00",  # of 16 and 14 bits
    "Dolby Digital (AC-3) or another IEC 61937": rb"\x72\xf8\x1f\x4e|\xf8\x72\x4e\x1f",
}
# Bytes from frame to frame: 256 to 4,096 samples of DTS, 1,536 of Dolby Digital, 6,144 of Dolby Digital Plus.
_FRAME_BYTES = (1_024, 2_048, 4_096, 6_144, 8_192, 16_384, 24_576)
N_SAMPLES = 1 << 15
"""Samples per channel that are looked at: at least three frames of any size."""


def encoded_stream(path: Path) -> str | None:
    """Return the name of the encoding if the samples in the middle of a file are an encoded stream, else None.

    The file must be one that libsndfile opens. It is opened anew, because a failing seek would disturb its decoder.
    """
    with soundfile.SoundFile(path) as file:
        if file.channels != 2 or not file.subtype.startswith("PCM_") or file.frames == UNKNOWN_LENGTH:
            return None
        try:
            file.seek(max(0, file.frames // 2 - N_SAMPLES // 2))
            content = file.read(N_SAMPLES, dtype="int16").tobytes()
        except soundfile.LibsndfileError:  # damage, which decoding reports
            return None
    return encoding_of(content)


def encoding_of(content: bytes) -> str | None:
    """Return the name of the encoding if 16-bit samples of two channels are an encoded stream, else None."""
    return next((name for name, words in _SYNC_WORDS.items() if _has_frames(content, words)), None)


def refusal(name: str, encoding: str) -> AudioCorruptError:
    """Return the error of a file whose samples are an encoded stream; `name` is its name in the message."""
    return AudioCorruptError(
        f"{name}: the samples are a {encoding} stream, not sound: decode it first, for example with FFmpeg"
    )


def _has_frames(content: bytes, words: bytes) -> bool:
    """Return whether three frames follow each other; loud music may hold single words by chance."""
    begins = {found.start() for found in re.finditer(words, content)}
    return any({begin, begin + size, begin + 2 * size} <= begins for begin in begins for size in _FRAME_BYTES)
