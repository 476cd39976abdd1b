"""Find the frames of an MP3 file, and check whether its channels may be mixed before the inverse transform.

Mixing spectra instead of samples saves half of the transforms, and is correct if both channels use the same windows.
Most files do, but the format (ISO/IEC 11172-3 and 13818-3) allows different windows.
"""

import array
import dataclasses
import functools
import itertools
import math
import mmap
import re
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

HEADER_BYTES, CRC_BYTES, SIDE_BYTES = 4, 2, 32
# The second byte of a layer III header: 111, the version in two bits, 01, and 1 if no CRC follows.
KINDS = {0b111_00_01_0 | version << 3 | is_bare for version in (0, 2, 3) for is_bare in (0, 1)}
MPEG_1 = 3
RATES = {0: (11_025, 12_000, 8_000), 2: (22_050, 24_000, 16_000), MPEG_1: (44_100, 48_000, 32_000)}
KBPS_OF_1 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
KBPS_OF_2 = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
# The bit offsets after the header of the windows of both channels, in two granules (MPEG 1) or one (MPEG 2). A window
# has four bits: one is set if it is not the normal window, two are its type, one is set if block sizes are mixed.
WINDOWS_OF_1, WINDOWS_OF_2 = ((53, 112), (171, 230)), ((48, 111),)
IS_MONO = 0b11
# The header of a frame of layer III, and the number of frames that follow each other where it is not a chance match.
ANY_FRAME, CONSECUTIVE_FRAMES = re.compile(rb"\xff[" + b"".join(re.escape(bytes([kind])) for kind in KINDS) + rb"]"), 4
# The first frame holds a Xing or Info header within this many bytes, after at most 38 bytes of other headers.
XING_WITHIN = 64
# A frame may use bits that are stored up to this many bytes earlier, headers not counted.
RESERVOIR_BYTES = 511
# Bytes of the smallest frame (8 kbit/s) without its header and side information.
MIN_PAYLOAD_BYTES = 11


@dataclasses.dataclass(frozen=True)
class Frames:
    """The layer III frames of a file, all of one MPEG version."""

    begins: npt.NDArray[np.int64]
    """First bytes of the frames that directly follow each other, from the first frame on."""
    channels_agree: bool
    """Whether both channels use the same windows in all frames of the file."""

    @property
    def n_preframes(self) -> int:
        """Number of frames to decode before a part: those with bits of its first frame, and two more to settle."""
        smallest = int(np.diff(self.begins).min(initial=RESERVOIR_BYTES)) - HEADER_BYTES - CRC_BYTES - SIDE_BYTES
        return 2 + math.ceil(RESERVOIR_BYTES / max(MIN_PAYLOAD_BYTES, smallest))


def read_frames(data: mmap.mmap, begin: int) -> Frames | None:
    """Find the frames from byte `begin` on; return None if no layer III frame begins there."""
    kind = data[begin + 1] if begin + 1 < len(data) else None
    if kind not in KINDS or data[begin] != 0xFF:
        return None
    lengths = _lengths(kind)
    begins, n_contiguous = array.array("q"), None  # an array, because an audiobook has millions of frames
    end = len(data) - HEADER_BYTES - CRC_BYTES - SIDE_BYTES
    while 0 <= begin < end:
        if data[begin] == 0xFF and data[begin + 1] == kind and (length := lengths[data[begin + 2]]):
            begins.append(begin)
            begin += length
        else:
            if n_contiguous is None:
                n_contiguous = max(0, len(begins) - 1)  # the last one may itself not be a frame
            begin = data.find(bytes([0xFF, kind]), begin + 1)
    frames = np.frombuffer(begins, np.int64)
    return Frames(frames[:n_contiguous], _channels_agree(np.frombuffer(data, np.uint8), frames, kind))


def has_frames_after_its_end(path: Path) -> bool:
    """Return whether an MP3 file holds more frames than its Xing or Info header declares.

    Files are joined by appending one to another; decoders stop at the end that the first header declares.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        begin = _first_frame(data, 0)
        declared = None if begin is None else _declared_length(data, begin)
        if begin is None or declared is None:
            return False
        n_declared, n_bytes = declared
        # Some programs declare too few bytes, so the frames are counted as well.
        if _first_frame(data, begin + n_bytes) is None:
            return False
        n_frames, end = _count_frames(data, begin, n_declared + 3)
        return n_frames > n_declared + 1 or _first_frame(data, end) is not None


def _first_frame(data: mmap.mmap, begin: int) -> int | None:
    """Return the first byte of the first `CONSECUTIVE_FRAMES` frames that directly follow each other, or None."""
    for found in ANY_FRAME.finditer(data, begin):
        if _count_frames(data, found.start(), CONSECUTIVE_FRAMES)[0] == CONSECUTIVE_FRAMES:
            return found.start()
    return None


def _count_frames(data: mmap.mmap, begin: int, max_frames: int) -> tuple[int, int]:
    """Return the number of frames that directly follow each other from a byte on, up to a limit, and the byte after."""
    n_frames = 0
    while n_frames < max_frames and begin + HEADER_BYTES <= len(data):
        kind = data[begin + 1]
        length = _lengths(kind)[data[begin + 2]] if data[begin] == 0xFF and kind in KINDS else 0
        if not length:
            break
        n_frames, begin = n_frames + 1, begin + length
    return n_frames, begin


def _declared_length(data: mmap.mmap, begin: int) -> tuple[int, int] | None:
    """Return the numbers of frames and bytes that the Xing or Info header in the first frame declares, or None."""
    header = max(data.find(name, begin, begin + XING_WITHIN) for name in (b"Xing", b"Info"))
    if header < 0 or header + 16 > len(data):
        return None
    flags, n_frames, n_bytes = struct.unpack_from(">III", data, header + 4)
    return (n_frames, n_bytes) if flags & 0b11 == 0b11 and n_frames and n_bytes else None


def _channels_agree(data: npt.NDArray[np.uint8], frames: npt.NDArray[np.int64], kind: int) -> bool:
    has_crc = not kind & 1
    stereo = frames[data[frames + 3] >> 6 != IS_MONO] + HEADER_BYTES + has_crc * CRC_BYTES

    def windows(bit: int) -> npt.NDArray[np.uint16]:
        two_bytes = data[stereo + bit // 8].astype(np.uint16) << 8 | data[stereo + bit // 8 + 1]
        bits = two_bytes >> (12 - bit % 8) & 0b1111
        return np.where(bits >= 0b1000, bits, 0)  # after a normal window, these bits have another meaning

    granules = WINDOWS_OF_1 if _version(kind) == MPEG_1 else WINDOWS_OF_2
    return all(np.array_equal(windows(left), windows(right)) for left, right in granules)


def _version(kind: int) -> int:
    return kind >> 3 & 0b11


@functools.cache
def _lengths(kind: int) -> list[int]:
    """Return the bytes of a frame for each third byte of its header, after the second byte `kind`; 0 if not valid."""
    version = _version(kind)
    bit_rates, bytes_of_kbps = (KBPS_OF_1, 144_000) if version == MPEG_1 else (KBPS_OF_2, 72_000)
    lengths = [0] * 256
    for (rate_code, rate), (kbps_code, kbps) in itertools.product(enumerate(RATES[version]), enumerate(bit_rates, 1)):
        for is_padded, is_private in itertools.product((0, 1), repeat=2):
            third = kbps_code << 4 | rate_code << 2 | is_padded << 1 | is_private
            lengths[third] = bytes_of_kbps * kbps // rate + is_padded
    return lengths
