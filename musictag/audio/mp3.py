"""The frames of an MP3 file: where they lie, and whether its channels may be mixed before spectra become samples.

Mixing spectra saves half of the transforms, and is right where both channels have windows of the same kind. In most
files they do, but the format (ISO/IEC 11172-3 and 13818-3) leaves each channel its own.
"""

import array
import dataclasses
import functools
import itertools
import math
import mmap

import numpy as np
import numpy.typing as npt

HEADER_BYTES, CRC_BYTES, SIDE_BYTES = 4, 2, 32
# A header's second byte, of layer III: 111, the version in two bits, 01, and whether no CRC follows.
KINDS = {0b111_00_01_0 | version << 3 | is_bare for version in (0, 2, 3) for is_bare in (0, 1)}
MPEG_1 = 3
RATES = {0: (11_025, 12_000, 8_000), 2: (22_050, 24_000, 16_000), MPEG_1: (44_100, 48_000, 32_000)}
KBPS_OF_1 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
KBPS_OF_2 = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
# At which bits behind the header the windows of both channels stand, in two granules (MPEG 1) or in one. Four bits tell
# a window: whether it is not the usual one, of what kind (two bits), and whether long and short ones are mixed.
WINDOWS_OF_1, WINDOWS_OF_2 = ((53, 112), (171, 230)), ((48, 111),)
IS_MONO = 0b11
# How far back, headers aside, the bits of a frame may lie.
RESERVOIR_BYTES = 511
# What the smallest frame, of 8 kbit/s, has beside its header and what follows that.
LEAST_PAYLOAD_BYTES = 11


@dataclasses.dataclass(frozen=True)
class Frames:
    """The frames of layer III that a file has, all of one version of MPEG."""

    begins: npt.NDArray[np.int64]
    """The bytes at which frames begin that lie one behind the other, from the first one on."""
    channels_agree: bool
    """Whether both channels have the same windows, in these and in all that follow."""

    @property
    def n_preframes(self) -> int:
        """Frames before a part that its decoding begins with: those that hold bits of its first, and two to settle."""
        least = int(np.diff(self.begins).min(initial=RESERVOIR_BYTES)) - HEADER_BYTES - CRC_BYTES - SIDE_BYTES
        return 2 + math.ceil(RESERVOIR_BYTES / max(LEAST_PAYLOAD_BYTES, least))


def read_frames(data: mmap.mmap, begin: int) -> Frames | None:
    """The frames from the one at byte `begin` on; None if none of layer III begins there."""
    kind = data[begin + 1] if begin + 1 < len(data) else None
    if kind not in KINDS or data[begin] != 0xFF:
        return None
    lengths = _lengths(kind)
    begins, n_in_row = array.array("q"), None  # of an audio book there are millions
    end = len(data) - HEADER_BYTES - CRC_BYTES - SIDE_BYTES
    while 0 <= begin < end:
        if data[begin] == 0xFF and data[begin + 1] == kind and (length := lengths[data[begin + 2]]):
            begins.append(begin)
            begin += length
        else:
            if n_in_row is None:
                n_in_row = max(0, len(begins) - 1)  # what leads to no frame may be none itself
            begin = data.find(bytes([0xFF, kind]), begin + 1)
    frames = np.frombuffer(begins, np.int64)
    return Frames(frames[:n_in_row], _channels_agree(np.frombuffer(data, np.uint8), frames, kind))


def _channels_agree(data: npt.NDArray[np.uint8], frames: npt.NDArray[np.int64], kind: int) -> bool:
    has_crc = not kind & 1
    of_two = frames[data[frames + 3] >> 6 != IS_MONO] + HEADER_BYTES + has_crc * CRC_BYTES

    def windows(bit: int) -> npt.NDArray[np.uint16]:
        two_bytes = data[of_two + bit // 8].astype(np.uint16) << 8 | data[of_two + bit // 8 + 1]
        bits = two_bytes >> (12 - bit % 8) & 0b1111
        return np.where(bits >= 0b1000, bits, 0)  # of the usual window, the other bits tell something else

    granules = WINDOWS_OF_1 if _version(kind) == MPEG_1 else WINDOWS_OF_2
    return all(np.array_equal(windows(left), windows(right)) for left, right in granules)


def _version(kind: int) -> int:
    return kind >> 3 & 0b11


@functools.cache
def _lengths(kind: int) -> list[int]:
    """The bytes of a frame by the third byte of its header, whose second is `kind`; 0 where it is no header."""
    version = _version(kind)
    bit_rates, bytes_of_kbps = (KBPS_OF_1, 144_000) if version == MPEG_1 else (KBPS_OF_2, 72_000)
    lengths = [0] * 256
    for (rate_code, rate), (kbps_code, kbps) in itertools.product(enumerate(RATES[version]), enumerate(bit_rates, 1)):
        for is_padded, is_private in itertools.product((0, 1), repeat=2):
            third = kbps_code << 4 | rate_code << 2 | is_padded << 1 | is_private
            lengths[third] = bytes_of_kbps * kbps // rate + is_padded
    return lengths
