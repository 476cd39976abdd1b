"""Cut the frames that contain some samples out of a FLAC file, as a new file.

Decoders find a sample by a seek table, which most files do not have, by a search that may fail, or by decoding
everything before it. But each frame has its number in its header (RFC 9639), and in most files all frames except the
last have the same number of samples.
"""

import dataclasses
import mmap
from pathlib import Path

MAGIC = b"fLaC"
STREAMINFO_BYTES, LAST_BLOCK = 34, 0x80
# The first bytes of each frame in files with frames of one length; a byte with this length and the rate follows.
SYNC = b"\xff\xf8"
MAX_HEADER_BYTES = 16
# The search visits frames one by one when no more than this many frames are left.
NEAR_FRAMES = 8
# Each step of the search excludes at least this fraction of the remaining bytes, also if frame sizes differ widely.
MIN_STEP = 1 / 16


@dataclasses.dataclass(frozen=True)
class Part:
    """Some consecutive frames of a file."""

    content: bytes
    """A FLAC file whose frame numbers do not begin at 0, which dr_flac accepts."""
    start: int
    """Position of the first sample in the whole file."""
    n_samples: int


def cut(path: Path, start: int, stop: int) -> Part | None:
    """Return the frames that contain the samples [start, stop); None if they cannot be found by their numbers."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        stream = _read_stream(data)
        if stream is None or not 0 <= start < stop <= stream.n_samples:
            return None
        first, last = start // stream.frame_samples, -(-stop // stream.frame_samples)
        begin = _find_frame(data, stream, first)
        # The last frame is shorter, so its header begins with other bytes.
        end = _find_frame(data, stream, last) if last < stream.n_frames - 1 else len(data)
        if begin is None or end is None:
            return None
        first_sample = first * stream.frame_samples
        last_sample = last * stream.frame_samples if end < len(data) else stream.n_samples
        content = _header(stream, last_sample - first_sample) + data[begin:end]
        return Part(content, first_sample, last_sample - first_sample)


@dataclasses.dataclass(frozen=True)
class _Stream:
    info: bytes
    begin: int
    """The byte where the first frame begins."""
    sync: bytes
    frame_samples: int
    n_samples: int

    @property
    def n_frames(self) -> int:
        return -(-self.n_samples // self.frame_samples)


def _read_stream(data: mmap.mmap) -> _Stream | None:
    if data[:4] != MAGIC:
        return None
    begin, is_last = len(MAGIC), False
    while not is_last:
        if begin + 4 > len(data):
            return None
        is_last = bool(data[begin] & LAST_BLOCK)
        begin += 4 + int.from_bytes(data[begin + 1 : begin + 4], "big")
    info = data[8 : 8 + STREAMINFO_BYTES]
    least, most = int.from_bytes(info[:2], "big"), int.from_bytes(info[2:4], "big")
    sync = data[begin : begin + len(SYNC) + 1]
    stream = _Stream(info, begin, sync, most, int.from_bytes(info[13:18], "big") & (1 << 36) - 1)
    is_counted = least == most > 0 and sync.startswith(SYNC) and _frame_number(data, begin) == 0
    return stream if is_counted else None


def _header(stream: _Stream, n_samples: int) -> bytes:
    """Return the header of a file with some of the stream's frames, which have `n_samples` samples."""
    counts = int.from_bytes(stream.info[10:18], "big") & ~((1 << 36) - 1) | n_samples
    info = stream.info[:10] + counts.to_bytes(8, "big") + stream.info[18:]
    return MAGIC + bytes([LAST_BLOCK, 0, 0, STREAMINFO_BYTES]) + info


def _find_frame(data: mmap.mmap, stream: _Stream, wanted: int) -> int | None:
    """Return the byte where frame `wanted` begins, by interpolation search; None if there is no such frame."""
    # Frame `below` begins at byte `low`; frame `above` is the first one after byte `high`.
    low, below, high, above = stream.begin, 0, len(data), stream.n_frames
    while above - below > NEAR_FRAMES and high > low + 1:
        share = (wanted - below - NEAR_FRAMES / 2) / (above - below)
        guess = low + 1 + int(min(max(share, MIN_STEP), 1 - MIN_STEP) * (high - low - 1))
        found, number = _next_frame(data, stream, range(guess, high), range(below + 1, above))
        if number <= wanted:
            low, below = found, number
        else:
            high, above = guess, number
    while below < wanted:
        low, below = _next_frame(data, stream, range(low + 1, high), range(below + 1, above))
    return low if below == wanted else None


def _next_frame(data: mmap.mmap, stream: _Stream, where: range, numbers: range) -> tuple[int, int]:
    """Return the first frame that begins in the bytes `where` with a number in `numbers`: its byte and its number.

    Without such a frame, return the ends of both ranges.
    """
    begin = data.find(stream.sync, where.start, where.stop + len(stream.sync) - 1)
    while begin >= 0:
        number = _frame_number(data, begin)
        if number is not None and number in numbers:
            return begin, number
        begin = data.find(stream.sync, begin + 1, where.stop + len(stream.sync) - 1)
    return where.stop, numbers.stop


def _frame_number(data: mmap.mmap, start: int) -> int | None:
    """Return the number of the frame that begins at byte `start`; None if there is no valid frame header."""
    header = data[start : start + MAX_HEADER_BYTES]
    if len(header) < MAX_HEADER_BYTES:
        return None
    # Coded like UTF-8, with up to seven bytes: the leading ones of the first byte are the number of bytes.
    n_ones = 8 - (~header[4] & 0xFF).bit_length()
    n_bytes = max(1, n_ones)
    number = header[4] & 0xFF >> n_ones
    for byte in header[5 : 4 + n_bytes]:
        number = number << 6 | byte & 0x3F
    block_code, rate_code = header[2] >> 4, header[2] & 0xF
    end = 4 + n_bytes + {6: 1, 7: 2}.get(block_code, 0) + {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    return number if end < len(header) and n_ones not in (1, 8) and _crc8(header[:end]) == header[end] else None


def _crc8(content: bytes) -> int:
    """Return the CRC at the end of a frame header, with the polynomial x^8 + x^2 + x + 1."""
    remainder = 0
    for byte in content:
        remainder = CRC8[remainder ^ byte]
    return remainder


def _crc8_of_byte(byte: int) -> int:
    for _ in range(8):
        byte = byte << 1 ^ (0x107 if byte & 0x80 else 0)
    return byte


CRC8 = [_crc8_of_byte(byte) for byte in range(256)]
