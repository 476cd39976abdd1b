"""Read headers of a FLAC file (RFC 9639): that of the file, and those of its frames."""

import itertools
import mmap
import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from musictag.audio.trailing import after_tags

MAX_HEADER_BYTES = 16
FRAME = re.compile(rb"\xff[\xf8\xf9]")
# A file begins with its mark and a block of 34 bytes, STREAMINFO.
BEGIN = b"fLaC\0\0\0\x22"
_STREAM_INFO = struct.Struct(">HH3x3sQ16x")
# Blocks of other kinds follow.
_BLOCK_HEADER_BYTES, _IS_LAST = 4, 0x80
# Bytes at the end of a file in which the last frame is looked for; a frame of 4,096 samples has some 16 kB.
_TAIL_BYTES = 1 << 16
# Numbers of samples of a frame by the code in its header; other codes are followed by the number.
_SIZES = {1: 192, **{code: 144 << code for code in range(2, 6)}, **{code: 1 << code for code in range(8, 16)}}


class StreamInfo(NamedTuple):
    """The values of the block STREAMINFO, and where the frames begin."""

    frame_samples: int | None
    """Samples of each frame but the last; None if they differ."""
    max_frame_bytes: int
    """Bytes of the longest frame; 0 if they are not known."""
    sample_rate: int
    """Sample rate in Hz."""
    n_samples: int
    """Length in samples per channel; 0 if it is not known."""
    first_frame: int
    """First byte of the first frame."""


class FrameHeader(NamedTuple):
    """The header of a frame."""

    number: int
    """Number of the frame, or of its first sample if `counts_samples`."""
    n_samples: int
    counts_samples: bool


def stream_info(data: mmap.mmap) -> StreamInfo | None:
    """Read the header of a file, which may follow tags; return None if it is not FLAC."""
    begin = after_tags(data, 0)
    at = begin + len(BEGIN)
    content = data[at - _BLOCK_HEADER_BYTES : at]
    if data[begin : begin + 4] != BEGIN[:4] or content[1:] != BEGIN[5:] or at + _STREAM_INFO.size > len(data):
        return None
    min_size, max_size, max_bytes, packed = _STREAM_INFO.unpack_from(data, at)
    is_last, at = content[0] & _IS_LAST, at + _STREAM_INFO.size
    while not is_last and at + _BLOCK_HEADER_BYTES <= len(data):
        header = int.from_bytes(data[at : at + _BLOCK_HEADER_BYTES])
        is_last, at = header >> 24 & _IS_LAST, at + _BLOCK_HEADER_BYTES + (header & 0xFF_FFFF)
    frame_samples = min_size if min_size == max_size else None
    return StreamInfo(frame_samples, int.from_bytes(max_bytes), packed >> 44, packed & 0xF_FFFF_FFFF, at)


def second_file(data: mmap.mmap) -> int | None:
    """Return the first byte of a FLAC file that was appended to the one in `data`, or None.

    The whole file is searched only if its last frame does not end at the declared number of samples, because a search
    takes a quarter of the time in which ten clips are decoded.
    """
    info = stream_info(data)
    last = next(_frame_ends(data, info, max(0, len(data) - _TAIL_BYTES), len(data)), None) if info else None
    if info and last and info.n_samples and last[1] == info.n_samples:
        return None
    found = data.find(BEGIN, info.first_frame if info else len(BEGIN))
    return found if found > 0 else None


def last_frame(data: mmap.mmap) -> int | None:
    """Return the first byte of the frame with the last sample of a file; None if there is none."""
    info = stream_info(data)
    if info is None or not info.n_samples:
        return None
    frames = itertools.chain.from_iterable(
        _frame_ends(data, info, max(info.first_frame, end - _TAIL_BYTES), end)
        for end in range(len(data), info.first_frame, -_TAIL_BYTES)
    )
    return next((begin for begin, end_sample in frames if end_sample == info.n_samples), None)


def _frame_ends(data: mmap.mmap, info: StreamInfo, begin: int, end: int) -> Iterator[tuple[int, int | None]]:
    """Yield the first byte and the sample after the end of the frames that begin in [begin, end), the last one first.

    The sample is None if it cannot be known.
    """
    for found in reversed(list(FRAME.finditer(data[begin : end + 1]))):
        at = begin + found.start()
        header = parse_header(data[at : at + MAX_HEADER_BYTES])
        if header is not None:
            first = first_sample(header, info.frame_samples)
            yield at, None if first is None else first + header.n_samples


def first_sample(header: FrameHeader, frame_samples: int | None) -> int | None:
    """Return the position of a frame, if all frames but the last have `frame_samples`; None if it cannot be known."""
    if header.counts_samples:
        return header.number
    return None if frame_samples is None else header.number * frame_samples


def parse_header(header: bytes) -> FrameHeader | None:
    """Parse the bytes of a frame from the first on; return None if the checksum of its header is wrong."""
    if len(header) < MAX_HEADER_BYTES:
        header = header.ljust(MAX_HEADER_BYTES, b"\0")
    size_code, rate_code = header[2] >> 4, header[2] & 0xF
    # The number is coded like a character of UTF-8, of up to 36 bits.
    n_ones = 8 - (header[4] ^ 0xFF).bit_length()
    if n_ones in (1, 8):
        return None
    number = header[4] & (0x7F >> n_ones)
    at = 5
    for byte in header[5 : 4 + max(1, n_ones)]:
        number, at = number << 6 | byte & 0x3F, at + 1
    if size_code in (6, 7):
        n_bytes = size_code - 5
        n_samples, at = int.from_bytes(header[at : at + n_bytes]) + 1, at + n_bytes
    else:
        n_samples = _SIZES.get(size_code, 0)
    at += {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    is_valid = n_samples > 0 and at < len(header) and _crc8(header[:at]) == header[at]
    return FrameHeader(number, n_samples, bool(header[1] & 1)) if is_valid else None


def _crc8(content: bytes) -> int:
    crc = 0
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc << 1 ^ (0x107 if crc & 0x80 else 0)
    return crc
