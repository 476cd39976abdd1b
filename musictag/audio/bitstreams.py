"""Recognize encoded audio that is stored as if it were samples.

Rips of DTS and Dolby Digital discs keep the encoded stream in the samples of a WAV or FLAC file with two channels, and
recorders of broadcasts keep Dolby E so (SMPTE 337M). Played as samples, it is noise.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from musictag.audio.libsndfile import UNKNOWN_LENGTH
from musictag.errors import AudioCorruptError

AC_3 = "Dolby Digital (AC-3)"
# The words with which frames begin, as the bytes of 16-bit samples in both byte orders.
_SYNC_WORDS = {
    "DTS": (b"\xfe\x7f\x01\x80", b"\x7f\xfe\x80\x01", b"\xff\x1f\x00\xe8", b"\x1f\xff\xe8\x00"),  # of 16 and 14 bits
    f"{AC_3} or another IEC 61937": (b"\x72\xf8\x1f\x4e", b"\xf8\x72\x4e\x1f"),
    # Of 24 and 20 bits, of which the 16 upper ones are looked at.
    "Dolby E or another SMPTE 337M": (b"\xf8\x96\x4e\xa5", b"\x87\x6f\xe1\x54"),
}
# Bytes of a sample of two channels of 16 bits.
_PAIR = 4
# Bytes from frame to frame: 256 to 4,096 samples of DTS, 1,536 of Dolby Digital, 6,144 of Dolby Digital Plus. Dolby E
# has as many frames as the pictures of a film: 1,600 to 2,002 samples for 30 to 23.98 pictures per second.
_FRAME_BYTES = (1_024, 2_048, 4_096, 6_144, 8_192, 16_384, 24_576, 6_400, 6_404, 6_408, 7_680, 8_000, 8_008)
# Kilobits per second of Dolby Digital by half the code of its frame size.
_AC_3_RATES = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640)
_AC_3_SYNC_WORD = b"\x0b\x77"
N_SAMPLES = 1 << 15
"""Samples per channel that are looked at: at least three frames of any size."""


def encoded_stream(path: Path) -> str | None:
    """Return the name of the encoding if the samples in the middle of a file are an encoded stream, else None.

    If the middle is silent, other places are looked at. The file must be one that libsndfile opens. It is opened anew,
    because a failing seek would disturb its decoder.
    """
    with soundfile.SoundFile(path) as file:
        if file.channels != 2 or not file.subtype.startswith("PCM_") or file.frames == UNKNOWN_LENGTH:
            return None
        try:
            for share in (0.5, 0.25, 0.75):
                file.seek(max(0, int(file.frames * share) - N_SAMPLES // 2))
                samples = file.read(N_SAMPLES, dtype="int16")
                if samples.any():
                    return encoding_of(samples.tobytes())
        except soundfile.LibsndfileError:  # damage, which decoding reports
            pass
    return None


def encoding_of(content: bytes) -> str | None:
    """Return the name of the encoding if 16-bit samples of two channels are an encoded stream, else None."""
    swapped = np.frombuffer(content, "<u2").byteswap().tobytes()
    if any(_has_ac_3_frames(order) for order in (content, swapped)):
        return AC_3
    found = (name for name, words in _SYNC_WORDS.items() if any(_has_frames(content, word) for word in words))
    return next(found, None)


def refusal(name: str, encoding: str) -> AudioCorruptError:
    """Return the error of a file whose samples are an encoded stream; `name` is its name in the message."""
    return AudioCorruptError(
        f"{name}: the samples are a {encoding} stream, not sound: decode it first, for example with FFmpeg"
    )


def _has_frames(content: bytes, word: bytes) -> bool:
    """Return whether three frames follow each other; loud music may hold single words by chance.

    Frames may differ by a sample, because Dolby E at 29.97 pictures per second has 1,601.6 samples per frame.
    """
    begins = set(_places(content, word))
    return any(
        begin + size in begins and not begins.isdisjoint(begin + 2 * size + more for more in (-_PAIR, 0, _PAIR))
        for begin in begins
        for size in _FRAME_BYTES
    )


def _has_ac_3_frames(content: bytes) -> bool:
    """Return whether four sync words of Dolby Digital follow each other at the distances that the frames declare."""
    return any(_are_ac_3_frames(content, begin) for begin in _places(content, _AC_3_SYNC_WORD))


def _places(content: bytes, word: bytes) -> Iterator[int]:
    # One word is found more than ten times as fast as a choice of several.
    return (found.start() for found in re.finditer(re.escape(word), content))


def _are_ac_3_frames(content: bytes, begin: int) -> bool:
    """Return whether three frames, and the sync word of a fourth, follow each other from a byte on."""
    for _ in range(3):
        size = _ac_3_frame_bytes(content[begin : begin + 6])
        if not size or content[begin + size : begin + size + 2] != _AC_3_SYNC_WORD:
            return False
        begin += size
    return True


def _ac_3_frame_bytes(header: bytes) -> int | None:
    """Return the size of a frame by its first six bytes (ATSC A/52, table 5.18); None if they are no header."""
    if len(header) < 6 or header[5] >> 3 > 10:  # the version of the format
        return None
    sample_rate = {0: 48_000, 1: 44_100, 2: 32_000}.get(header[4] >> 6)
    code = header[4] & 63
    if sample_rate is None or code // 2 >= len(_AC_3_RATES):
        return None
    n_words = _AC_3_RATES[code // 2] * 96_000 // sample_rate
    return 2 * (n_words + (code % 2 if sample_rate == 44_100 else 0))
