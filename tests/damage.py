"""Functions that damage the bytes of audio files: truncate, overwrite, or write wrong headers."""

import functools
import io
import struct

import matplotlib.image
import numpy as np

from encoding import BY_FFMPEG, RATE, SECONDS, by_ffmpeg, by_soundfile, encoded, sound
from musictag.audio import ogg_pages

RUBBISH = np.random.default_rng(0).bytes(24 << 10)


def overwritten(data: bytes, at: int, n_bytes: int = 100) -> bytes:
    return data[:at] + RUBBISH[:n_bytes] + data[at + n_bytes :]


def lost(data: bytes, at: int, n_bytes: int = 300) -> bytes:
    return data[:at] + data[at + n_bytes :]


def zeroed(data: bytes, at: int, n_bytes: int = 2_048) -> bytes:
    return data[:at] + bytes(n_bytes) + data[at + n_bytes :]


def inserted(data: bytes, at: int, n_bytes: int = len(RUBBISH)) -> bytes:
    return data[:at] + RUBBISH[:n_bytes] + data[at:]


def cut(name: str, share: float) -> bytes:
    """Return the first part of a file; `share` is its fraction of the bytes."""
    return encoded(name)[: int(len(encoded(name)) * share)]


def zero_tail(name: str) -> bytes:
    """Replace the last 40% by zeros, as an interrupted download that had reserved its space."""
    return cut(name, 0.6) + bytes(len(encoded(name)) - len(cut(name, 0.6)))


def garbage_within(name: str) -> bytes:
    """Overwrite a tenth of the bytes, in the middle, by random ones."""
    data = encoded(name)
    middle, length = len(data) // 2, len(data) // 10
    return data[:middle] + np.random.default_rng(1).bytes(length) + data[middle + length :]


def patched(name: str, marker: bytes, offset: int, value: bytes) -> bytes:
    """Write `value` at `offset` bytes after the beginning of `marker`."""
    data = bytearray(encoded(name))
    begin = data.index(marker) + offset
    data[begin : begin + len(value)] = value
    return bytes(data)


def flipped(name: str) -> bytes:
    """Flip one bit in the second half."""
    data = bytearray(encoded(name))
    data[len(data) * 5 // 8] ^= 0x10
    return bytes(data)


def patched_ogg(name: str, marker: bytes, offset: int, value: bytes) -> bytes:
    """Do the same as `patched`, and update the checksums of the pages, so that decoders do not skip them."""
    data, begin = bytearray(patched(name, marker, offset, value)), 0
    while begin < len(data):
        n_segments = data[begin + 26]
        end = begin + 27 + n_segments + sum(data[begin + 27 : begin + 27 + n_segments])
        data[begin + 22 : begin + 26] = ogg_pages.checksum(bytes(data[begin:end]))
        begin = end
    return bytes(data)


@functools.cache
def wav(
    *, kind: int = 1, channels: int = 2, rate: int = RATE, bits: int = 16, align: int = 4, size: int | None = None,
    n_bytes: int = round(SECONDS * RATE) * 4,
) -> bytes:  # fmt: skip
    """Return a WAV file of noise with the given values in its header."""
    samples = np.random.default_rng(0).integers(-3_000, 3_000, n_bytes // 2, np.int16).tobytes()
    size = len(samples) if size is None else size
    riff = struct.pack("<4sI4s", b"RIFF", min(36 + size, 0xFFFF_FFFF), b"WAVE")
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, kind, channels, rate, rate * align & 0xFFFF_FFFF, align, bits)
    return riff + form + struct.pack("<4sI", b"data", size) + samples


def floats(value: float, container: str = "WAV", subtype: str = "FLOAT") -> bytes:
    """Return a file of floating-point samples; nearly all samples of the second channel are `value`."""
    samples = sound().astype(np.float64)
    samples[RATE // 10 :, 1] = value
    return by_soundfile(samples, RATE, container, subtype)


def rf64_of_a_terabyte() -> bytes:
    """Return an RF64 file whose header declares 2^40 bytes of samples."""
    return patched("rf64.wav", b"ds64", 16, struct.pack("<Q", 2**40))


def flac(total: int | None = None, offset: int = 0, value: bytes = b"") -> bytes:
    """Return a FLAC file with another total number of samples in its header, or with `value` at byte `offset`."""
    data = bytearray(encoded("plain.flac"))
    if total is not None:
        data[21:26] = ((data[21] & 0xF0) << 32 | total).to_bytes(5, "big")
    data[offset : offset + len(value)] = value
    return bytes(data)


def id3(n_bytes: int, declared: int | None = None) -> bytes:
    """Return an ID3v2.3 tag with a picture of `n_bytes`; `declared` replaces the size in its header."""
    picture = b"\0image/jpeg\0\3\0" + bytes(n_bytes)
    frame = struct.pack(">4sIH", b"APIC", len(picture), 0) + picture
    size = len(frame) if declared is None else declared
    return b"ID3\3\0\0" + bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0)) + frame


def two_kinds_of_frames() -> bytes:
    """Return empty MP3 frames whose headers differ, so that libmpg123 changes its number of samples per frame."""
    return b"".join(
        header + bytes(length) for header, length in ((b"\xff\xe3H", 285), (b"\xff\xe3H", 459), (b"\xff\xe5D", 863))
    )


def video() -> bytes:
    """Return an MP4 file whose only track is declared to be video."""
    return encoded("plain.m4a").replace(b"soun", b"vide")


def with_long_header(data: bytes, name: bytes) -> bytes:
    """Give a box of an MP4 file a size of 64 bits, which makes its header longer by 8 bytes."""
    begin = data.index(name) - 4
    size = struct.unpack_from(">I", data, begin)[0]
    return data[:begin] + struct.pack(">I4sQ", 1, name, size + 8) + data[begin + 8 :]


def boxes_in_boxes() -> bytes:
    """Return an MP4 file of nested empty boxes, where each box contains all boxes after it."""
    brand = encoded("plain.m4a")[:28]
    return brand + b"".join(struct.pack(">I4s", 8 * n, b"moov") for n in range(5_000, 0, -1))


def without_index(name: str) -> bytes:
    """Return a fragmented MP4 file without its index."""
    data = encoded(name)
    return data[: data.index(b"moov") - 4] + data[data.index(b"moof") - 4 :]


def image(kind: str) -> bytes:
    """Return a picture of noise."""
    stream = io.BytesIO()
    matplotlib.image.imsave(stream, np.random.default_rng(0).random((64, 64, 3)), format=kind)
    return stream.getvalue()


def silence_before(name: str) -> bytes:
    """Put ten seconds of silence before a sound.

    Silence takes few bytes, so a length estimated from the bit rate of the first frames is wrong.
    """
    return by_ffmpeg(np.zeros((10 * RATE, 2), np.float32), RATE, *BY_FFMPEG[name]) + encoded(name)
