"""Recognize encoded audio that is stored as if it were samples.

Rips of DTS and Dolby Digital discs keep the encoded stream in the samples of a WAV or FLAC file with two channels.
Played as samples, it is noise.
"""

import re
from pathlib import Path

import soundfile

from musictag.audio.libsndfile import UNKNOWN_LENGTH

# The words with which frames begin, as the bytes of 16-bit samples in both byte orders.
_SYNC_WORDS = {
    "DTS": rb"\xfe\x7f\x01\x80|\x7f\xfe\x80\x01|\xff\x1f\x00\xe8|\x1f\xff\xe8\x00",  # of 16 and 14 bits
    "Dolby Digital (AC-3) or another IEC 61937": rb"\x72\xf8\x1f\x4e|\xf8\x72\x4e\x1f",
}
# Samples in which at least so many frames begin. The same words occur in music once in some hours.
_SAMPLES, _FRAMES = 1 << 14, 3


def encoded_stream(path: Path) -> str | None:
    """Return the name of the encoding if the samples in the middle of a file are an encoded stream, else None.

    The file must be one that libsndfile opens. It is opened anew, because a failing seek would disturb its decoder.
    """
    with soundfile.SoundFile(path) as file:
        if file.channels != 2 or not file.subtype.startswith("PCM_") or file.frames == UNKNOWN_LENGTH:
            return None
        try:
            file.seek(max(0, file.frames // 2 - _SAMPLES // 2))
            content = file.read(_SAMPLES, dtype="int16").tobytes()
        except soundfile.LibsndfileError:  # damage, which decoding reports
            return None
    return next((name for name, words in _SYNC_WORDS.items() if len(re.findall(words, content)) >= _FRAMES), None)
